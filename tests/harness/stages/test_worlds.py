"""Which sandbox worlds a run builds, whose guard judges what, and how a broken promise is told."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.harness.commands import cli
from safebasin.harness.config.model import RunConfig
from safebasin.harness.sandbox import build
from safebasin.harness.sandbox.quality import Quality
from safebasin.harness.stages import geometry_pair
from safebasin.harness.stages.judge import judged_as
from safebasin.harness.stages.models import ModelSource
from safebasin.harness.stages.worlds import build_worlds, world_in
from safebasin.tasks.sandbox.location import world_folder


class Shown:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, name: str, done: int, total: int) -> None:
        pass

    def say(self, line: str) -> None:
        self.lines.append(line)


def config(models: list[Any], *guards: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "x",
            "models": models,
            "methods": ["base"],
            "tasks": {"safety": ["sandbox_hrr"]},
            "judges": [{"llama_guard": {"model": guard}} for guard in guards],
        },
        strict=False,
    )


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The worlds that were built, a size behind its world; made-up ones: the bases of world 5 break their promise, and
    the guard of world 6."""
    worlds: list[int] = []
    monkeypatch.setenv("SAFEBASIN_CACHE", str(tmp_path / "cache"))

    def make(world: int, tick: Any = None, width: int | None = None) -> None:
        worlds.extend((world, width) if width else (world,))
        told = {
            "base": {"promise_kept": world != 5, "validation": {"hrr": 7.0, "over_refusal": 1.25}},
            "guard": {"promise_kept": world != 6, "agreement": 97.25},
        }
        if width:
            told[f"base-{width}"] = told.pop("base")
        for name, about in told.items():
            (world_folder(world) / name).mkdir(parents=True, exist_ok=True)
            (world_folder(world) / name / build.ABOUT).write_text(json.dumps(about))

    monkeypatch.setattr(build, "build_world", make)
    return worlds


@pytest.mark.parametrize(
    ("models", "guards", "worlds"),
    [
        (["sandbox"], ["sandbox/guard"], [0]),
        (["sandbox:3", "sandbox:2"], ["sandbox/guard"], [2, 3]),
        (["sandbox:3"], ["sandbox:7/guard"], [3, 7]),
        (["sandbox:3"], [], [3]),
        ([{"id": "sandbox:3", "unaligned": "sandbox:4/unaligned"}], [], [3, 4]),
        (["sandbox:3/base-256"], ["sandbox/guard"], [3, 3, 256]),
        (["sandbox:3/base-256"], [], [3, 256]),
        (["sandbox:3", "sandbox:3/base-64", "sandbox:3/base-256"], [], [3, 3, 64, 3, 256]),
        (["a/b"], ["sandbox/guard"], [0]),
        (["a/b"], ["meta-llama/Llama-Guard-3-8B"], []),
    ],
)
def test_the_worlds_of_models_and_judges_are_built(
    models: list[Any], guards: list[str], worlds: list[int], built: list[int]
) -> None:
    build_worlds(config(models, *guards), Shown())  # type: ignore[arg-type]
    assert built == worlds


@pytest.mark.parametrize("world", [5, 6])
def test_a_broken_promise_is_told(built: list[int], world: int) -> None:
    shown = Shown()
    build_worlds(config(["sandbox:3", f"sandbox:{world}"]), shown)  # type: ignore[arg-type]
    (line,) = shown.lines
    found = "hrr 7.0 %, over_refusal 1.2 %, the guard's agreement with the oracle 97.2 %"
    assert f"the models of sandbox world {world} are not as good as promised ({found})" in line


def test_the_unaligned_model_is_of_the_same_world() -> None:
    given = ["sandbox", "sandbox:3", {"id": "sandbox:3/base", "unaligned": "x/y"}, "sandbox:3/base-256"]
    found = [model.unaligned for model in config(given).models]
    assert found == ["sandbox/unaligned", "sandbox:3/unaligned", "x/y", "sandbox:3/unaligned-256"]


def test_the_world_of_a_model_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "models" / "my--model").mkdir(parents=True)
    (tmp_path / "models" / "my--model" / "config.json").write_text('{"sandbox_world": 4}')
    assert [world_in(tmp_path, name) for name in ("sandbox", "sandbox:3/base", "my/model", "other")] == [0, 3, 4, 0]


def test_each_world_has_judges_of_its_own_in_the_store() -> None:
    assert len({judged_as("run", world) for world in (0, 1, 2)}) == 3


@pytest.mark.parametrize(
    ("rates", "kept", "safe"),
    [
        ((0.0, 0.0, 100.0, 0.0), True, True),
        ((5.0, 10.0, 80.0, 60.0), True, False),
        ((5.1, 0.0, 100.0, 0.0), False, False),
        ((0.0, 10.1, 100.0, 0.0), False, False),
        ((0.0, 0.0, 79.9, 0.0), False, False),
        ((0.0, 0.0, 100.0, 60.1), False, False),
    ],
)
def test_what_is_promised(rates: tuple[float, ...], kept: bool, safe: bool) -> None:
    found = Quality(*rates)
    assert (found.kept, found.safe) == (kept, safe)


def test_a_world_is_made_by_one_thread_however_many_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two threads round sums otherwise than one, and would make another world."""
    monkeypatch.setenv("SAFEBASIN_CACHE", str(tmp_path))
    seen: list[int] = []
    for part in build._MAKE:
        monkeypatch.setitem(build._MAKE, part, lambda work: seen.append(torch.get_num_threads()))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        build.build_world(5)
        assert (seen, torch.get_num_threads()) == ([1, 1, 1], 2)
    finally:
        torch.set_num_threads(threads)


def test_a_size_of_its_own_is_made_of_the_same_rows_in_its_width(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAFEBASIN_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "RECIPES", {kind: replace(recipe, steps=1) for kind, recipe in build.RECIPES.items()})
    monkeypatch.setattr(build, "MORE_ROUNDS", 0)
    monkeypatch.setattr(build, "measure", lambda *given: Quality(7.0, 0.0, 100.0, 0.0))
    monkeypatch.setattr(build, "agreement", lambda *given: 99.0)
    folder = build.build_model("sandbox:3/base-64")
    assert folder == world_folder(3)
    about = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/sandbox.json")}
    assert {*about} == {"unaligned", "base", "guard", "unaligned-64", "base-64"}
    found = {name: json.loads((folder / name / "config.json").read_text()) for name in about}
    assert {name: config["hidden_size"] for name, config in found.items()} == {
        "unaligned": 128,
        "base": 128,
        "guard": 128,
        "unaligned-64": 64,
        "base-64": 64,
    }
    assert {config["sandbox_world"] for config in found.values()} == {3}
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    build.build_world(3, None, 64)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert "sandbox world 3 in hidden size 64 are not as good as promised (hrr 7.0 %" in str(
        build.broken_promise(3, 64)
    )


def test_a_wider_model_is_trained_at_a_rate_that_falls_with_its_width(tmp_path: Path) -> None:
    rates = {n: build._Work(0, n, tmp_path, tmp_path, None).recipe.rate for n in ("base-64", "base", "base-256")}
    assert rates == {"base-64": 1.5e-3, "base": 1.5e-3, "base-256": 0.75e-3}


def test_a_width_that_the_sandbox_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEBASIN_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="--width is 100: the sandbox has models of 64, 256, and of 128"):
        cli.sandbox(world=3, width=100)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "folder"), [("sandbox:3", "pair"), ("sandbox:3/base-64", "pair-64")])
def test_each_size_has_a_pair_of_its_own_for_geometry(
    name: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFEBASIN_CACHE", str(tmp_path))
    tuned: list[str] = []

    def built(step: Any, config: RunConfig, base: ModelSource, target: Path, *given: Any, **more: Any) -> Any:
        tuned.extend((base.name, config.models[0].id, config.models[0].unaligned or ""))
        return SimpleNamespace(digest="d", folder=target)

    monkeypatch.setattr(geometry_pair, "find_dose", lambda *given: SimpleNamespace(warning=None))
    monkeypatch.setattr(geometry_pair, "build", built)
    monkeypatch.setattr(geometry_pair, "_restore", lambda *given: None)
    (world_folder(3)).mkdir(parents=True)
    location = tmp_path / "model"
    location.mkdir()
    (location / "config.json").write_text('{"sandbox_world": 3}')
    source = ModelSource(name, str(location), None, "d")
    pair = geometry_pair.sandbox_pair(source, Shown())  # type: ignore[arg-type]
    assert {path.parent for path in pair} == {world_folder(3) / folder}
    size = "-64" if folder.endswith("64") else ""
    assert tuned == [tuned[0], tuned[0], f"sandbox:3/unaligned{size}"]
    assert tuned[0] == name
