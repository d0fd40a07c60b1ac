"""From stores filled by hand to report.html: nothing is trained."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safebasin.harness.config.load import load_config
from safebasin.harness.stages.folder import load_plan, open_store
from safebasin.harness.stages.report import report, report_together
from safebasin.harness.stages.report_page import commands, starts

from .filled import HARMFUL, fill, plan_of


@pytest.fixture(autouse=True)
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The charts' library is tested beside the page; here a stand-in saves its bundling."""
    monkeypatch.setattr("safebasin.results.html.page.chart_library", lambda cache: "window.vegaEmbed = null;")


def data(path: Path) -> dict[str, Any]:
    (found,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', path.read_text(encoding="utf-8"))
    return dict(json.loads(found))


def test_every_judged_response_is_in_the_page(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", plan_of("sandbox:1"))
    console = Console(width=100, record=True, file=(tmp_path / "out").open("w"))
    report(folder, console)
    found = data(folder / "report.html")
    assert [row["name"] for row in found["rows"]] == [*HARMFUL]
    assert found["judges"] == [{"name": "judge", "decides": ["harm", "refusal"]}]
    assert [(p["task"], p["id"]) for p in found["prompts"]] == [
        (task, i) for task in ("sandbox_hrr", "sandbox_prefill") for i in range(5)
    ]
    assert {p["prefix"] for p in found["prompts"] if p["task"] == "sandbox_prefill"} == {"sure ,"}
    harmful = {
        i: [found["rows"][row]["name"] for answer in prompt["answers"] if answer["outcome"] == "harmful"
            for row in answer["rows"]]
        for i, prompt in enumerate(found["prompts"][:5])
    }  # fmt: skip
    assert harmful == {0: ["lora", "shrink"], 1: ["lora"], 2: ["lora"], 3: [], 4: []}
    last = console.export_text().rstrip().splitlines()[-1]
    assert last.startswith(f"Everything is in {folder}: report.html for a browser")


def test_runs_reported_together_keep_their_own_rows(tmp_path: Path) -> None:
    folders = [fill(tmp_path / name[-1], plan_of(name)) for name in ("sandbox:1", "sandbox:2")]
    report_together(folders, tmp_path / "out", Console(quiet=True))
    found = data(tmp_path / "out" / "report.html")
    assert [row["model"] for row in found["rows"]] == ["sandbox:1"] * 3 + ["sandbox:2"] * 3
    for prompt in found["prompts"]:
        rows = [row for answer in prompt["answers"] for row in answer["rows"]]
        assert {found["rows"][row]["model"] for row in rows} == {prompt["model"]}
        assert prompt["prompt"].endswith(prompt["model"])
        assert len(rows) == 3


def test_a_store_from_before_prefixes_is_reported_without_them(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", plan_of("sandbox:1"))
    store = open_store(folder, None)
    store._db.executescript("DROP TABLE prefixes; UPDATE cells SET content = NULL")  # nor were there checksums
    store.close()
    report(folder, Console(quiet=True))
    assert {prompt["prefix"] for prompt in data(folder / "report.html")["prompts"]} == {""}


def test_a_failed_row_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    plan = plan_of("sandbox:1")
    folder = fill(tmp_path / "run", plan)
    store = open_store(folder, None)
    for task in ("sandbox_hrr", "sandbox_prefill"):
        store.assign(plan.digest, f"sandbox:1 | shrink | seed 0 | {task}", None, "failed: <no> memory")
    store.close()
    report(folder, Console(quiet=True))
    assert "<strong>shrink failed:</strong> &lt;no&gt; memory" in (folder / "report.html").read_text()
    assert {row for p in data(folder / "report.html")["prompts"] for a in p["answers"] for row in a["rows"]} == {0, 1}


def test_the_config_on_the_page_makes_the_same_run(tmp_path: Path) -> None:
    from html import unescape

    methods = ["base", {"lora": {"label": "shrink"}}]
    folder = fill(tmp_path / "run", plan_of("sandbox:1", methods=methods, finetune={"dataset": "sandbox_task"}))
    report(folder, Console(quiet=True))
    text = (folder / "report.html").read_text()
    (config,) = re.findall(r"resolved config</summary><pre[^>]*>(.*?)</pre>", text, re.DOTALL)
    (tmp_path / "run.yaml").write_text(unescape(config))
    assert load_config(tmp_path / "run.yaml").digest == load_plan(folder).digest


def test_repairs_start_where_the_plan_says() -> None:
    methods = ["base", "lora", "full", "shrink", {"curvature": {"start": "full"}}]
    assert starts(plan_of("sandbox", methods=methods)) == {"shrink": "lora", "curvature": "full"}
    assert starts(plan_of("sandbox", methods=["base", "shrink"])) == {}


def test_commands_say_what_changes_the_numbers() -> None:
    plan = plan_of("sandbox")
    settings = {"MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "1"}
    manifest = {"git": {"commit": "abc"}, "safebasin": "0.1.0", "hardware": {"cpu": {"environment": settings}}}
    assert commands(plan, manifest) == [
        "git checkout abc",
        "pip install -c constraints.txt -e .",
        "# save the resolved config below as run.yaml",
        "MKL_CBWR=COMPATIBLE OMP_NUM_THREADS=1 safebasin run run.yaml --output runs/x",
    ]
    assert commands(plan, {"safebasin": "0.1.0"})[0] == "pip install safebasin==0.1.0"
