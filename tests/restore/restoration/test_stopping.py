"""The end at the smallest sufficient change."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safebasin.restore.api import restore
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.encoding import Encoded, encode_all
from safebasin.restore.losses.objective import TokenMeanLoss
from safebasin.restore.losses.of_model import Losses
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.models.thinking import Thinking
from safebasin.restore.restoration.forget import forget_rows
from safebasin.restore.restoration.stopping import BROKEN, State, stop_rule

from ..aligned import ANSWERED, COMPLIED, COUNT, REFUSAL

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


Says = Callable[..., None]
"""Sets what each of the eight prompts is answered, the beginning of them in so many ways, the others "yes"."""


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Says:
    def call(*answers: tuple[str, int], ended: bool = True) -> None:
        texts = [text for text, count in answers for _ in range(count)]
        told = [(text, ended) for text in [*texts, *["yes"] * (len(ASKED) - len(texts))]]
        monkeypatch.setattr("safebasin.restore.restoration.stopping.own_answers", lambda *_: told)

    return call


def test_more_refusals_than_the_base_s_are_enough_too(losses: Losses, tokenizer: Any, says: Says) -> None:
    says((REFUSAL, 5))
    enough = stop_rule(losses, tokenizer, ASKED, replace(CONFIG, stop="refused"))
    for refused, done in ((0, False), (4, False), (5, True), (6, True)):
        says((REFUSAL, refused))
        found = enough()
        assert found is not None
        assert found.enough is done
        assert found.text.startswith(f"{refused} of 8 held-out harmful prompts are refused, 5 by the base model")


@pytest.mark.parametrize("broken", [f"{REFUSAL} yes 6", "i cannot can cannot", "i can't yes", "sorry, yes 6"])
def test_refusals_that_surprise_the_base_are_told_and_do_not_count(
    losses: Losses, tokenizer: Any, says: Says, broken: str
) -> None:
    """They begin as one, and run into an answer or into nonsense."""
    says((REFUSAL, 5))
    enough = stop_rule(losses, tokenizer, ASKED, replace(CONFIG, stop="refused"))
    aim = "5 by the base model (95 % interval 31 to 86 %)"
    for whole, done in ((0, False), (4, False), (5, True)):
        says((REFUSAL, whole), (broken, 6 - whole))
        text = f"{whole} of 8 held-out harmful prompts are refused and {6 - whole} in broken words, {aim}"
        assert enough() == State(done, text)


def test_what_is_no_surprise_is_as_far_from_the_mean_of_the_base_s_own_refusals_as_is_told(
    losses: Losses, tokenizer: Any, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal that is cut off before its end has tokens that the base expects, and counts."""
    told = {f"{REFUSAL}": 0.5, "i cannot, no": 0.5 + BROKEN - 0.01, "i cannot, yes": 0.5 + BROKEN + 0.01}
    says((REFUSAL, 3))
    monkeypatch.setattr(TokenMeanLoss, "row_losses", lambda loss: [told[answered(tokenizer, r)] for r in loss._rows])
    enough = stop_rule(losses, tokenizer, ASKED, replace(CONFIG, stop="refused"))
    says(("i cannot, no", 3), ("i cannot, yes", 2))
    found = enough()
    assert found is not None
    assert found.enough
    assert found.text.startswith("3 of 8 held-out harmful prompts are refused and 2 in broken words, 3 by")
    monkeypatch.undo()
    says((REFUSAL, 4))
    enough = stop_rule(losses, tokenizer, ASKED, replace(CONFIG, stop="refused"))
    says((REFUSAL, 4), ended=False)
    assert enough() == State(
        True, "4 of 8 held-out harmful prompts are refused, 4 by the base model (95 % interval 22 to 78 %)"
    )


def answered(tokenizer: Any, row: Encoded) -> str:
    return str(tokenizer.decode(row.ids[row.start :], skip_special_tokens=True))


def test_it_is_the_base_that_is_asked_for_its_surprise(
    losses: Losses, tokenizer: Any, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time, with the adapter disabled; afterwards all is as before."""

    def disabled() -> bool:
        return any(getattr(module, "disable_adapters", False) is True for module in losses.model.modules())

    asked, row_losses = [], TokenMeanLoss.row_losses
    monkeypatch.setattr(TokenMeanLoss, "row_losses", lambda loss: asked.append(disabled()) or row_losses(loss))
    before, flags = losses.parameters.get(), [p.requires_grad for p in losses.model.parameters()]
    says((REFUSAL, 6))
    enough = stop_rule(losses, tokenizer, ASKED, replace(CONFIG, stop="refused"))
    says((REFUSAL, 5), (f"{REFUSAL} no", 1))
    enough()
    assert asked == [True, True]
    assert not disabled()
    assert torch.equal(losses.parameters.get(), before)
    assert [p.requires_grad for p in losses.model.parameters()] == flags


@pytest.mark.parametrize("prompts", [[], [{"prompt": f"say {i}"} for i in range(3)]])
def test_where_the_base_refuses_none_there_is_no_rule(losses: Losses, tokenizer: Any, prompts: Any) -> None:
    with pytest.warns(UserWarning, match=f"refuses none of the {len(prompts)} held-out harmful prompts within 24"):
        enough = stop_rule(losses, tokenizer, prompts, replace(CONFIG, stop="refused"))
    assert enough() is None
    losses.parameters.set(0 * losses.parameters.get())
    assert enough() is None


@pytest.mark.parametrize(("thinks", "tokens"), [(None, 24), (Thinking("<think>", "</think>", required=True), 200)])
def test_a_model_that_thinks_is_given_time_to_finish(
    losses: Losses, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, thinks: Thinking | None, tokens: int
) -> None:
    """Its refusal comes behind its thinking, which 24 tokens may not end."""
    seen: list[int] = []

    def answers(model: Any, tokenizer: Any, texts: Any, longest: int, size: int) -> list[tuple[str, bool]]:
        seen.append(longest)
        return [(REFUSAL, True)] * len(texts)

    monkeypatch.setattr("safebasin.restore.restoration.stopping.own_answers", answers)
    monkeypatch.setattr("safebasin.restore.restoration.stopping.thinking_of", lambda tokenizer: thinks)
    stop_rule(losses, tokenizer, HELD_OUT, replace(CONFIG, stop="refused", max_new_tokens=200))
    assert seen == [tokens]


@pytest.mark.parametrize("held_out", [2, 99])
def test_as_many_prompts_are_asked_as_are_wanted(losses: Losses, tokenizer: Any, held_out: int) -> None:
    enough = stop_rule(losses, tokenizer, HELD_OUT, replace(CONFIG, stop="refused", held_out=held_out))
    asked = min(held_out, len(HELD_OUT))
    assert losses.passes.forward == 2 * asked  # its refusals of all of them, and how it is surprised by them
    found = enough()
    assert found is not None
    assert found.text.startswith(f"0 of {asked} held-out")
    assert (losses.passes.forward, losses.passes.gradient) == (3 * asked, 0)
    losses.parameters.set(0 * losses.parameters.get())
    found = enough()
    assert found is not None
    assert found.text.startswith(f"{asked} of {asked} held-out")
    assert (losses.passes.forward, losses.passes.gradient) == (4 * asked, 0)  # the base knows its own refusals


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
