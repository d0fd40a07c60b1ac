"""A small config that is loaded with overrides, and methods that are quick to import."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from safebasin import registry
from safebasin.errors import InputError
from safebasin.harness.config import task_checks
from safebasin.harness.config.load import RunConfig, load_config

MINIMAL = """
models: [sandbox]
methods: [base, lora]
finetune: {dataset: sandbox_task}
tasks: {safety: [sandbox_hrr], utility: [sandbox_facts]}
judges: [keywords]
"""


@dataclass(frozen=True)
class FakeLora:
    name: ClassVar[str] = "lora"
    stage: ClassVar[str] = "fine-tuning"


@dataclass(frozen=True)
class FakeCurvature:
    name: ClassVar[str] = "curvature"
    stage: ClassVar[str] = "post-hoc"
    epsilon: float = 0.1
    iterations: int = 3
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise InputError(f"epsilon={self.epsilon} must be positive.")


FAKES: dict[str, Any] = {"lora": FakeLora, "curvature": FakeCurvature}
Load = Callable[..., RunConfig]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods that are quick to import; and lm-eval's list of tasks without the seconds that it takes."""
    available, load = registry.available, registry.load
    monkeypatch.setattr(registry, "available", lambda group: FAKES if group == "methods" else available(group))
    monkeypatch.setattr(registry, "load", lambda group, name: FAKES[name] if group == "methods" else load(group, name))
    monkeypatch.setattr(task_checks, "lm_eval_tasks", lambda: frozenset({"boolq"}))


@pytest.fixture
def load(fakes: None, tmp_path: Path) -> Load:
    def loaded(*overrides: str, text: str = MINIMAL) -> RunConfig:
        (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
        return load_config(tmp_path / "run.yaml", overrides)

    return loaded
