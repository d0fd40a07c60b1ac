"""Published numbers beside the measured ones of stores filled by hand: file, terminal and page."""

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from safebasin.harness.plan import Plan
from safebasin.harness.stages import published as stage
from safebasin.harness.stages.folder import PLAN, open_store
from safebasin.harness.stages.report import report, report_together
from safebasin.results.beside import BESIDE
from safebasin.results.statistics import wilson

from .filled import fill, plan_of

TABLE = """table,group,row,column,value,unit
mine,a [b] <i>,LoRA,HRR,25.5,percent_prompts
mine,a [b] <i>,LoRA,facts,40.0,percent
mine,a [b] <i>,LoRA,gain,1.0,points
mine,a [b] <i>,LoRA,theirs,60.0,percent
mine,a [b] <i>,LoRA,loss,1.2,nats
mine,a [b] <i>,Ours,HRR,3.0,percent_prompts
"""
COLUMNS = {
    "HRR": "hrr",
    "facts": "sandbox_facts",
    "gain": "sandbox_facts_fewshot",
    "theirs": "arc_easy",
    "loss": "eval_loss",
}
MEASURED = {"sandbox_facts": 0.65, "sandbox_facts_fewshot": 0.05, "arc_easy": 0.6, "sandbox_eval_loss": 1.25}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bundling of the charts' library, and lm-eval's metrics without the seconds that it takes to list them."""
    monkeypatch.setattr("safebasin.results.html.page.chart_library", lambda cache: "window.vegaEmbed = null;")
    monkeypatch.setattr(stage, "lm_eval_metrics", lambda name: {"arc_easy": ("acc", "acc_norm")}[name])


def planned(tmp_path: Path, model: str = "sandbox", **changes: Any) -> Plan:
    path = tmp_path / "mine.csv"
    path.write_text(TABLE)
    mapped = {"models": {"a [b] <i>": model}, "rows": {"LoRA": "lora", "Ours": "shrink"}, "columns": COLUMNS}
    tasks = {"safety": ["sandbox_hrr"], "utility": [*MEASURED]}
    return plan_of(model, **{"tasks": tasks, "published": {str(path): mapped}, **changes})


def shown(folder: Path) -> str:
    console = Console(width=140, file=StringIO())
    report(folder, console)
    return console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def read(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "published.csv", keep_default_na=False, na_values=[""]).set_index("column")


def test_what_was_measured_stands_beside_what_was_published(tmp_path: Path) -> None:
    text = shown(fill(tmp_path / "run", planned(tmp_path), MEASURED))
    found = read(tmp_path / "run")
    assert [found.index.name, *found.columns] == [*sorted(BESIDE, key="column".__ne__)]
    assert [*found.index] == ["HRR", "HRR", "facts", "gain", "theirs", "loss"]
    assert [*found["published"]] == [25.5, 3.0, 40.0, 1.0, 60.0, 1.2]
    assert [*found["measured"]] == pytest.approx([60.0, 20.0, 65.0, 5.0, 60.0, 1.25])
    ends = [100 * end for k, n in ((3, 5), (1, 5), (13, 20), (12, 20)) for end in wilson(k, n)]
    known = found.dropna(subset="measured_low")
    assert [*known[["measured_low", "measured_high"]].to_numpy().ravel()] == pytest.approx(ends, rel=1e-5)
    # Neither a gain nor a loss is a share of documents.
    assert [*found["inside"].fillna("")] == ["yes", "no", "no", "", "yes", ""]
    assert "mine: a [b] <i> / LoRA / HRR" in text
    assert "Inside the interval: 2 of 4; beside these 2 without an interval." in text
    assert text.index("Rates in percent; HRR") < text.index("Published numbers beside measured ones")


def test_the_page_has_them_as_text_in_columns_of_their_own(tmp_path: Path) -> None:
    report(fill(tmp_path / "run", planned(tmp_path), MEASURED), Console(quiet=True))
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert '<a href="#published">' in page
    (section,) = re.findall(r'<section id="published".*?</section>', page, re.DOTALL)
    assert "not measured alike" in section
    row = re.findall(r"<td[^>]*>(.*?)</td>", section)[:6]
    assert row[:3] == ["mine: a [b] &lt;i&gt; / LoRA / HRR", "25.5 %", "sandbox / lora, seed 0: hrr"]
    assert row[3].startswith("60.0 [")
    assert "<i>" not in section


def test_a_failed_row_has_nothing_measured(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    folder = fill(tmp_path / "run", plan, MEASURED)
    store = open_store(folder, None)
    store.assign(plan.digest, "sandbox | lora | seed 0 | sandbox_facts", None, "failed: no memory")
    store.close()
    assert "Inside the interval: 0 of 1; beside these 5 with nothing measured." in shown(folder)
    found = read(folder)
    lora = found[found["method"] == "lora"]
    assert len(lora) == 5
    assert lora["measured"].isna().all()
    assert found.loc[found["method"] == "shrink", "measured"].tolist() == [20.0]


def test_a_run_that_names_none_has_neither_file_nor_section(tmp_path: Path) -> None:
    text = shown(fill(tmp_path / "run", planned(tmp_path, published={}), MEASURED))
    assert "Published" not in text
    assert not (tmp_path / "run" / "published.csv").exists()
    assert 'id="published"' not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_table_that_is_gone_is_told_and_costs_no_report(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", planned(tmp_path), MEASURED)
    (tmp_path / "mine.csv").unlink()
    text = " ".join(shown(folder).split())
    assert f"warning: published numbers are left out: no table '{tmp_path}/mine.csv' ships" in text
    assert (folder / "leaderboard.csv").exists()
    assert not (folder / "published.csv").exists()


def test_runs_reported_together_stand_beside_the_numbers_that_one_of_them_names(tmp_path: Path) -> None:
    plans = [planned(tmp_path, seeds=[1], published={}), planned(tmp_path, seeds=[0])]
    folders = [fill(tmp_path / str(i), plan, MEASURED) for i, plan in enumerate(plans)]
    report_together(folders, tmp_path / "out", Console(quiet=True))
    found = read(tmp_path / "out")
    assert [*found.loc["facts", "seed"]] == [1, 0]
    assert found["measured"].notna().all()


def test_a_finished_run_takes_the_key_later(tmp_path: Path) -> None:
    """`safebasin run` with the key in its config finds everything done, and writes the plan anew."""
    folder = fill(tmp_path / "run", planned(tmp_path, published={}), MEASURED)
    (folder / PLAN).write_text(planned(tmp_path).to_json())
    report(folder, Console(quiet=True))
    assert read(folder)["measured"].notna().all()


def test_only_metrics_of_zero_to_one_are_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for metrics in (("acc", "bits_per_byte"), ("word_perplexity",), ()):
        monkeypatch.setattr(stage, "lm_eval_metrics", lambda name, found=metrics: found)
        folder = fill(tmp_path / ("run" + "-".join(metrics)), planned(tmp_path), MEASURED)
        report(folder, Console(quiet=True))
        assert pd.isna(read(folder).loc["theirs", "measured_low"])
