"""The whole restoration with its default settings: an adapter that complies goes back to its base's refusals."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from safebasin.restore.api import restore
from safebasin.restore.config import RestoreConfig
from safebasin.restore.forget import forget_rows

from .aligned import ANSWERED, COUNT
from .test_interrupts import State, at_forward, check_left, put_back, same, sigint, state

pytestmark = pytest.mark.filterwarnings("ignore:.*forget rows are few")
CONFIG = RestoreConfig(max_new_tokens=12)
QUICK = RestoreConfig(max_new_tokens=10, iterations=2, cg_iterations=2, retain_rows=4)
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
    assert [row["accepted"] for row in rows] == [True] * 3
    moved = {name for name, (tensor, _) in state(tuned).items() if not torch.equal(tensor, before[name][0])}
    assert moved == {name for name in before if ".lora_" in name}


def test_each_update_falls_about_as_far_as_the_curvature_says(tuned: Any, run: Run) -> None:
    """A quarter to twice the fall of the quadratic model: half of what the slope alone promises."""
    for row in run(tuned, CONFIG).record.iterations[:1]:
        fall = row["base_divergence_before"] - row["base_divergence"]
        assert 0.25 < fall / (row["predicted_fall"] / 2) < 2


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


@pytest.mark.parametrize("changes", [{"keep_graphs": True}, {"keep_graphs": True, "fresh_curvature": False}])
def test_kept_graphs_lead_to_the_same_place(tuned: Any, run: Run, changes: dict[str, Any]) -> None:
    plain = {**changes, "keep_graphs": False}
    found = [run(tuned, RestoreConfig(**{**vars(QUICK), **given}), inplace=False).model for given in (changes, plain)]
    for (name, (one, _)), (other, _) in zip(state(found[0]).items(), state(found[1]).values(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name


@pytest.mark.parametrize("estimator", ["lbfgs", "fisher", "gauss_newton"])
@pytest.mark.filterwarnings("ignore:The curvature rests on few")
def test_the_divergence_falls_by_any_estimate_of_curvature(tuned: Any, run: Run, estimator: Any) -> None:
    config = RestoreConfig(max_new_tokens=10, estimator=estimator, min_pairs=1, scale="trust", trust_radius=0.5)
    record = run(tuned, config, forget=HARMFUL, retain=ANSWERED).record
    assert record.iterations[-1]["base_divergence"] < 0.7 * record.iterations[0]["base_divergence_before"]
    assert record.iterations[-1]["retain_loss"] <= record.retain_reference + 0.1


@pytest.fixture
def whole(tuned: Any, run: Run) -> list[State]:
    """The states that an interrupted restoration may leave: at the start, and after each iteration."""
    flags = {name: p.requires_grad for name, p in tuned.named_parameters()}
    states = [state(tuned)]

    def tick(what: str, done: int, total: int) -> None:
        if what == "restoring" and done == total // QUICK.iterations * len(states):  # the end is told twice
            states.append({name: (tensor, flags[name]) for name, (tensor, _) in state(tuned).items()})

    run(tuned, on_progress=tick)
    assert len(states) == 3
    assert not any(same(one, other) for one, other in pairwise(states))
    put_back(tuned, states[0])
    return states


def fail() -> None:
    raise RuntimeError


@pytest.mark.parametrize(("act", "error", "stride"), [(sigint, KeyboardInterrupt, 4), (fail, RuntimeError, 6)])
@pytest.mark.parametrize("training", [False, True])
def test_whatever_ends_it_leaves_a_whole_iteration(
    tuned: Any, run: Run, whole: list[State], act: Any, error: Any, stride: int, training: bool
) -> None:
    """In passes of the base, of a gradient, of a product with the curvature, of a trial."""
    with at_forward(tuned, -1, act) as seen:
        run(tuned)
    reached = []
    for number in (*range(training, len(seen) - 1, stride), len(seen) - 1):
        put_back(tuned, whole[0])
        tuned.train(training)
        with pytest.raises(error), at_forward(tuned, number, act):
            run(tuned)
        reached.append(check_left(tuned, whole, training))
        assert not any(getattr(module, "disable_adapters", False) is True for module in tuned.modules())
    assert reached == sorted(reached)
    assert set(reached) == {0, 1, 2}
