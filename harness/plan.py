"""What a run will do, before any of it is done: which adapters are built from what, and which task each row answers."""

import inspect
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .. import registry
from ..errors import InputError
from ..tasks.catalog import tasks
from .config.model import BASE, MethodSpec, RunConfig
from .config.naming import build_id
from .config.settings import check_settings
from .config.task_checks import hrr_task

__all__ = ["BuildStep", "Cell", "Plan", "RelapseCell", "Row", "entries", "frontier_points", "make_plan", "start_of"]

PARENT = "lora"
"""The method whose checkpoint post-hoc methods start from, where they name no other."""


@dataclass(frozen=True)
class BuildStep:
    """One adapter to build."""

    id: str
    """Name of its checkpoint folder, for example `sandbox-lora-seed0`."""
    model: str
    label: str
    """The leaderboard's name of the method (of its first row, if several rows share the checkpoint)."""
    method: str
    settings: dict[str, Any]
    seed: int
    parent: str | None
    """Build id of the adapter that it starts from."""
    stage: str


@dataclass(frozen=True)
class Row:
    """One row of the leaderboard."""

    model: str
    label: str
    stage: str
    seed: int
    build: str | None
    """Build id of its adapter; None is the model as it is."""


@dataclass(frozen=True)
class Cell(Row):
    """One row's answers to one task."""

    task: str
    role: str
    """One of `tasks.catalog.ROLES`."""

    @property
    def row(self) -> Row:
        """The row that this cell is part of."""
        return Row(self.model, self.label, self.stage, self.seed, self.build)

    @property
    def asked(self) -> str:
        """What the row is asked, for names."""
        return self.task


@dataclass(frozen=True)
class RelapseCell(Cell):
    """A row's answers to the task of harm after it was fine-tuned again; its role is `relapse`."""

    attack: str
    """Name of that fine-tuning (`RelapseConfig.attacks`)."""
    steps: int
    """Optimizer steps of it; 0 is the checkpoint as it is."""

    @property
    def asked(self) -> str:
        """As of a cell."""
        return f"{self.task} after {self.steps} steps of {self.attack}"


@dataclass(frozen=True)
class Plan:
    """A resolved config with everything that follows from it."""

    config: RunConfig
    builds: tuple[BuildStep, ...]
    """Parents before those that start from them."""
    cells: tuple[Cell, ...]
    """By row, in the order of the config."""

    @property
    def digest(self) -> str:
        """The config's digest: equal for runs that differ in names only."""
        return self.config.digest

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the leaderboard, in order."""
        return tuple(dict.fromkeys(cell.row for cell in self.cells))

    @cached_property
    def relapses(self) -> tuple[RelapseCell, ...]:
        """What is asked of every row again, by row, fine-tuning and step; empty where the config does not say so."""
        wanted = self.config.tasks.relapse
        task = hrr_task(self.config) if wanted else None
        if wanted is None or task is None:
            return ()
        return tuple(
            RelapseCell(**asdict(row), task=task, role="relapse", attack=attack, steps=steps)
            for row in self.rows
            for attack in wanted.attacks
            for steps in wanted.steps
        )

    @property
    def every_cell(self) -> tuple[Cell, ...]:
        """All that is asked: the cells, and what is asked of the rows again."""
        return (*self.cells, *self.relapses)

    @property
    def attacks(self) -> int:
        """How many checkpoints are fine-tuned again, one for each fine-tuning."""
        return len({(cell.model, cell.build, cell.attack) for cell in self.relapses})

    @property
    def hidden(self) -> tuple[BuildStep, ...]:
        """Builds that no row shows: fine-tuned checkpoints that only post-hoc methods need."""
        shown = {cell.build for cell in self.cells}
        return tuple(step for step in self.builds if step.id not in shown)

    def to_json(self) -> str:
        """The text of plan.json."""
        content = {
            "digest": self.digest,
            "config": self.config.model_dump(mode="json"),
            "builds": [asdict(step) for step in self.builds],
            "cells": [asdict(cell) for cell in self.cells],
        }
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Reads what `to_json` wrote; needs no plug-in to be installed.

        Raises:
            InputError: the text is no plan, or its config was changed by hand.
        """
        try:
            content = json.loads(text)
            config = RunConfig.model_validate_json(json.dumps(content["config"]))
            builds = TypeAdapter(tuple[BuildStep, ...]).validate_python(content["builds"])
            cells = TypeAdapter(tuple[Cell, ...]).validate_python(content["cells"])
            digest = content["digest"]
        except (json.JSONDecodeError, KeyError, TypeError, ValidationError) as error:
            problem = " ".join(str(error).split())
            raise InputError(f"This is no plan.json of this version of safebasin: {problem}.") from error
        if digest != config.digest:
            raise InputError(f"The config in plan.json has digest {config.digest}, but the plan was made for {digest}.")
        return cls(config, builds, cells)


def make_plan(config: RunConfig) -> Plan:
    """Lays out a checked config: for each model and seed its methods, and the checkpoints that they share.

    The base model does not depend on a seed: it has one row, with the first. Entries with the same method and
    settings share one build. Post-hoc methods start from the first `lora` listed, or from what their `start` names: a
    row by its label, else the first of a fine-tuning method, or one that no row shows.
    """
    builds: dict[str, BuildStep] = {}
    rows = []
    for model in config.models:
        for seed in config.seeds:
            for spec, label in entries(config):
                if spec.name != BASE:
                    *parents, step = _steps(model.id, spec, label, seed, config)
                    for each in (*parents, step):
                        builds.setdefault(each.id, each)
                    rows.append(Row(model.id, label, step.stage, seed, step.id))
                elif seed == config.seeds[0]:
                    rows.append(Row(model.id, label, "base", seed, None))
    return Plan(config, tuple(builds.values()), tuple(_cells(config, rows)))


def entries(config: RunConfig) -> Iterator[tuple[MethodSpec, str]]:
    """The methods with their labels; those on the frontier once for each epsilon."""
    for spec, label in zip(config.methods, config.labels, strict=True):
        points = config.frontier if _takes_epsilon(spec) else ()
        for epsilon in points:
            swept = spec.model_copy(update={"settings": {**spec.settings, "epsilon": epsilon}})
            yield swept, f"{label}[epsilon={epsilon:g}]"
        if not points:
            yield spec, label


def frontier_points(config: RunConfig) -> dict[str, tuple[str, float]]:
    """Label of a row on the frontier -> (label of its method, epsilon)."""
    listed = zip(config.methods, config.labels, strict=True)
    return {
        f"{label}[epsilon={epsilon:g}]": (label, epsilon)
        for spec, label in listed
        if _takes_epsilon(spec)
        for epsilon in config.frontier
    }


def _takes_epsilon(spec: MethodSpec) -> bool:
    if spec.name == BASE or {"epsilon", "epsilon_share"} & set(spec.settings):
        return False
    method = registry.load("methods", spec.name)
    made, _ = check_settings(spec.name, method, spec.settings)
    return "epsilon" in inspect.signature(method).parameters and getattr(made, "bounded", True)


def start_of(spec: MethodSpec, config: RunConfig) -> tuple[MethodSpec, str]:
    """What a post-hoc method starts from, and its label: a listed row, or a method with its defaults."""
    wanted = spec.start or PARENT
    listed = list(zip(config.methods, config.labels, strict=True))
    named = [(other, label) for other, label in listed if wanted in (label, other.name)]
    exact = [(other, label) for other, label in named if label == wanted]
    return (exact or named or [(MethodSpec.model_validate(wanted), wanted)])[0]


def _steps(model: str, spec: MethodSpec, label: str, seed: int, config: RunConfig) -> Iterator[BuildStep]:
    """The build of one entry, after that of its parent if it has one."""
    stage = registry.load("methods", spec.name).stage
    parent = None
    if stage == "post-hoc":
        start, start_label = start_of(spec, config)
        parent = build_id(model, start.name, start.settings, seed)
        start_stage = registry.load("methods", start.name).stage
        yield BuildStep(parent, model, start_label, start.name, start.settings, seed, None, start_stage)
    own = build_id(model, spec.name, spec.told, seed)
    yield BuildStep(own, model, label, spec.name, spec.settings, seed, parent, stage)


def _cells(config: RunConfig, rows: list[Row]) -> Iterator[Cell]:
    known = tasks(*map(Path, config.tasks.include))
    for row in rows:
        for task in (*config.tasks.safety, *config.tasks.utility):
            yield Cell(**asdict(row), task=task, role=known[task].role if task in known else "utility")
