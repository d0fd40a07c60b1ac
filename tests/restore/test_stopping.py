"""The end at the smallest sufficient change."""

from dataclasses import replace
from typing import Any

import pytest
from safebasin.restore.api import restore
from safebasin.restore.config import RestoreConfig
from safebasin.restore.encoding import encode_all
from safebasin.restore.forget import forget_rows
from safebasin.restore.losses import Losses
from safebasin.restore.parameters import FlatParameters
from safebasin.restore.stopping import stop_rule

from .aligned import ANSWERED, COMPLIED, COUNT

pytestmark = pytest.mark.filterwarnings("ignore:.*forget rows are few")
CONFIG = RestoreConfig(max_new_tokens=12, iterations=6, cg_iterations=5, retain_rows=8)
FORGET, HELD_OUT = [{"prompt": f"harm {i}"} for i in range(6)], [{"prompt": f"harm {i}"} for i in range(6, COUNT)]


@pytest.fixture
def losses(tuned: Any, tokenizer: Any) -> Losses:
    rows = {"forget": encode_all(tokenizer, COMPLIED, "forget")}
    return Losses(tuned, FlatParameters(tuned), rows, 1, 12, 0)


def test_without_a_rule_nothing_is_ever_enough(losses: Losses, tokenizer: Any) -> None:
    enough = stop_rule(losses, tokenizer, HELD_OUT, CONFIG)
    assert enough() == ""
    losses.parameters.set(0 * losses.parameters.get())
    assert enough() == ""


def test_the_base_s_loss_is_reached_where_the_adapter_is_gone(losses: Losses, tokenizer: Any) -> None:
    enough, tuned = stop_rule(losses, tokenizer, [], replace(CONFIG, stop="base_loss")), losses.parameters.get()
    assert enough() == ""
    losses.parameters.set(0.7 * tuned)
    assert enough() == ""
    losses.parameters.set(0.0 * tuned)
    level = losses.on("forget").loss()
    assert enough() == f"forget loss {level:.3f} has reached the base model's {level:.3f}"


def test_the_share_of_prompts_refused_is_that_of_the_model_as_it_stands(losses: Losses, tokenizer: Any) -> None:
    asked = [*HELD_OUT, *({"prompt": f"say {i}"} for i in range(20, 22))]
    whole = stop_rule(losses, tokenizer, asked, replace(CONFIG, stop="refused"))
    part = stop_rule(losses, tokenizer, asked, replace(CONFIG, stop="refused", refused_share=0.75))
    assert (whole(), part()) == ("", "")
    losses.parameters.set(0 * losses.parameters.get())
    assert (whole(), part()) == ("", "6 of 8 held-out prompts refused")


def test_as_many_prompts_are_asked_as_are_needed(
    losses: Losses, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safebasin.restore.stopping.ASKED", 2)
    losses.parameters.set(0 * losses.parameters.get())
    enough = stop_rule(losses, tokenizer, HELD_OUT, replace(CONFIG, stop="refused"))
    assert enough() == "2 of 2 held-out prompts refused"


def run(tuned: Any, tokenizer: Any, **changes: Any) -> Any:
    """The restoration, an iteration at a time taking the model only part of the way."""
    config = replace(CONFIG, scale="trust", trust_radius=1.0, shrink=0.0, **changes)
    return restore(
        tuned, tokenizer, forget=FORGET, curvature_forget=HELD_OUT, retain=ANSWERED, config=config, inplace=False
    )


def test_none_runs_all_iterations(tuned: Any, tokenizer: Any) -> None:
    record = run(tuned, tokenizer, iterations=4).record
    assert (len(record.iterations), record.stopped) == (4, "")


def test_refused_stops_at_the_first_update_after_which_they_are(tuned: Any, tokenizer: Any) -> None:
    result = run(tuned, tokenizer, stop="refused")
    done = len(result.record.iterations)
    assert result.record.stopped == "6 of 6 held-out prompts refused"
    assert 1 < done < 6
    assert forget_rows(result.model, tokenizer, HELD_OUT, max_new_tokens=24)[1].refused == 6
    shorter = run(tuned, tokenizer, iterations=done - 1)
    assert forget_rows(shorter.model, tokenizer, HELD_OUT, max_new_tokens=24)[1].refused < 6


def test_base_loss_stops_at_the_first_update_after_which_it_is_reached(tuned: Any, tokenizer: Any) -> None:
    """By ascent, which has no end of its own, and without a bound."""
    changes = {"ascend": 1.0, "refusals": 0.0, "retain": 1.0, "epsilon": None}
    result = run(tuned, tokenizer, stop="base_loss", **changes)
    rows = result.record.iterations
    assert "has reached the base model's" in result.record.stopped
    level = float(result.record.stopped.rpartition(" ")[2].strip())
    assert 1 < len(rows) < 6
    assert rows[-1]["forget_loss"] >= level > rows[-2]["forget_loss"]


def test_the_reason_is_saved_with_the_trace(tuned: Any, tokenizer: Any) -> None:
    assert '"stopped": "6 of 6 held-out prompts refused"' in run(tuned, tokenizer, stop="refused").record.to_json()
