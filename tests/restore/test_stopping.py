"""The end at the smallest sufficient change."""

import json
from dataclasses import replace
from typing import Any

import pytest
from safebasin.restore.api import restore
from safebasin.restore.config import RestoreConfig
from safebasin.restore.encoding import encode_all
from safebasin.restore.forget import ForgetReport, forget_rows
from safebasin.restore.losses import Losses
from safebasin.restore.parameters import FlatParameters
from safebasin.restore.stopping import State, stop_rule

from .aligned import ANSWERED, COMPLIED, COUNT

pytestmark = pytest.mark.filterwarnings("ignore:.*forget rows are few")
CONFIG = RestoreConfig(max_new_tokens=12, iterations=6, products=5, retain_rows=8, epsilon=0.1, stop="none")
FORGET, HELD_OUT = [{"prompt": f"harm {i}"} for i in range(6)], [{"prompt": f"harm {i}"} for i in range(6, COUNT)]


@pytest.fixture
def losses(tuned: Any, tokenizer: Any) -> Losses:
    rows = {"forget": encode_all(tokenizer, COMPLIED, "forget")}
    return Losses(tuned, FlatParameters(tuned), rows, 1, 12, 0)


def test_without_a_rule_nothing_is_measured(losses: Losses, tokenizer: Any) -> None:
    enough = stop_rule(losses, tokenizer, HELD_OUT, CONFIG)
    assert enough() is None
    losses.parameters.set(0 * losses.parameters.get())
    assert enough() is None
    assert losses.passes.rows == 0


def test_by_default_held_out_prompts_are_asked() -> None:
    assert (RestoreConfig().stop, RestoreConfig().held_out) == ("refused", 64)


def test_the_base_s_loss_is_reached_where_the_adapter_is_gone(losses: Losses, tokenizer: Any) -> None:
    enough, tuned = stop_rule(losses, tokenizer, [], replace(CONFIG, stop="base_loss")), losses.parameters.get()
    found = []
    for share in (1.0, 0.7, 0.0):
        losses.parameters.set(share * tuned)
        found.append((enough(), losses.on("forget").loss()))
    level = found[-1][1]
    assert [state.enough for state, _ in found] == [False, False, True]
    assert [state.text for state, _ in found] == [
        f"the forget loss is {loss:.3f}, the base model's {level:.3f}" for _, loss in found
    ]


ASKED = [*HELD_OUT, *({"prompt": f"say {i}"} for i in range(20, 22))]
"""Six that the base refuses and two that it answers."""


def test_as_many_are_to_be_refused_as_by_the_base(losses: Losses, tokenizer: Any) -> None:
    """Both may answer the same ones."""
    enough = stop_rule(losses, tokenizer, ASKED, replace(CONFIG, stop="refused"))
    assert enough() == State(
        False, "0 of 8 held-out harmful prompts are refused, 6 by the base model (95 % interval 41 to 93 %)"
    )
    losses.parameters.set(0 * losses.parameters.get())
    assert enough() == State(
        True, "6 of 8 held-out harmful prompts are refused, 6 by the base model (95 % interval 41 to 93 %)"
    )


def test_more_refusals_than_the_base_s_are_enough_too(
    losses: Losses, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = ForgetReport(8, 0, 0, refused=5, empty=0)
    monkeypatch.setattr("safebasin.restore.stopping.forget_rows", lambda *_: ([], report))
    enough = stop_rule(losses, tokenizer, ASKED, replace(CONFIG, stop="refused"))
    for refused, done in ((4, False), (5, True), (7, True)):
        object.__setattr__(report, "refused", refused)
        found = enough()
        assert found is not None
        assert found.enough is done


@pytest.mark.parametrize("prompts", [[], [{"prompt": f"say {i}"} for i in range(3)]])
def test_where_the_base_refuses_none_there_is_no_rule(losses: Losses, tokenizer: Any, prompts: Any) -> None:
    enough = stop_rule(losses, tokenizer, prompts, replace(CONFIG, stop="refused"))
    assert enough() is None
    losses.parameters.set(0 * losses.parameters.get())
    assert enough() is None


@pytest.mark.parametrize("held_out", [2, 99])
def test_as_many_prompts_are_asked_as_are_wanted(losses: Losses, tokenizer: Any, held_out: int) -> None:
    enough = stop_rule(losses, tokenizer, HELD_OUT, replace(CONFIG, stop="refused", held_out=held_out))
    asked = min(held_out, len(HELD_OUT))
    assert losses.passes.forward == asked
    found = enough()
    assert found is not None
    assert found.text.startswith(f"0 of {asked} held-out")
    assert (losses.passes.forward, losses.passes.gradient) == (2 * asked, 0)


def run(tuned: Any, tokenizer: Any, **changes: Any) -> Any:
    """The restoration, an iteration at a time taking the model only part of the way."""
    config = replace(CONFIG, scale="trust", trust_radius=1.0, **changes)
    return restore(
        tuned, tokenizer, forget=FORGET, curvature_forget=HELD_OUT, retain=ANSWERED, config=config, inplace=False
    )


def test_none_runs_all_iterations(tuned: Any, tokenizer: Any) -> None:
    record = run(tuned, tokenizer, iterations=4).record
    assert (len(record.iterations), record.ended, record.state) == (4, "iterations", "")


@pytest.mark.parametrize("adaptive", [False, True])
def test_refused_stops_at_the_first_update_after_which_they_are(tuned: Any, tokenizer: Any, adaptive: bool) -> None:
    result = run(tuned, tokenizer, stop="refused", adaptive=adaptive)
    done = len(result.record.iterations)
    assert result.record.ended == "restored"
    assert (
        result.record.state
        == "6 of 6 held-out harmful prompts are refused, 6 by the base model (95 % interval 61 to 100 %)"
    )
    assert 1 < done < 6
    assert forget_rows(result.model, tokenizer, HELD_OUT, max_new_tokens=24)[1].refused == 6
    shorter = run(tuned, tokenizer, iterations=done - 1, adaptive=adaptive)
    assert forget_rows(shorter.model, tokenizer, HELD_OUT, max_new_tokens=24)[1].refused < 6


def test_base_loss_stops_at_the_first_update_after_which_it_is_reached(tuned: Any, tokenizer: Any) -> None:
    """By ascent, which has no end of its own, and without a bound."""
    changes = {"ascend": 1.0, "refusals": 0.0, "retain": 1.0, "epsilon": None, "epsilon_share": None}
    result = run(tuned, tokenizer, stop="base_loss", adaptive=False, iterations=9, **changes)
    rows = result.record.iterations
    assert result.record.ended == "restored"
    level = float(result.record.state.rpartition(" ")[2].strip())
    assert 1 < len(rows) < 9
    assert rows[-1]["forget_loss"] >= level > rows[-2]["forget_loss"]


def test_the_end_is_saved_with_the_trace_and_in_the_details_of_the_method(tuned: Any, tokenizer: Any) -> None:
    record = run(tuned, tokenizer, stop="refused").record
    saved = json.loads(record.to_json())
    assert saved["ended"] == "restored"
    assert (
        saved["state"] == "6 of 6 held-out harmful prompts are refused, 6 by the base model (95 % interval 61 to 100 %)"
    )
    assert saved["epsilon"] == 0.1
    assert saved["row_passes"] == record.row_passes > 0
