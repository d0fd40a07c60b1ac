"""What the tests of tasks share: lm-eval run on a tiny model, and stub judges."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from safebasin import registry
from safebasin.errors import InputError
from safebasin.judges.base import Exchange
from safebasin.results.records import Verdict
from safebasin.tasks import verdicts
from safebasin.tasks.catalog import tasks_dir


class StubGuard:
    """Harmful if the response has an even number of characters; counts its calls."""

    name: ClassVar[str] = "stub_guard"
    decides: ClassVar[frozenset[str]] = frozenset({"harm"})
    summary: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    built: ClassVar[int] = 0
    calls: ClassVar[list[list[Exchange]]] = []

    def __init__(self, model: str = "m", unparsed: bool = False) -> None:
        StubGuard.built += 1
        self.model, self.unparsed, self.closed = model, unparsed, False

    @property
    def identity(self) -> str:
        return f"stub_guard {self.model} {self.unparsed}"

    def judge(self, exchanges: Sequence[Exchange], on_done: Callable[[int], None] | None = None) -> list[Verdict]:
        StubGuard.calls.append(list(exchanges))
        if on_done:
            on_done(len(exchanges))
        return [Verdict(harmful=None if self.unparsed else len(e.response) % 2 == 0, score=0.5) for e in exchanges]

    def close(self) -> None:
        self.closed = True


class StubRefusal(StubGuard):
    """Refused if the response has more than a few characters."""

    name: ClassVar[str] = "stub_refusal"
    decides: ClassVar[frozenset[str]] = frozenset({"refusal", "coherence"})

    def __init__(self, over: int = 3) -> None:
        self.over = over

    @property
    def identity(self) -> str:
        return f"stub_refusal {self.over}"

    def judge(self, exchanges: Sequence[Exchange], on_done: Callable[[int], None] | None = None) -> list[Verdict]:
        return [Verdict(refused=len(e.response) > self.over, coherent=True) for e in exchanges]


STUBS = {"stub_guard": StubGuard, "stub_refusal": StubRefusal}


@pytest.fixture
def stub_judges(monkeypatch: pytest.MonkeyPatch) -> type[StubGuard]:
    def load(group: str, name: str) -> Any:
        if name not in STUBS:
            raise InputError(f"Unknown judge '{name}'. {registry.suggest(name, STUBS)}")
        return STUBS[name]

    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(verdicts, "_JUDGES", {})
    monkeypatch.setattr(verdicts, "_VERDICTS", {})
    monkeypatch.setattr(StubGuard, "calls", [])
    monkeypatch.setattr(StubGuard, "built", 0)
    return StubGuard


@pytest.fixture
def evaluate() -> Callable[..., dict[str, Any]]:
    """Runs tasks through lm-eval on a model folder, greedily, with the chat template."""

    def run(model: Path, tasks: list[str], metadata: dict[str, Any] | None = None, **kwargs: Any) -> dict[str, Any]:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        folders = [str(tasks_dir()), *kwargs.pop("folders", [])]
        manager = TaskManager(
            include_defaults=kwargs.pop("defaults", False),
            include_path=folders,
            metadata={"tokenizer": str(model)} | (metadata or {}),
        )
        result = lm_eval.simple_evaluate(
            model=HFLM(pretrained=str(model), device="cpu", batch_size=kwargs.pop("batch_size", 64), dtype="float32"),
            tasks=tasks, task_manager=manager, bootstrap_iters=10, **{"apply_chat_template": True} | kwargs,
        )  # fmt: skip
        assert result is not None
        return dict(result)

    return run


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., str]:
    """Writes a file, whose rows are objects in lines unless it is text or bytes, and returns its path."""

    def write(content: Any, name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        text = content if isinstance(content, str | bytes) else "\n".join(json.dumps(row) for row in content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write
