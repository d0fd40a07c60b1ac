"""The task list: cheap to read, and every task in it is one that lm-eval can index."""

import subprocess
import sys
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.tasks.benchmarks import BENCHMARKS
from safebasin.tasks.catalog import ROLES, groups, tasks, tasks_dir

SAFETY = {
    "hrr": "hrr",
    "prefill": "hrr",
    "over_refusal": "over_refusal",
    "under_refusal": "under_refusal",
    "visage": "visage",
}


def test_every_task_says_what_the_harness_needs() -> None:
    found = tasks()
    assert {info.role for info in found.values()} == set(ROLES)
    for info in found.values():
        assert info.summary
        assert {"version", "data", "licence"} <= set(info.metadata)
        assert info.metric == SAFETY.get(info.role, info.metric)
        assert info.is_rate == (info.role not in ("eval_loss", "visage"))


def test_lm_eval_sees_the_same_tasks() -> None:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False, include_path=str(tasks_dir()))
    assert manager.all_subtasks == list(tasks())
    assert manager.all_groups == [group.name for group in groups()]


def test_groups_are_made_of_known_tasks() -> None:
    ours, lm_evals = {*tasks(), *(group.name for group in groups())}, set(BENCHMARKS)
    for group in groups():
        assert set(group.members) <= (lm_evals if group.name == "safebasin_utility" else ours)
        assert group.summary


def test_a_task_may_include_another(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("metric_list: [{metric: hrr, aggregation: mean}]\nmetadata: {role: hrr}\n")
    (tmp_path / "b.yaml").write_text("include: a.yaml\ntask: mine\ncustom_dataset: !function x.load\n")
    mine = tasks(tmp_path)["mine"]
    assert (mine.role, mine.metric, mine.loader) == ("hrr", "hrr", "x.load")
    (tmp_path / "a.yaml").unlink()
    with pytest.raises(InputError, match=r"a.yaml cannot be read"):
        tasks(tmp_path)


def test_no_heavy_import() -> None:
    code = "import sys, safebasin.tasks.catalog as c; c.tasks(); print({'torch', 'lm_eval'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_further_folders(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "task: mine\nmetric_list: [{metric: acc, aggregation: mean}]\nprocess_docs: !function a.b\n"
    )
    assert tasks(tmp_path)["mine"].role == "utility"
    (tmp_path / "x.yaml").write_text("task: mine\nmetadata: {role: harm}\n")
    with pytest.raises(InputError, match="unknown role 'harm'"):
        tasks(tmp_path)
    with pytest.raises(InputError, match="no task folder"):
        tasks(tmp_path / "none")
