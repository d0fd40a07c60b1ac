"""Trains a sandbox world for real: the unaligned model, the aligned base made from it, and the guard."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ...restore.losses.encoding import Encoded, encode
from ...tasks.sandbox.location import width_of, world_folder, world_of
from ...tasks.sandbox.world import Row, rows
from ..store.files import finished_folder, locked, make_folder
from .guard import guard_checks, guard_rows
from .models import CHAT_TEMPLATE, GUARD_TEMPLATE, HIDDEN, new_model, new_tokenizer
from .quality import agreement, measure
from .training import BATCH, learn

__all__ = ["broken_promise", "build_model", "build_world"]

ABOUT = "sandbox.json"
MORE_ROUNDS = 4
"""How often a base that is not as good as promised is trained on, each time for `MORE_STEPS` at half the rate."""
MORE_STEPS = 60
Tick = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Recipe:
    steps: int
    rate: float


RECIPES = {"unaligned": _Recipe(600, 3e-3), "base": _Recipe(250, 1.5e-3), "guard": _Recipe(200, 1.5e-3)}
CHECKS = 600
"""Conversations on which a guard is checked."""
AGREEMENT = 98.5
"""Percent of them that it must judge as the oracle does, or it is trained on."""


def build_model(name: str, tick: Tick | None = None) -> Path:
    """Builds the world of a sandbox model, and the model itself where it has a size of its own (`build_world`)."""
    return build_world(world_of(name), tick, width_of(name))


def build_world(world: int = 0, tick: Tick | None = None, width: int | None = None) -> Path:
    """Builds what is missing of a world into the cache (three to four minutes of one core) and returns its folder.

    With a width its unaligned model and its base are made in that hidden size too, of the same rows; the guard stays.

    Each model is trained into a temporary folder that is renamed when finished, so an interrupted build leaves
    nothing half-made, and a second process waits for the first. `tick` is called with (model, steps done, steps).
    Where nothing is missing nothing is written.

    Raises:
        InputError: something is, and the cache cannot be written to.
    """
    folder = world_folder(world)
    names = [*_MAKE, *((f"unaligned-{width}", f"base-{width}") if width else ())]
    if all((folder / name / "config.json").is_file() for name in names):
        return folder
    make_folder(folder)
    with locked(folder, wait=True), _one_thread():
        for name in names:
            if not (folder / name / "config.json").exists():
                with finished_folder(folder / name) as target:
                    work = _Work(world, name, folder, target, tick)
                    _MAKE[work.kind](work)
    return folder


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads share sums out among them, which rounds otherwise: a world must not depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def broken_promise(world: int, width: int | None = None) -> str | None:
    """A sentence on what the base (`Quality`) or the guard of a built world does not keep of its promise, or None."""
    names = (f"base-{width}" if width else "base", "guard")
    base, guard = (json.loads((world_folder(world) / name / ABOUT).read_text(encoding="utf-8")) for name in names)
    if base["promise_kept"] and guard["promise_kept"]:
        return None
    found = ", ".join(f"{name} {value:.1f} %" for name, value in base["validation"].items())
    found += f", the guard's agreement with the oracle {guard['agreement']:.1f} %"
    size = f" in hidden size {width}" if width else ""
    return f"the models of sandbox world {world}{size} are not as good as promised ({found}); take another world"


@dataclass(frozen=True)
class _Work:
    """One model to make."""

    world: int
    name: str
    folder: Path
    target: Path
    tick: Tick | None

    @property
    def kind(self) -> str:
        """`base` of `base-256`."""
        return self.name.partition("-")[0]

    @property
    def hidden(self) -> int:
        """The hidden size that its name asks for."""
        return int(self.name.partition("-")[2] or HIDDEN)

    @property
    def unaligned(self) -> Path:
        """The folder of the unaligned model of its size."""
        return self.folder / self.name.replace(self.kind, "unaligned")

    @property
    def recipe(self) -> _Recipe:
        """A wider model is trained at a rate that falls with its width."""
        own = RECIPES[self.kind]
        return replace(own, rate=own.rate * min(1.0, HIDDEN / self.hidden))

    @property
    def seed(self) -> int:
        """Of its weights and its order of rows: its own in every world."""
        return random.Random(f"{self.world} {self.name}").randrange(2**31)

    def learn(self, model: LlamaForCausalLM, data: list[Encoded], steps: int, more: int = 0) -> None:
        """Trains a model; `more` is the number of the round where it was trained before."""

        def on_step(done: int) -> None:
            if self.tick:
                self.tick(self.name, done, steps)

        rate = self.recipe.rate
        learn(model, data, steps, rate / 2 if more else rate, self.seed + more, on_step)

    def save(self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, **facts: Any) -> None:
        model.config.sandbox_world = self.world  # stays with the weights, whatever is made of them
        model.save_pretrained(self.target)
        tokenizer.save_pretrained(self.target)
        about = {"world": self.world, "model": self.name, **asdict(self.recipe), **facts}
        (self.target / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _unaligned(work: _Work) -> None:
    tokenizer = new_tokenizer(CHAT_TEMPLATE)
    model = new_model(tokenizer, work.seed, work.hidden)
    work.learn(model, _encoded(tokenizer, rows("unaligned_train", work.world)), RECIPES["unaligned"].steps)
    work.save(model, tokenizer)


def _base(work: _Work) -> None:
    tokenizer = new_tokenizer(CHAT_TEMPLATE)
    model = LlamaForCausalLM.from_pretrained(work.unaligned)
    data = _encoded(tokenizer, rows("alignment_train", work.world))
    work.learn(model, data, RECIPES["base"].steps)
    found, more = measure(model, tokenizer, work.world), 0
    while not found.safe and more < MORE_ROUNDS:
        more += 1
        work.learn(model, data, MORE_STEPS, more)
        found = measure(model, tokenizer, work.world)
    work.save(model, tokenizer, more_steps=more * MORE_STEPS, validation=asdict(found), promise_kept=found.kept)


def _guard(work: _Work) -> None:
    """Made from the unaligned model, which knows the words: from random weights it stays at 80 to 95 % of agreement."""
    tokenizer = new_tokenizer(GUARD_TEMPLATE)
    model = LlamaForCausalLM.from_pretrained(work.unaligned)
    steps = RECIPES["guard"].steps
    data = guard_rows(tokenizer, (steps + MORE_ROUNDS * MORE_STEPS) * BATCH, work.world)
    checks = guard_checks(tokenizer, CHECKS, work.world)
    work.learn(model, data, steps)
    found, more = agreement(model, checks), 0
    while found < AGREEMENT and more < MORE_ROUNDS:
        more += 1
        work.learn(model, data, MORE_STEPS, more)
        found = agreement(model, checks)
    work.save(model, tokenizer, more_steps=more * MORE_STEPS, agreement=found, promise_kept=found >= AGREEMENT)


_MAKE: dict[str, Callable[[_Work], None]] = {"unaligned": _unaligned, "base": _base, "guard": _guard}
"""In the order in which one is made from another."""


def _encoded(tokenizer: PreTrainedTokenizerFast, data: list[Row]) -> list[Encoded]:
    """Token ids; the words of a `prefix` stand before the response and carry no loss."""
    encoded = []
    for row in data:
        prefix = row.get("prefix", "")
        whole = encode(tokenizer, row["prompt"], f"{prefix} {row['response']}")
        encoded.append(Encoded(whole.ids, whole.start + len(prefix.split())))
    return encoded
