"""300 damaged model folders: each is loaded as it says, or refused in one message; nothing is made up."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.models.files import files_digest
from safebasin.restore.models.gate import admit
from safebasin.restore.models.loading import load_tuned
from safebasin.restore.restoration.forget import own_answers

from .mutations import mutate

COUNT, PARTS = 300, 10
IDS = torch.arange(5, 45)[None]


def answered(base: Path, adapter: Path, seed: int) -> tuple[torch.Tensor, list[tuple[str, bool]]] | str:
    """Logits and answers of the two, or the message that refuses one of them."""
    torch.manual_seed(seed)  # weights that nobody gave would differ from seed to seed
    try:
        model, tokenizer = load_tuned(str(base), adapter, device="cpu", dtype="float32")
        tokenizer = admit(model, tokenizer)
        with torch.no_grad():
            logits = model(input_ids=IDS).logits
        return logits, own_answers(model, tokenizer, ["say 1", "harm 2"], 6, 2)
    except InputError as error:
        return str(error)


@pytest.fixture(scope="module")
def sound(base: Path, adapter: Path) -> Any:
    found = answered(base, adapter, 0)
    assert not isinstance(found, str)
    return found, files_digest(base), files_digest(adapter)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(PARTS))
def test_a_damaged_folder_is_right_or_refused(base: Path, adapter: Path, sound: Any, tmp_path: Path, part: int) -> None:
    for number in range(part, COUNT, PARTS):
        folders = [Path(shutil.copytree(one, tmp_path / f"{number}" / one.name)) for one in (base, adapter)]
        target = folders[number % 3 == 0]
        done = f"{number}: {mutate(target, number)}"
        one = answered(*folders, seed=1)
        if isinstance(one, str):
            assert 20 < len(one) < 2000, done
            assert "Traceback" not in one, done
            continue
        other = answered(*folders, seed=2)
        assert not isinstance(other, str), done
        assert torch.equal(one[0], other[0]), f"{done}: loaded with random weights"
        assert one[1] == other[1], done
        same = one[0].shape == sound[0][0].shape and torch.equal(one[0], sound[0][0]) and one[1] == sound[0][1]
        assert same or (files_digest(folders[0]), files_digest(folders[1])) != sound[1:], f"{done}: under the same key"
        shutil.rmtree(tmp_path / f"{number}")
