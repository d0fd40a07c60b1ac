"""The whole restoration with its default settings: an adapter that complies goes back to its base's refusals."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.api import restore
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.restoration.forget import forget_rows

from ..aligned import ANSWERED, COUNT
from ..models.test_interrupts import State, at_forward, check_left, put_back, same, sigint, state

pytestmark = pytest.mark.filterwarnings("ignore:.*forget rows are few")
CONFIG = RestoreConfig(max_new_tokens=12, epsilon=0.1)
"""In nats, as this adapter gained nothing on rows that the base answers already."""
QUICK = RestoreConfig(max_new_tokens=10, iterations=2, products=2, retain_rows=4, stop="none", epsilon=0.1)
HARMFUL = [{"prompt": f"harm {i}"} for i in range(COUNT)]
Run = Callable[..., Any]


@pytest.fixture
def run(tokenizer: Any) -> Run:
    def call(model: Any, config: RestoreConfig = QUICK, **more: Any) -> Any:
        return restore(model, tokenizer, **{"forget": HARMFUL[:4], "retain": ANSWERED[:8], "config": config, **more})

    return call


def refused(model: Any, tokenizer: Any) -> int:
    return forget_rows(model, tokenizer, HARMFUL, max_new_tokens=12)[1].refused


def test_it_refuses_again_and_still_answers(tuned: Any, tokenizer: Any, run: Run) -> None:
    before, given = state(tuned), {"forget": HARMFUL, "retain": ANSWERED}
    assert refused(tuned, tokenizer) == 0
    result = run(tuned, CONFIG, **given)
    assert refused(tuned, tokenizer) == COUNT  # half of which it has not seen
    answers, _ = forget_rows(tuned, tokenizer, ANSWERED, max_new_tokens=12)
    assert sum(one["response"] == row["response"] for one, row in zip(answers, ANSWERED, strict=True)) >= 20
    rows = result.record.iterations
    values = [rows[0]["base_divergence_before"], *(row["base_divergence"] for row in rows)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.1 * values[0]
    assert all(row["retain_loss"] <= result.record.retain_reference + 0.1 for row in rows)
    assert all(row["accepted"] for row in rows)
    assert 1 <= len(rows) < CONFIG.iterations
    assert result.record.ended == "restored"
    assert (
        result.record.state
        == "6 of 6 held-out harmful prompts are refused, 6 by the base model (95 % interval 61 to 100 %)"
    )
    # The last asking of half the prompts, which are refused as the base refuses them.
    assert result.record.row_passes == pytest.approx(rows[-1]["row_passes"] + len(HARMFUL) / 2 / 3)
    moved = {name for name, (tensor, _) in state(tuned).items() if not torch.equal(tensor, before[name][0])}
    assert moved == {name for name in before if ".lora_" in name}


def test_each_update_falls_about_as_far_as_the_curvature_says(tuned: Any, run: Run) -> None:
    rows = run(tuned, CONFIG).record.iterations
    assert all(row["gain_ratio"] == pytest.approx(row["fall"] / row["predicted_fall"]) for row in rows)
    assert all(row["gain_ratio"] == pytest.approx(1.0, abs=0.1) for row in rows[:2])  # while updates are short


def test_a_model_that_refuses_as_its_base_does_is_left_alone(
    tuned: Any, tokenizer: Any, run: Run, recwarn: pytest.WarningsRecorder
) -> None:
    """Bit for bit: no iteration is begun, and there is nothing to warn of."""
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if ".lora_" in name:
                parameter.mul_(0.1)
    assert refused(tuned, tokenizer) == COUNT
    before = state(tuned)
    record = run(tuned, CONFIG).record
    assert (record.ended, record.iterations) == ("restored", [])
    assert (
        record.state == "2 of 2 held-out harmful prompts are refused, 2 by the base model (95 % interval 34 to 100 %)"
    )
    assert same(before, state(tuned))
    assert not [one for one in recwarn if "not fully restored" in str(one.message)]


def test_what_is_left_of_the_harm_is_told(tuned: Any, run: Run) -> None:
    message = (
        "not fully restored: 0 of 2 held-out harmful prompts are refused, 2 by the base model .*, and all 1 iterations"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        record = run(tuned, RestoreConfig(max_new_tokens=10, iterations=1, epsilon=0.1)).record
    assert record.ended == "iterations"
    (told,) = [one for one in caught if "not fully" in str(one.message)]
    assert told.filename == __file__  # where `restore` is called


def test_where_fine_tuning_gained_nothing_a_share_of_it_is_refused(tuned: Any, run: Run) -> None:
    before = state(tuned)
    with pytest.raises(InputError, match=r"epsilon_share=0\.05 is a share of what fine-tuning gained"):
        run(tuned, RestoreConfig(max_new_tokens=10))
    assert same(before, state(tuned))
    assert not any(getattr(module, "disable_adapters", False) is True for module in tuned.modules())


def test_it_is_deterministic_and_a_copy_is_the_same(tuned: Any, run: Run) -> None:
    before = state(tuned)
    one = run(tuned, inplace=False).model
    assert same(before, state(tuned))
    torch.manual_seed(99)
    other = run(tuned, inplace=False).model
    assert same(state(one), state(other))
    assert run(tuned).model is tuned
    assert same(state(one), state(tuned))
    assert not same(before, state(tuned))


@pytest.mark.parametrize("estimator", ["lbfgs", "fisher", "gauss_newton"])
@pytest.mark.filterwarnings("ignore:The curvature rests on few")
def test_the_divergence_falls_by_any_estimate_of_curvature(tuned: Any, run: Run, estimator: Any) -> None:
    config = RestoreConfig(
        max_new_tokens=10, estimator=estimator, min_pairs=1, scale="trust", trust_radius=0.5, epsilon=0.1, iterations=5
    )
    record = run(tuned, config, forget=HARMFUL, retain=ANSWERED).record
    assert record.iterations[-1]["base_divergence"] < 0.7 * record.iterations[0]["base_divergence_before"]
    assert record.iterations[-1]["retain_loss"] <= record.retain_reference + 0.1


Whole = Callable[[Any, RestoreConfig], list[State]]


@pytest.fixture
def whole(run: Run) -> Whole:
    """The states that an interrupted restoration may leave: at the start, and after each accepted update."""

    def call(model: Any, config: RestoreConfig) -> list[State]:
        flags = {name: p.requires_grad for name, p in model.named_parameters()}
        states = [state(model)]

        def tick(what: str, done: int, total: int) -> None:
            now = {name: (tensor, flags[name]) for name, (tensor, _) in state(model).items()}
            if what == "restoring" and done and not done % (total // config.iterations) and not same(now, states[-1]):
                states.append(now)

        run(model, config, on_progress=tick)
        put_back(model, states[0])
        return states

    return call


def fail() -> None:
    raise RuntimeError


@pytest.mark.parametrize(("act", "error", "stride"), [(sigint, KeyboardInterrupt, 4), (fail, RuntimeError, 6)])
@pytest.mark.parametrize("training", [False, True])
def test_whatever_ends_it_leaves_a_whole_iteration(
    tuned: Any, run: Run, whole: Whole, act: Any, error: Any, stride: int, training: bool
) -> None:
    """In passes of the base, of a gradient, of a product with the curvature, of a trial."""
    states = whole(tuned, QUICK)
    assert len(states) == 3
    with at_forward(tuned, -1, act) as seen:
        run(tuned)
    reached = []
    for number in (*range(training, len(seen) - 1, stride), len(seen) - 1):
        put_back(tuned, states[0])
        tuned.train(training)
        with pytest.raises(error), at_forward(tuned, number, act):
            run(tuned)
        reached.append(check_left(tuned, states, training))
        assert not any(getattr(module, "disable_adapters", False) is True for module in tuned.modules())
    assert reached == sorted(reached)
    assert set(reached) >= {0, 1}


STAGES = ("base_refusals", "_refused", "_restored", "product", "backtrack", "_judge", "descent")
"""Functions that run the model, the innermost first where one is within another."""
FAR = RestoreConfig(
    max_new_tokens=10, iterations=3, products=2, retain_rows=4, epsilon=50.0, scale="trust", trust_radius=20.0
)
"""Its first update leads so far that it gains nothing: it is tried again, shorter."""


def stages(model: Any, run: Callable[[], Any]) -> list[str]:
    """What each forward pass of a run is for."""
    found: list[str] = []

    def note() -> None:
        frame, names = sys._getframe(), set()
        while frame is not None:
            names.add(frame.f_code.co_name)
            frame = frame.f_back  # type: ignore[assignment]
        found.append(next((stage for stage in STAGES if stage in names), ""))

    handle = model.get_base_model().model.layers[-1].register_forward_pre_hook(lambda *_: note())
    try:
        run()
    finally:
        handle.remove()
    return found


@pytest.mark.parametrize(
    ("act", "error", "chosen"), [(sigint, KeyboardInterrupt, STAGES), (fail, RuntimeError, ("_restored", "_judge"))]
)
def test_it_may_end_in_a_trial_without_gain_and_while_it_asks_held_out_prompts(
    tuned: Any, run: Run, whole: Whole, act: Any, error: Any, chosen: tuple[str, ...]
) -> None:
    """At the first and the last pass of each stage."""
    states = whole(tuned, FAR)
    record = run(tuned, FAR, inplace=False).record
    assert record.iterations[0]["trials"] > 1
    assert record.ended == "restored"
    found = stages(tuned, lambda: run(tuned, FAR))
    assert set(found) >= set(STAGES)
    reached: dict[str, list[int]] = {}
    for stage in chosen:
        places = [number for number, name in enumerate(found) if name == stage]
        for number in (places[0], places[-1]):
            put_back(tuned, states[0])
            with pytest.raises(error), at_forward(tuned, number, act):
                run(tuned, FAR)
            reached.setdefault(stage, []).append(check_left(tuned, states, training=False))
            assert not any(getattr(module, "disable_adapters", False) is True for module in tuned.modules())
    last, late = len(states) - 1, act is sigint  # a signal waits for the next pass, before which the trial is accepted
    expected = {stage: [0, last - 1] for stage in ("product", "backtrack", "descent")}
    expected |= {stage: [0, 0] for stage in ("base_refusals", "_refused")}
    expected |= {"_judge": [0, last - 1 + late], "_restored": [0, last]}
    assert reached == {stage: expected[stage] for stage in chosen}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_exception_of_the_progress_leaves_the_last_accepted_update(
    tuned: Any, run: Run, whole: Whole, number: int
) -> None:
    states, ends = whole(tuned, QUICK), []

    def tick(what: str, done: int, total: int) -> None:
        if what == "restoring" and not done % (total // QUICK.iterations):
            ends.append(done)
            if len(set(ends)) == number + 1:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        run(tuned, on_progress=tick)
    assert check_left(tuned, states, training=False) == number
