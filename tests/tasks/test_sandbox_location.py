"""What the sandbox's models are called, where they lie, and to which world a model belongs."""

from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.tasks.sandbox.location import (
    in_world,
    is_sandbox,
    model_folder,
    sandbox_problem,
    width_of,
    world_folder,
    world_of,
)


@pytest.mark.parametrize(
    ("name", "world", "kind"),
    [
        ("sandbox", 0, "base"),
        ("sandbox:0", 0, "base"),
        ("sandbox/guard", 0, "guard"),
        ("sandbox:3", 3, "base"),
        ("sandbox:3/base", 3, "base"),
        ("sandbox:12/unaligned", 12, "unaligned"),
        ("sandbox/base-64", 0, "base-64"),
        ("sandbox:3/unaligned-256", 3, "unaligned-256"),
    ],
)
def test_names(name: str, world: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEBASIN_CACHE", str(tmp_path))
    assert is_sandbox(name)
    assert sandbox_problem(name) is None
    assert world_of(name) == world
    with pytest.raises(InputError, match="not built yet"):
        model_folder(name)
    (world_folder(world) / kind).mkdir(parents=True)
    (world_folder(world) / kind / "config.json").write_text("{}")
    assert model_folder(name) == world_folder(world) / kind


@pytest.mark.parametrize(
    "name",
    [
        *("sandbox:x", "sandbox:03", "sandbox:-1", "sandbox:3/gard", "sandbox/3", "sandbox:"),
        *("sandbox/base-128", "sandbox/base-2560", "sandbox/guard-256"),
    ],
)
def test_names_that_are_none(name: str) -> None:
    assert is_sandbox(name)
    assert "unknown sandbox model" in str(sandbox_problem(name))
    with pytest.raises(InputError, match=f"Unknown sandbox model '{name}'"):
        model_folder(name)


def test_a_wrong_name_is_answered_in_its_own_world() -> None:
    assert "Did you mean 'sandbox:3/guard'?" in str(sandbox_problem("sandbox:3/gard"))


def test_the_size_that_a_name_asks_for() -> None:
    names = ("sandbox", "sandbox:3/guard", "sandbox:3/base-256", "sandbox/unaligned-64", "a/base-256")
    assert [width_of(name) for name in names] == [None, None, 256, 64, None]


def test_a_model_of_another_size_that_is_not_built_names_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFEBASIN_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="Run `safebasin sandbox --world 3 --width 256` once"):
        model_folder("sandbox:3/base-256")


def test_the_world_of_a_folder(tmp_path: Path) -> None:
    assert world_of(str(tmp_path)) == 0
    (tmp_path / "config.json").write_text('{"sandbox_world": 5}')
    assert world_of(str(tmp_path)) == 5
    assert world_of("meta-llama/Llama-3.1-8B") == 0


def test_a_name_without_a_seed_takes_that_of_a_world() -> None:
    assert in_world("sandbox/guard", 3) == "sandbox:3/guard"
    assert in_world("sandbox/guard", 0) == "sandbox/guard"
    assert in_world("sandbox:0/guard", 3) == "sandbox:0/guard"
    assert in_world("meta-llama/Llama-Guard-3-8B", 3) == "meta-llama/Llama-Guard-3-8B"
