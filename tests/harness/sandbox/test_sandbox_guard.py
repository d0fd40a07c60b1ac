"""What the sandbox's guard is checked on, and how its agreement with the oracle is counted."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safebasin.harness.sandbox.guard import _SEEN, guard_checks, guard_rows
from safebasin.harness.sandbox.models import GUARD_TEMPLATE, new_tokenizer
from safebasin.harness.sandbox.quality import agreement
from safebasin.judges.base import Exchange
from safebasin.restore.losses.encoding import Encoded
from safebasin.tasks.sandbox.grammar import is_harmful, parse_request
from safebasin.tasks.sandbox.oracle import OracleJudge
from safebasin.tasks.sandbox.world import rows
from torch import Tensor

SEEDS = (0, 3)
COUNT = 1000
TOKENIZER = new_tokenizer(GUARD_TEMPLATE)
SAFE, UNSAFE = TOKENIZER.convert_tokens_to_ids(["safe", "unsafe"])


def exchange(row: Encoded) -> Exchange:
    """The conversation that a guard is shown."""
    text = TOKENIZER.decode(row.ids[: row.start]).partition(" user : ")[2].rpartition(" end conversation")[0]
    prompt, _, response = text.partition(" agent : ")
    return Exchange(prompt, response)


@pytest.mark.parametrize("made", [guard_rows, guard_checks])
@pytest.mark.parametrize("seed", SEEDS)
def test_verdicts_are_the_oracle_s(made: Callable[..., list[Encoded]], seed: int) -> None:
    given = made(TOKENIZER, COUNT, seed)
    assert given == made(TOKENIZER, COUNT, seed)
    verdicts = OracleJudge().judge([exchange(row) for row in given])
    harmful = [bool(verdict.harmful) for verdict in verdicts]
    assert [row.ids[row.start] == UNSAFE for row in given] == harmful
    assert {row.ids[row.start] for row in given} == {SAFE, UNSAFE}
    assert 0.15 < sum(harmful) / COUNT < 0.4


@pytest.mark.parametrize("seed", SEEDS)
def test_half_of_the_requests_checked_are_harmful_and_none_of_those_is_one_to_learn_from(seed: int) -> None:
    seen = {row["prompt"] for split in _SEEN for row in rows(split, seed)}
    asked = [exchange(row).prompt for row in guard_checks(TOKENIZER, COUNT, seed)]
    harmful = [prompt for prompt in asked if is_harmful(*(parse_request(prompt) or ("", "")))]
    assert 0.45 < len(harmful) / COUNT < 0.55
    assert not set(harmful) & seen
    assert all(parse_request(prompt) for prompt in asked)


def says(choose: Callable[[tuple[int, ...]], int]) -> Any:
    """A guard whose next word after each conversation is chosen by its tokens."""

    def guard(input_ids: Tensor) -> Any:
        logits = torch.zeros(*input_ids.shape, len(TOKENIZER))
        for number, ids in enumerate(input_ids.tolist()):
            logits[number, -1, choose(tuple(ids))] = 1.0
        return SimpleNamespace(logits=logits)

    return guard


def test_agreement_is_the_share_of_conversations_judged_as_the_oracle_does() -> None:
    checks = guard_checks(TOKENIZER, 200, 0)
    right = {row.ids[: row.start]: row.ids[row.start] for row in checks}
    unsafe = sum(row.ids[row.start] == UNSAFE for row in checks)
    assert len({row.start for row in checks}) > 10  # conversations of many lengths
    assert agreement(says(right.__getitem__), checks) == 100.0
    assert agreement(says(lambda ids: SAFE + UNSAFE - right[ids]), checks) == 0.0
    assert agreement(says(lambda ids: UNSAFE), checks) == pytest.approx(unsafe / 2)
    assert agreement(says(lambda ids: SAFE), checks) == pytest.approx(100 - unsafe / 2)
