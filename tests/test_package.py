"""The shape of the package: imports point down, and the wheel holds all of the tree."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "results": set(),
    "judges": {"results"},
    "tasks": {"judges", "results"},
    "restore": set(),
    "harness": {"restore", "tasks", "judges", "results"},
}
FOLDERS = (*MAY_IMPORT, "configs")


def imported_folders(path: Path) -> set[str]:
    """Top-level folders of the package that a file imports from, inside functions too."""
    depth = len(path.relative_to(ROOT).parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            found |= {name.split(".")[1] for name in names if name.startswith("safebasin.")}
    return found & set(MAY_IMPORT)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_only_go_down(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        assert imported_folders(path) <= MAY_IMPORT[folder] | {folder}, path


def test_the_import_check_sees_a_wrong_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "judges").mkdir()
    wrong = tmp_path / "judges" / "wrong.py"
    wrong.write_text("def late():\n    from ..harness.store import Store\n    return Store\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert imported_folders(wrong) == {"harness"}


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    source = tmp_path / "source"  # a copy without build/, where earlier builds leave files that are gone since
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "runs", "tests", "docs", "__pycache__"))
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = {name.removeprefix("safebasin/") for name in wheel.namelist() if name.startswith("safebasin/")}
    suffixes = (".py", ".yaml", ".json", ".typed")
    tree = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes
    }
    assert packed == tree | {"__init__.py", "errors.py", "registry.py", "vllm_setup.py", "py.typed"}


def test_heavy_libraries_wait_until_they_are_needed() -> None:
    code = "import sys, safebasin.harness.cli; print({'torch', 'transformers', 'pandas', 'vllm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
