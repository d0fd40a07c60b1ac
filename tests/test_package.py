"""The shape of the package: imports point down, and the wheel holds all of the tree."""

import ast
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Container
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS: dict[str, list[set[str]]] = {
    "": [{"errors", "source", "vllm_setup"}, {"registry"}, {"results", "restore"}, {"judges"}, {"tasks"}, {"harness"}],
    "restore": [
        {"config", "models"}, {"losses", "method"}, {"curvature"}, {"restoration"},
        {"api", "finetuning", "repair", "unlearning"}, {"alignment", "repairs"}, {"attacks", "geometry", "methods"},
    ],
    "harness": [
        {"config", "store"}, {"engines", "plan", "sandbox"}, {"terminal"}, {"stages"}, {"state"}, {"pieces"},
        {"building", "generating", "judging", "relapsing"}, {"preparing"}, {"executors"}, {"run"}, {"commands"},
    ],
}  # fmt: skip
"""Folders and files of the package, of `restore` and of `harness`, from the lowest floor up: imports go down only."""
FOLDERS = ("results", "judges", "tasks", "restore", "harness", "configs")


def sources(root: Path) -> dict[str, Path]:
    """The package's modules by name, `restore.losses.terms`; a folder stands for its `__init__.py`."""
    files = [*root.glob("*.py"), *(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))]
    return {name: path for path in files if (name := named(path.relative_to(root)))}


def named(path: Path) -> str:
    return ".".join(part for part in path.with_suffix("").parts if part != "__init__")


def imported(name: str, path: Path, modules: Container[str]) -> set[str]:
    """Modules of the package that a file imports: inside functions and for type checkers too."""
    folder = [*name.split(".")[:-1]] if path.name != "__init__.py" else name.split(".")
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("safebasin.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module.removeprefix("safebasin.")] if node.module else [])])
            members = {f"{source}.{alias.name}".strip(".") for alias in node.names}
            found |= {member if member in modules else source for member in members}
    return {one for one in found if one in modules}


def breaches(root: Path) -> list[str]:
    """Imports that go up a floor, or across to another room of the same one."""
    modules, found = sources(root), []
    for name, path in modules.items():
        for other in imported(name, path, modules):
            for house, floors in FLOORS.items():
                depth = len(house.split(".")) if house else 0
                one, two = name.split("."), other.split(".")
                if (house and (one[0], two[0]) != (house, house)) or min(len(one), len(two)) <= depth:
                    continue
                above, below = (
                    next(i for i, floor in enumerate(floors) if part[depth] in floor) for part in (one, two)
                )
                if one[depth] != two[depth] and above <= below:
                    found.append(f"{name} imports {other}")
    return found


def test_imports_only_go_down() -> None:
    assert len(sources(ROOT)) > 100
    assert breaches(ROOT) == []


def test_judges_and_tasks_know_no_more_of_restore_than_its_models() -> None:
    """They load models through the gate, and know nothing of training or restoring."""
    modules = sources(ROOT)
    own = {name: path for name, path in modules.items() if name.split(".")[0] in ("judges", "tasks", "results")}
    asked = {other for name, path in own.items() for other in imported(name, path, modules)}
    doors = {".".join(other.split(".")[:2]) for other in asked if other.startswith("restore.")}
    assert doors == {"restore.models"}


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = sources(ROOT)
    graph = {name: imported(name, path, modules) - {name} for name, path in modules.items() if name}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("place", "line", "breach"),
    [
        ("judges/wrong.py", "def late():\n    from ..harness.store import records", "harness.store.records"),
        ("restore/losses/wrong.py", "from ..restoration.loop import Trace", "restore.restoration.loop"),
        ("restore/models/wrong.py", "from ..config import settings", "restore.config.settings"),
        ("harness/engines/wrong.py", "import safebasin.harness.run", "harness.run"),
    ],
)
def test_the_import_check_sees_a_wrong_import(tmp_path: Path, place: str, line: str, breach: str) -> None:
    for path in (place, breach.replace(".", "/") + ".py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{line}\n" if path == place else "")
    assert breaches(tmp_path) == [f"{place.removesuffix('.py').replace('/', '.')} imports {breach}"]


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    source = tmp_path / "source"  # a copy without build/, where earlier builds leave files that are gone since
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "runs", "tests", "docs", "__pycache__"))
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = {name.removeprefix("safebasin/") for name in wheel.namelist() if name.startswith("safebasin/")}
    suffixes = (".py", ".yaml", ".json", ".csv", ".typed", ".jinja", ".css", ".js")
    tree = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes
    }
    assert packed == tree | {"__init__.py", "errors.py", "registry.py", "source.py", "vllm_setup.py", "py.typed"}


def test_heavy_libraries_wait_until_they_are_needed() -> None:
    heavy = "{'torch', 'transformers', 'pandas', 'vllm'}"
    code = f"import sys, safebasin.harness.commands.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
