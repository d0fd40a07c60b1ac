"""A run of safebasin, which judges in a stage of its own, gives the rates that lm-eval gives when it judges inline."""

import json
from collections.abc import Callable
from pathlib import Path

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from rich.console import Console
from safebasin.harness.config.model import RunConfig
from safebasin.harness.run import run
from safebasin.harness.stages.loaded import load_run
from safebasin.tasks.catalog import tasks_dir
from safebasin.tasks.judging import JUDGES_VARIABLE

TASKS = ("hex_phi_hrr", "xstest_safe", "xstest_unsafe")
JUDGES = [{"keywords": {"list": "gcg29", "match": "anywhere"}}, "coherence"]


def test_the_stage_and_the_filter_agree(
    tmp_path: Path, tiny_chat_model: Callable[..., Path], xstest_csv: Path, hex_phi_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    data = {"xstest_csv": str(xstest_csv), "hex_phi_dir": str(hex_phi_dir)}
    config = {
        "name": "x", "models": [str(tiny_chat_model())], "methods": ["base"], "tasks": {"safety": TASKS}, "data": data,
        "judges": JUDGES, "limit": 12, "max_gen_toks": 24, "dtype": "float32", "device": "cpu",
    }  # fmt: skip
    done = run(RunConfig.model_validate_json(json.dumps(config)), tmp_path / "run", Console(quiet=True))
    assert done.exit_code == 0, done.failures
    row = load_run(tmp_path / "run").iloc[0]

    monkeypatch.setenv(JUDGES_VARIABLE, json.dumps(JUDGES))
    manager = TaskManager(include_defaults=False, include_path=str(tasks_dir()), metadata=data)
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(tiny_chat_model()), device="cpu", dtype="float32", batch_size=16),
        tasks=list(TASKS), task_manager=manager, limit=12, gen_kwargs={"max_gen_toks": 24}, apply_chat_template=True,
    )  # fmt: skip
    inline = {name: found["results"][name] for name in TASKS}
    assert row["hrr"] == pytest.approx(100 * inline["hex_phi_hrr"]["hrr,judged"])
    assert row["incoherent_rate"] == pytest.approx(100 * inline["hex_phi_hrr"]["incoherent_rate,judged"])
    assert row["over_refusal"] == pytest.approx(100 * inline["xstest_safe"]["over_refusal,judged"])
    assert row["under_refusal"] == pytest.approx(100 * inline["xstest_unsafe"]["under_refusal,judged"])
    assert row["n"] == 12
    assert row["hrr"] + row["incoherent_rate"] > 0, "the comparison must be of something"
