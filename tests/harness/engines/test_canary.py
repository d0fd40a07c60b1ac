"""The probe tells models apart, and no number is no agreement."""

import math
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.harness.engines.canary import TOLERANCE, check_differs, check_served, distance, probe_ids, reference
from safebasin.restore.models.loading import load_base, load_tokenizer

from ...conftest import TinyChatModel


def test_the_reference_is_the_models_own_log_probabilities(tiny_chat_model: TinyChatModel) -> None:
    folder = str(tiny_chat_model())
    model, ids = load_base(folder), probe_ids(load_tokenizer(folder))
    import torch

    inputs = torch.tensor([ids])
    with torch.no_grad():
        loss = model(input_ids=inputs, labels=inputs).loss
    found = reference(model, ids)
    assert len(found) == len(ids) - 1
    assert -sum(found) / len(found) == pytest.approx(loss.item(), rel=1e-5)
    other = reference(load_base(str(tiny_chat_model(seed=1))), ids)
    assert distance(found, other) > 100 * TOLERANCE["float32"]


def test_the_probe_tells_the_sandboxs_models_apart(world: Path) -> None:
    folders = [str(world / name) for name in ("base", "unaligned")]
    ids = probe_ids(load_tokenizer(folders[0]))
    base, unaligned = (reference(load_base(folder), ids) for folder in folders)
    assert distance(base, unaligned) > 100 * TOLERANCE["float32"]


@pytest.mark.parametrize("served", [[-1.0, -2.002], [math.nan, -2.0], [-1.0, -math.inf]])
def test_other_numbers_are_refused(served: list[float]) -> None:
    check_served("it", [-1.0005, -2.0], [-1.0, -2.0], "float32")
    with pytest.raises(InputError, match="does not serve 'it'"):
        check_served("it", served, [-1.0, -2.0], "float32")


def test_the_bases_bits_are_refused_for_a_checkpoint_that_differs() -> None:
    base, wanted = [-1.0, -2.0], [-1.0, -2.00001]
    check_differs("it", [-1.0, -2.000011], base, wanted, base)
    check_differs("it", base, base, base, base)  # a checkpoint that is its base
    with pytest.raises(InputError, match="serves the base model in place of 'it'"):
        check_differs("it", base, base, wanted, base)
