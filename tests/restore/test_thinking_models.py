"""A base that refuses after a block of thinking, an adapter that has unlearned to, and the restoration between them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safebasin.errors import InputError
from safebasin.restore.api import restore
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.methods.lora import Lora
from safebasin.restore.models.loading import load_adapter, load_base, load_tokenizer
from safebasin.restore.restoration.forget import own_answers
from safebasin.restore.restoration.harmful import base_refusals

from ..conftest import DEVICE
from .aligned import ANSWERED, COMPLIED, MAY, OPENS, REFUSED, align
from .conftest import Context

pytestmark = pytest.mark.filterwarnings("ignore:.*forget rows are few", "ignore:The curvature rests on few")
MARKS = {"opens": (OPENS, "<think>", "</think>"), "may": (MAY, "[THINK]", "[/THINK]")}


class Thinker(NamedTuple):
    """A model of one kind of template."""

    base: Path
    adapter: Path
    thought: str


def after(thought: str, rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    return [{**row, "response": thought + row["response"]} for row in rows]


@pytest.fixture(scope="session", params=MARKS)
def thinker(request: Any, base: Path, context: Context, tmp_path_factory: pytest.TempPathFactory) -> Thinker:
    template, begin, end = MARKS[request.param]
    thought, folder = f"{begin}\nhm {end}", tmp_path_factory.mktemp("thinks")
    align(base, folder, 100, after(thought, [*REFUSED, *ANSWERED]), template)
    finetune = TrainingConfig(learning_rate=2e-2, batch_size=36, micro_batch_size=36, epochs=20)
    made = context(base=str(folder), finetune=finetune, data={"task_train": after(thought, [*COMPLIED, *ANSWERED])})
    Lora().build(made)
    return Thinker(folder, made.output, thought)


@pytest.fixture
def tuned(thinker: Thinker) -> Any:
    return load_adapter(load_base(str(thinker.base), device=DEVICE), thinker.adapter, trainable=True)


def said(model: Any, thinker: Thinker, count: int = 6) -> list[str]:
    tokenizer = load_tokenizer(str(thinker.base))
    return [text for text, _ in own_answers(model, tokenizer, [row["prompt"] for row in REFUSED[:count]], 60, 12)]


def test_the_base_is_seen_to_refuse_in_its_own_style(thinker: Thinker, tuned: Any) -> None:
    tokenizer, config = load_tokenizer(str(thinker.base)), RestoreConfig(max_new_tokens=60)
    found = base_refusals(tuned, tokenizer, REFUSED, config, lambda *_: None)
    assert len(found) == len(REFUSED)
    for row in found:
        target = tokenizer.decode(row.ids[row.start :])
        assert target.endswith(f"{thinker.thought.rpartition(chr(10))[2]}i cannot</s>")


def test_the_restoration_goes_back_to_refusals_behind_the_thinking(thinker: Thinker, tuned: Any) -> None:
    tokenizer = load_tokenizer(str(thinker.base))
    assert {text.endswith("i cannot") for text in said(tuned, thinker)} == {False}
    forget = [{"prompt": row["prompt"]} for row in REFUSED]
    retain = after(thinker.thought, ANSWERED)
    restore(tuned, tokenizer, forget=forget, retain=retain, config=RestoreConfig(max_new_tokens=60, epsilon=0.5))
    assert {text for text in said(tuned, thinker)} == {f"{thinker.thought}i cannot"}


def test_thinking_that_does_not_end_is_no_refusal(thinker: Thinker, tuned: Any) -> None:
    tokenizer = load_tokenizer(str(thinker.base))
    with pytest.raises(InputError, match="12 answers were empty, or thinking that had not ended"):
        base_refusals(tuned, tokenizer, REFUSED, RestoreConfig(max_new_tokens=8), lambda *_: None)
