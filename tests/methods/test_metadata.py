"""What methods and judges tell of themselves, and that each has its page."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from safebasin.harness.config.data import SPLITS
from safebasin.registry import available, load
from safebasin.restore.method import Stage

ROOT = Path(__file__).resolve().parents[2]
METHODS, JUDGES = available("methods"), available("judges")
ABOUT = {"name", "stage", "summary", "paper", "licence", "needs"}
FACETS = {"harm", "refusal", "coherence", "grade"}


def is_one_line(text: Any) -> bool:
    return isinstance(text, str) and text == text.strip() != "" and "\n" not in text


def module_file(value: str) -> Path:
    spec = importlib.util.find_spec(value.partition(":")[0])
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_tells_what_it_is(name: str) -> None:
    method = load("methods", name)
    assert method.name == name
    assert method.stage in set(get_args(Stage)) - {"base"}
    assert all(is_one_line(text) for text in (method.summary, method.paper, method.licence))
    assert len(method.summary) <= 120, "it is one line of `safebasin list methods`"
    assert re.search(r"arXiv \d{4}\.\d{5}", method.paper) or method.paper.startswith("none: ")
    assert isinstance(method.needs, tuple)
    assert set(method.needs) <= set(SPLITS)
    assert method.__doc__


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_frozen_dataclass_whose_defaults_are_sound(name: str) -> None:
    method = load("methods", name)
    assert is_dataclass(method)
    assert method.__dataclass_params__.frozen  # type: ignore[attr-defined]  # not in typeshed
    assert method() == method()
    settings = {field.name for field in fields(method)}
    assert not settings & ABOUT, "what a method tells of itself is a ClassVar and no setting"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_s_page_tells_its_stage_its_data_and_how_faithful_it_is(name: str) -> None:
    method, page = load("methods", name), (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    title = page.splitlines()[0]
    assert title.startswith("# ")
    assert name in title
    assert re.search(rf"\bstage\b\W+{re.escape(method.stage)}\b", page, re.IGNORECASE)
    assert re.search(r"^(\*\*|\| *|#+ )data\b|\*\*data\*\*|\bno data\b", page, re.IGNORECASE | re.MULTILINE)
    assert all(split in page for split in method.needs) or re.search(r"\*\*Data\*\*.*\bas (in )?\[", page)
    if not method.paper.startswith("none: "):  # a control of this project can be faithful to nothing
        assert re.search(r"^(#+ |\*\*)Faithfulness\b", page, re.MULTILINE), f"docs/methods/{name}.md: no Faithfulness"


def test_pages_and_files_of_methods_are_all_registered() -> None:
    files = {path.stem for path in (ROOT / "restore" / "methods").glob("*.py")} - {"__init__", "base"}
    assert files == set(METHODS)
    assert {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")} - {"README", "index"} == set(METHODS)
    assert {module_file(entry.value).stem for entry in METHODS.values()} == files


def test_methods_can_be_listed_without_torch() -> None:
    modules = [entry.value.partition(":")[0] for entry in METHODS.values()]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    print(name, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{name} False" for name in modules]


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_tells_what_it_is_and_has_its_place_in_the_docs(name: str) -> None:
    judge = load("judges", name)
    assert judge.name == name
    assert judge.decides
    assert judge.decides <= FACETS
    assert all(is_one_line(text) for text in (judge.summary, judge.licence))
    assert judge.__doc__
    pages = ["judges.md", "sandbox.md"] if name.startswith("sandbox_") else ["judges.md"]
    texts = [(ROOT / "docs" / page).read_text(encoding="utf-8") for page in pages]
    assert any(f"`{name}`" in text for text in texts), f"no mention of `{name}` in docs/{' or docs/'.join(pages)}"
