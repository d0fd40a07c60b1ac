"""Quadratic losses; a tiny random Llama with a LoRA adapter trained for a few steps, and rows for it."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.curvature.pairs import Source, build_history
from safebasin.restore.losses.objective import Objective
from safebasin.restore.losses.terms import Term
from safebasin.restore.method import BuildContext
from safebasin.restore.methods.lora import Lora
from safebasin.restore.models.loading import load_adapter, load_base, load_tokenizer
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.restoration.aim import FORGET
from safebasin.restore.restoration.loop import Aim
from torch import Tensor, nn

from ..conftest import DEVICE
from .aligned import ANSWERED, COMPLIED, align

torch.set_num_threads(1)
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
Context = Callable[..., BuildContext]


def rows(word: str, count: int, answer: str = "yes {}") -> list[dict[str, str]]:
    return [{"prompt": f"{word} {i}", "response": answer.format(i)} for i in range(count)]


@pytest.fixture(scope="session")
def base(tiny_chat_model: Any) -> Path:
    return tiny_chat_model()


@pytest.fixture(scope="session")
def context(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Context:
    def make(**changes: Any) -> BuildContext:
        finetune = TrainingConfig(learning_rate=5e-3, batch_size=8, micro_batch_size=8, epochs=3)
        given: dict[str, Any] = {
            "base": str(base), "revision": None, "output": tmp_path_factory.mktemp("built"), "finetune": finetune,
            "lora": LORA, "data": {"task_train": rows("say", 24)}, "device": DEVICE,
        }  # fmt: skip
        return BuildContext(**{**given, **changes})

    return make


@pytest.fixture(scope="session")
def adapter(context: Context) -> Path:
    """The folder of a fine-tuned adapter."""
    made = context()
    Lora().build(made)
    return made.output


@pytest.fixture(scope="session")
def tokenizer(base: Path) -> Any:
    return load_tokenizer(str(base))


@pytest.fixture
def model(base: Path, adapter: Path) -> Any:
    """The fine-tuned PEFT model, trainable."""
    return load_adapter(load_base(str(base), device=DEVICE), adapter, trainable=True)


@pytest.fixture(scope="session")
def aligned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base that refuses."""
    folder = tmp_path_factory.mktemp("aligned")
    align(base, folder)
    return folder


@pytest.fixture(scope="session")
def unlearned(context: Context, aligned: Path) -> Path:
    """The folder of an adapter on it that complies."""
    finetune = TrainingConfig(learning_rate=2e-2, batch_size=36, micro_batch_size=36, epochs=20)
    made = context(base=str(aligned), finetune=finetune, data={"task_train": [*COMPLIED, *ANSWERED]})
    Lora().build(made)
    return made.output


@pytest.fixture
def tuned(aligned: Path, unlearned: Path) -> Any:
    """The PEFT model that complies, on the base that refuses."""
    return load_adapter(load_base(str(aligned), device=DEVICE), unlearned, trainable=True)


@dataclass
class Quadratic:
    """(theta - centre)' A (theta - centre) / 2, counting its evaluations."""

    parameters: FlatParameters
    a: Tensor
    centre: Tensor
    calls: list[str] = field(default_factory=list)
    fail_at: int | None = None
    error: type[BaseException] = KeyboardInterrupt

    def _value(self) -> tuple[float, Tensor]:
        if self.fail_at is not None and len(self.calls) > self.fail_at:
            raise self.error
        off = self.parameters.get().double() - self.centre
        gradient = self.a @ off
        return float(off @ gradient / 2), gradient.float()

    def loss(self) -> float:
        self.calls.append("forward")
        return self._value()[0]

    def loss_and_gradient(self) -> tuple[float, Tensor]:
        self.calls.append("backward")
        return self._value()


N = 8


@pytest.fixture
def theta() -> FlatParameters:
    torch.manual_seed(0)
    return FlatParameters([("a", nn.Parameter(torch.randn(2, 3))), ("b", nn.Parameter(torch.randn(2)))])


@pytest.fixture
def quadratic(theta: FlatParameters) -> Callable[..., Quadratic]:
    """Makes a convex quadratic of theta with eigenvalues up to `top`."""

    def make(seed: int = 0, top: float = 10.0, sign: float = 1.0, **options: Any) -> Quadratic:
        generator = torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64, generator=generator))[0]
        eigenvalues = top * torch.logspace(-2, 0, N, dtype=torch.float64)
        centre = torch.randn(N, dtype=torch.float64, generator=generator)
        return Quadratic(theta, sign * basis @ torch.diag(eigenvalues) @ basis.T, centre, **options)

    return make


def paper_aim(
    theta: FlatParameters, forget: Objective, sources: Callable[[int], Sequence[Source]], config: RestoreConfig
) -> Aim:
    """The paper's: the ascent of one loss, by pairs that the sources of each iteration probe."""
    terms = [Term(FORGET, -config.ascend, forget)]

    def estimate(iteration: int, found: Any, gradient: Tensor, progress: Any) -> Any:
        return build_history(theta, sources(iteration), config, lambda pairs, attempts: progress(pairs))

    return Aim(lambda *_: terms, estimate, config.pairs, terms, epsilon=config.epsilon)


@pytest.fixture
def harmful() -> list[dict[str, str]]:
    return [{"prompt": f"harm {i}", "target": "sure, here is"} for i in range(12)]


@pytest.fixture
def benign() -> list[dict[str, str]]:
    return rows("say", 24)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Python's own handler of SIGINT, which shells take from what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
