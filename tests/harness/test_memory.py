"""Out of memory the batch is halved and the run goes on; the target is gone before a judge is loaded."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.harness.engines.hf import HFEngine
from safebasin.harness.stages.judge import judge_cells
from safebasin.harness.store.store import Sample, Store
from safebasin.judges.keywords import KeywordJudge
from safebasin.restore.models.loading import load_base, load_tokenizer

from ..conftest import TinyChatModel
from .engines.test_engine import request as generation

TEXTS = [f"<s>{word}" for word in ("one", "two", "three", "four", "five", "six", "seven")]


@pytest.fixture
def engines(tiny_chat_model: TinyChatModel, tmp_path: Path) -> tuple[HFEngine, HFEngine, list[str]]:
    """One with memory, one that will be short of it, and what the latter says."""
    folder, said = str(tiny_chat_model()), list[str]()
    made = [
        HFEngine(load_base(folder), load_tokenizer(folder), {}, Store(tmp_path / name), 4, say=said.append)
        for name in ("whole", "halved")
    ]
    return made[0], made[1], said


def short_of_memory(engine: HFEngine, fitting: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets batches of more than `fitting` fail; returns the sizes that come."""
    sizes: list[int] = []
    real = engine._model_generate

    def limited(context: Any, **settings: Any) -> Any:
        sizes.append(len(context))
        if len(context) > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return real(context=context, **settings)

    monkeypatch.setattr(engine, "_model_generate", limited)
    return sizes


def test_the_batch_is_halved_and_all_is_answered(
    engines: tuple[HFEngine, HFEngine, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halved, said = engines
    sizes = short_of_memory(halved, 1, monkeypatch)
    asked = [generation(text) for text in TEXTS]
    assert halved.generate_until(asked) == whole.generate_until(asked)
    assert sizes == [4, 2, *[1] * len(TEXTS)]  # what did not fit is not tried again
    assert said == ["out of memory: going on with batches of 2", "out of memory: going on with batches of 1"]


def test_a_request_that_does_not_fit_alone_is_told(
    engines: tuple[HFEngine, HFEngine, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(engines[1], 0, monkeypatch)
    with pytest.raises(InputError, match=r"Not even one request fits .*Tried to allocate 9 GiB.*Lower max_gen_toks"):
        engines[1].generate_until([generation("<s>one")])


@pytest.mark.usefixtures("world")
def test_the_target_is_gone_before_the_judges_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safebasin.harness import judging
    from safebasin.harness.config.load import load_config
    from safebasin.harness.run import run
    from safebasin.harness.stages import answering

    from .conftest import ROOT

    events: list[str] = []
    real, judge = answering.target_for, judging.judge_cells

    @contextmanager
    def watched(*arguments: Any) -> Any:
        with real(*arguments) as target:
            yield target
        events.append(f"closed, {len(target._loaded)} loaded")

    def noting(*arguments: Any, **named: Any) -> None:
        events.append("judged")
        judge(*arguments, **named)

    monkeypatch.setattr(answering, "target_for", watched)
    monkeypatch.setattr(judging, "judge_cells", noting)
    overrides = ["methods=[base]", "limit=2", "tasks.safety=[sandbox_hrr]", "tasks.utility=[]", "judges=[keywords]"]
    run(load_config(ROOT / "configs/sandbox.yaml", overrides), tmp_path / "run")
    assert events == ["closed, 0 loaded", "judged"]


def test_a_judge_that_fails_frees_its_memory_as_well(tmp_path: Path) -> None:
    closed: list[str] = []

    class Failing(KeywordJudge):
        def judge(self, *given: Any, **named: Any) -> Any:
            raise RuntimeError("out of order")

        def close(self) -> None:
            closed.append(self.name)

    store = Store(tmp_path / "store.sqlite")
    store.add_cell("cell", {}, None, [Sample(0, "how", "so")], 1)
    with pytest.raises(RuntimeError, match="out of order"):
        judge_cells([Failing()], ["cell"], "run", store, lambda name, done, total: None)
    assert closed == ["keywords"]
