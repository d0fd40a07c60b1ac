"""The task list: cheap to read, and every task in it is one that lm-eval can index."""

import subprocess
import sys
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.tasks.catalog import ROLES, tasks, tasks_dir

SAFETY = {"hrr": "hrr", "prefill": "hrr", "over_refusal": "over_refusal", "visage": "visage"}


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

    assert TaskManager(include_defaults=False, include_path=str(tasks_dir())).all_subtasks == list(tasks())


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
