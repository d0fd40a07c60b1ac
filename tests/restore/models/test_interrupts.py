"""SIGINT and failures at many places of a whole restoration: never a state in between."""

import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import torch
from safebasin.restore.api import restore
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses import objective
from safebasin.restore.models import parameters, prepare
from safebasin.restore.models.interrupts import interrupts_between_passes
from safebasin.restore.restoration import influence

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*forget rows are few"),
    pytest.mark.filterwarnings("ignore:The curvature rests on few"),
]
CONFIG = RestoreConfig.from_preset(
    "paper", iterations=2, pairs=2, max_new_tokens=3, trust_radius=0.5, epsilon=0.3, min_pairs=1
)
CLEANERS = (
    parameters.FlatParameters.restore, parameters.FlatParameters.preserved, prepare._only_trainable,
    objective.evaluation_mode, influence.backtrack,
)  # fmt: skip
State = dict[str, tuple[torch.Tensor, bool]]


def state(model: Any) -> State:
    return {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}


def same(one: State, other: State) -> bool:
    return all(
        a.dtype == other[name][0].dtype and torch.equal(a, other[name][0]) and flag == other[name][1]
        for name, (a, flag) in one.items()
    )


@pytest.fixture
def run(tokenizer: Any, harmful: Any, benign: Any) -> Callable[..., Any]:
    def call(model: Any, **more: Any) -> Any:
        return restore(model, tokenizer, forget=harmful[:4], retain=benign[:8], config=CONFIG, **more)

    return call


@pytest.fixture
def whole(model: Any, run: Any) -> list[State]:
    """The states that an interrupted restoration may leave: at the start, and after each iteration."""
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    states = [state(model)]

    def tick(what: str, done: int, total: int) -> None:
        if what == "restoring" and done == (CONFIG.pairs + 2) * len(states):  # the end is told twice
            states.append({name: (tensor, flags[name]) for name, (tensor, _) in state(model).items()})

    run(model, on_progress=tick)
    assert len(states) == 3
    assert not same(states[0], states[1])
    assert not same(states[1], states[2])
    put_back(model, states[0])
    return states


@torch.no_grad()
def put_back(model: Any, saved: State) -> None:
    for name, parameter in model.named_parameters():
        parameter.data = saved[name][0].clone()


def check_left(model: Any, allowed: list[State], training: bool) -> int:
    """Which of the allowed states the model is in; everything else is as if nothing had happened."""
    found = [number for number, one in enumerate(allowed) if same(one, state(model))]
    assert len(found) == 1
    assert all(parameter.grad is None for parameter in model.parameters())
    assert {module.training for module in model.modules()} == {training}
    assert not any("forward" in vars(module) for module in model.modules())
    assert not model.get_input_embeddings()._forward_pre_hooks
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return found[0]


@contextmanager
def at_forward(model: Any, number: int, act: Callable[[], Any]) -> Iterator[list[int]]:
    """Acts as the last layer is entered for the `number`-th time."""
    seen: list[int] = []

    def hook(*_: Any) -> None:
        seen.append(len(seen))
        if len(seen) - 1 == number:
            act()

    handle = model.get_base_model().model.layers[-1].register_forward_pre_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def sigint() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("training", [False, True])
def test_a_signal_in_any_forward_pass(model: Any, run: Any, whole: list[State], training: bool) -> None:
    with at_forward(model, -1, sigint) as seen:
        run(model)
    reached = []
    for number in range(0, len(seen), 3 + training):
        put_back(model, whole[0])
        model.train(training)
        with pytest.raises(KeyboardInterrupt), at_forward(model, number, sigint):
            run(model)
        reached.append(check_left(model, whole, training))
    assert reached == sorted(reached)
    assert set(reached) >= {0, 1}


@contextmanager
def at_line(number: int, act: Callable[[], Any]) -> Iterator[list[int]]:
    """Acts before the `number`-th line that is executed of the functions that put things back."""
    codes = {inspect.unwrap(function).__code__ for function in CLEANERS}
    seen: list[int] = []

    def lines(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            seen.append(frame.f_lineno)
            if len(seen) - 1 == number:
                act()
        return lines

    before = sys.gettrace()
    sys.settrace(lambda frame, event, arg: lines if frame.f_code in codes else None)
    try:
        yield seen
    finally:
        sys.settrace(before)


def test_a_signal_while_things_are_put_back(model: Any, run: Any, whole: list[State]) -> None:
    model.train()
    with at_line(-1, sigint) as seen:
        run(model)
    reached = set()
    for number in range(0, len(seen), len(seen) // 40):
        put_back(model, whole[0])
        with pytest.raises(KeyboardInterrupt), at_line(number, sigint):
            run(model)
        reached.add(check_left(model, whole, training=True))
    assert reached == {0, 1, 2}


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, SystemExit])
def test_an_exception_in_any_forward_pass(model: Any, run: Any, whole: list[State], error: Any) -> None:
    def fail() -> None:
        raise error

    with at_forward(model, -1, fail) as seen:
        run(model)
    for number in range(1, len(seen), 7):
        put_back(model, whole[0])
        with pytest.raises(error), at_forward(model, number, fail):
            run(model)
        check_left(model, whole, training=False)


def test_a_16_bit_adapter_is_not_rounded(model: Any, run: Any) -> None:
    """Interrupted before the first update it is of its own type; after it, it is the update, in fp32."""
    model.bfloat16()
    start, states = state(model), {}
    run(model, on_progress=lambda what, done, total: states.update({done: state(model)}))
    for done, expected in ((1, start), (CONFIG.pairs + 3, states[CONFIG.pairs + 2])):
        put_back(model, start)

        def stop(what: str, at: int, total: int, done: int = done) -> None:
            if (what, at) == ("restoring", done):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(model, on_progress=stop)
        left = state(model)
        assert all(torch.equal(left[name][0], expected[name][0]) for name in left)
        assert all(left[name][0].dtype == expected[name][0].dtype for name in left)


@pytest.mark.parametrize(("forward", "reached"), [(True, ["held"]), (False, ["held", "passed"])])
def test_a_signal_waits_for_the_next_pass_or_the_end(model: Any, forward: bool, reached: list[str]) -> None:
    done = []

    def work() -> None:
        with interrupts_between_passes(model):
            sigint()
            done.append("held")
            if forward:
                model(input_ids=torch.tensor([[5, 6]], device=model.device))
            done.append("passed")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == reached


def test_another_handler_gets_the_signal(model: Any) -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: got.append(number))
    try:
        with interrupts_between_passes(model):
            sigint()
            assert not got
        assert got == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_restore_too(model: Any, run: Any, whole: list[State]) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run(model)
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
    assert all(torch.equal(t, whole[2][name][0]) for name, (t, _) in state(model).items())
