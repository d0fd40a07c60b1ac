import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.curvature.pairs import Source
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.restoration.loop import Tick, Trace, restore_parameters

from ..conftest import paper_aim

CONFIG = RestoreConfig.from_preset("paper", trust_radius=0.3, epsilon=0.05)
Problem = tuple[FlatParameters, Any, Callable[[int], list[Source]], Any]


def run(problem: Problem, config: RestoreConfig = CONFIG, on_step: Tick = lambda what, done, total: None) -> Trace:
    theta, forget, sources, retain = problem
    return restore_parameters(theta, paper_aim(theta, forget, sources, config), retain, config, on_step)


@pytest.fixture
def problem(theta: FlatParameters, quadratic: Any) -> Problem:
    forget, retain = quadratic(1), quadratic(2)
    theta.set(retain.centre.float())  # tuned: at the minimum of the retain loss
    return theta, forget, lambda it: [Source("r", [quadratic(3 + i) for i in range(6)])], retain


def test_the_forget_loss_rises_within_the_bound(problem: Problem) -> None:
    _, forget, _, retain = problem
    before = forget.loss()
    trace = run(problem)
    assert len(trace.iterations) == 3
    assert forget.loss() > before
    assert retain.loss() <= trace.retain_reference + 0.05
    losses = [row["forget_loss"] for row in trace.iterations]
    assert losses == sorted(losses)
    assert losses[-1] == forget.loss()


def test_the_forget_loss_is_found_by_one_gradient_per_iteration_and_one_last_pass(problem: Problem) -> None:
    _, forget, _, retain = problem
    trace = run(problem)
    assert forget.calls == ["backward"] * 3 + ["forward"]
    assert retain.calls == ["forward"] * (1 + sum(1 + row["halvings"] for row in trace.iterations))
    assert [row["forget_loss"] for row in trace.iterations[:-1]] == [
        row["forget_loss_before"] for row in trace.iterations[1:]
    ]


@pytest.mark.parametrize("epsilon", [0.0, 0.001, 0.1])
def test_epsilon_bounds_the_sum_of_all_iterations(problem: Problem, epsilon: float) -> None:
    retain, reference = problem[3], problem[3].loss()
    run(problem, replace(CONFIG, epsilon=epsilon, trust_radius=5.0, iterations=5))
    assert retain.loss() <= reference + epsilon


def test_where_nothing_is_allowed_nothing_moves(problem: Problem) -> None:
    theta = problem[0]
    before = theta.get().view(torch.int32).clone()
    trace = run(problem, replace(CONFIG, epsilon=0.0, max_update=100.0, trust_radius=50.0))
    assert [row["accepted"] for row in trace.iterations] == [False] * 3
    assert torch.equal(theta.get().view(torch.int32), before)
    assert trace.iterations[-1]["retain_loss"] == trace.retain_reference
    assert trace.iterations[-1]["moved_norm"] == 0.0


def test_curvature_is_recomputed_in_each_iteration(problem: Problem) -> None:
    theta, forget, sources, retain = problem
    asked: list[int] = []

    def counted(iteration: int) -> list[Source]:
        asked.append(iteration)
        return sources(iteration)

    trace = run((theta, forget, counted, retain))
    assert asked == [0, 1, 2]
    assert [probe["iteration"] for probe in trace.probes] == [0] * 6 + [1] * 6 + [2] * 6


@pytest.mark.parametrize("when", range(4))
def test_an_interrupt_never_leaves_parameters_in_between(problem: Problem, when: int) -> None:
    theta, forget, _, _ = problem
    start, states = theta.get(), []
    replica = run(problem, CONFIG, lambda *_: states.append(theta.get()))
    reached = [start, *states[7::8]]
    assert len(reached) == 4
    assert replica.iterations[0]["accepted"]
    theta.set(start)
    forget.calls.clear()
    forget.fail_at = when  # each iteration evaluates the forget loss before its update, and the end is evaluated
    with pytest.raises(KeyboardInterrupt):
        run(problem)
    assert torch.equal(theta.get(), reached[when])


def test_an_interrupted_line_search_falls_back_to_the_last_iteration(problem: Problem) -> None:
    theta, _, _, retain = problem
    states: list[torch.Tensor] = []
    retain.fail_at = 2  # the reference, the first update, then the second one's trial
    with pytest.raises(KeyboardInterrupt):
        run(problem, CONFIG, lambda what, done, total: states.append(theta.get()))
    assert torch.equal(theta.get(), states[7])


def test_shrinking_is_annealed(problem: Problem) -> None:
    trace = run(problem, replace(CONFIG, shrink=0.01, epsilon=10.0))
    assert [row["shrink"] for row in trace.iterations] == pytest.approx([0.01, 0.0095, 0.009025])


def test_the_trace_is_json_and_tables(problem: Problem) -> None:
    trace = run(problem)
    read = json.loads(trace.to_json())
    assert read["iterations"][0]["pairs"] == 6
    assert read["config"]["epsilon"] == 0.05
    assert list(trace.frame()["accepted"]) == [True] * 3
    assert len(trace.probe_frame()) == 18


def test_progress_ends_at_its_total(problem: Problem) -> None:
    told: list[tuple[str, int, int]] = []
    run(problem, CONFIG, lambda *news: told.append(news))
    assert told[-1] == ("restoring", 36, 36)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_settings_are_all_checked_at_once() -> None:
    with pytest.raises(InputError) as caught:
        RestoreConfig(epsilon=-1, scale="cube", pairs=0, probe_rates=(0.1, -1), walk="no", shrink=1.0)  # type: ignore[arg-type]
    for part in ("epsilon=-1", "scale='cube'", "pairs=0", "probe_rates=", "walk='no'", "shrink=1.0"):
        assert part in str(caught.value)


@pytest.mark.parametrize("rates", [[0.1, 0.2], 0.1])
def test_probe_rates_may_be_a_list_or_a_number(rates: Any) -> None:
    assert RestoreConfig(probe_rates=rates).probe_rates in ((0.1, 0.2), (0.1,))
