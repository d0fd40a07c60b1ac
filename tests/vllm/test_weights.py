"""The weights in vLLM: what a checkpoint makes of them, and that they come back to the last bit."""

from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.harness.engines.vllm import VLLMEngine
from safebasin.harness.store.store import Store

from .asking import TEXTS, answers
from .conftest import Checkpoints

Targets = dict[str, Any]


@pytest.fixture
def engine(targets: Targets, tmp_path: Path) -> VLLMEngine:
    """The live engine, with the base in it."""
    answers(targets["vllm"], None, tmp_path / "first", TEXTS[:1])
    found: VLLMEngine = targets["vllm"]._engine
    return found


@pytest.mark.parametrize("name", ["plain", "rslora", "patterns", "full"])
def test_weights_are_back_bit_for_bit(
    targets: Targets, engine: VLLMEngine, checkpoints: Checkpoints, tmp_path: Path, name: str
) -> None:
    before = engine._call("safebasin_digest")
    with targets["vllm"].serving(checkpoints[name], {}, Store(tmp_path / "store"), lambda *_: None):
        within = engine._call("safebasin_digest")
    assert within != before
    assert engine._call("safebasin_digest") == before
    assert engine._log_probs() == engine._served


def test_weights_are_back_after_a_failure(
    targets: Targets, engine: VLLMEngine, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="positions"):
        answers(targets["vllm"], checkpoints["plain"], tmp_path / "store", ["<s>" + "long " * 500])
    assert engine._call("safebasin_digest") == engine._digest


def test_weights_that_do_not_come_back_are_noticed(
    targets: Targets, engine: VLLMEngine, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine._call
    monkeypatch.setattr(
        engine, "_call", lambda method, *rest: "" if method == "safebasin_restore" else real(method, *rest)
    )
    with pytest.raises(RuntimeError, match="not the base's again"):
        answers(targets["vllm"], checkpoints["plain"], tmp_path / "store", TEXTS[:1])
    assert targets["vllm"]._engine is None  # the next checkpoint gets a new engine
    again = answers(targets["vllm"], None, tmp_path / "again")
    assert again == answers(targets["hf"], None, tmp_path / "hf")


def test_old_keys_and_values_are_not_reused(
    targets: Targets, engine: VLLMEngine, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = answers(targets["vllm"], checkpoints["plain"], tmp_path / "wanted", TEXTS[-1:])
    monkeypatch.setattr(engine, "_forget_prefixes", lambda: None)
    answers(targets["vllm"], None, tmp_path / "base", TEXTS[-1:])
    stale = answers(targets["vllm"], checkpoints["plain"], tmp_path / "stale", TEXTS[-1:])
    monkeypatch.undo()
    engine._forget_prefixes()
    assert stale != wanted  # so the prompt is long enough to show it
    answers(targets["vllm"], None, tmp_path / "base again", TEXTS[-1:])
    assert answers(targets["vllm"], checkpoints["plain"], tmp_path / "again", TEXTS[-1:]) == wanted


def test_an_interruption_leaves_no_request_behind(
    targets: Targets, engine: VLLMEngine, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    real = engine.model.llm_engine.step

    def interrupted() -> Any:
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return real()

    monkeypatch.setattr(engine.model.llm_engine, "step", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        engine.serving(
            checkpoints["plain"], targets["vllm"]._wanted_of(checkpoints["plain"]), {}, Store(tmp_path / "s"), print
        ),
    ):
        engine._model_generate([[0, 5, 6]] * 4, True, engine_greedy())
    assert not engine.model.llm_engine.has_unfinished_requests()
    engine._restore()


def engine_greedy() -> Any:
    from vllm import SamplingParams

    return [SamplingParams(temperature=0, max_tokens=50, ignore_eos=True) for _ in range(4)]
