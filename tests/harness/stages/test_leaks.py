"""A method does not get requests that the run's tasks measure."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.harness.config.data import rows_for
from safebasin.harness.config.load import RunConfig
from safebasin.harness.config.model import DataConfig, FinetuneConfig
from safebasin.harness.stages.leaks import check_leaks, left_out
from safebasin.tasks.advbench import advbench_rows
from safebasin.tasks.sandbox.world import rows


def config(tmp_path: Path, safety: list[dict[str, Any]] | None, *tasks: str) -> RunConfig:
    data = {}
    if safety is not None:
        path = tmp_path / "safety.jsonl"
        path.write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in safety))
        data = {"safety": str(path)}
    given = {"name": "x", "models": ["sandbox"], "methods": ["base"], "finetune": {"dataset": "sandbox_task"}}
    return RunConfig.model_validate_json(json.dumps({**given, "tasks": {"safety": tasks}, "data": data}))


def check(given: RunConfig, *splits: str) -> None:
    check_leaks({split: rows_for(split, given) for split in splits}, given)


def test_the_sandboxs_own_rows_do_not_leak(tmp_path: Path) -> None:
    given = config(tmp_path, None, "sandbox_hrr", "sandbox_prefill", "sandbox_overrefusal")
    check(given, "forget", "curvature_forget")
    check(given, "safety")
    check(given, "task_train")


@pytest.mark.parametrize("task", ["sandbox_hrr", "sandbox_prefill"])
@pytest.mark.parametrize(
    ("split", "use"), [("forget", "forget"), ("curvature_forget", "curvature"), ("safety", "salora")]
)
def test_rows_of_the_users_that_a_task_measures_are_refused(tmp_path: Path, task: str, split: str, use: str) -> None:
    harmful = rows("harmful_test")[:60]
    given = config(tmp_path, harmful, task)
    with pytest.raises(InputError, match=f"requests are in both the {use} and the evaluation rows"):
        check(given, split)


def test_harmless_tasks_are_not_compared(tmp_path: Path) -> None:
    check(config(tmp_path, rows("dual_use_test")[:60], "sandbox_overrefusal"), "forget")


def test_a_task_without_its_data_says_so_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAFEBASIN_HEX_PHI_DIR", raising=False)
    check(config(tmp_path, rows("harmful_test")[:60], "hex_phi_hrr"), "forget")


def test_advbench_does_not_leak(tmp_path: Path, advbench_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEBASIN_ADVBENCH_CSV", str(advbench_csv))
    given = config(tmp_path, None, "advbench_hrr", "advbench_prefill")
    own = given.model_copy(update={"finetune": FinetuneConfig(dataset="dolly")})
    check(own, "forget", "curvature_forget")
    measured = advbench_rows("evaluation", advbench_csv)
    with pytest.raises(InputError, match="evaluation rows"):
        check_leaks({"safety": measured[:1]}, own)


def test_what_advbench_and_another_set_share_is_left_out_or_refused(
    tmp_path: Path, advbench_csv: Path, request_copies: dict[str, Path]
) -> None:
    """StrongREJECT has requests of AdvBench's: beside AdvBench's safety rows it is measured without them."""
    frame = pd.read_csv(request_copies["strongreject"])
    frame.loc[7, "forbidden_prompt"] = advbench_rows("safety", advbench_csv)[0]["prompt"]
    frame.to_csv(request_copies["strongreject"], index=False)
    files = {"advbench_csv": str(advbench_csv), "strongreject_csv": str(request_copies["strongreject"])}
    base = config(tmp_path, None, "strongreject_hrr").model_copy(update={"finetune": FinetuneConfig(dataset="dolly")})
    given = base.model_copy(update={"data": DataConfig(**files)})
    whole = base.model_copy(update={"data": DataConfig(**files, advbench_overlap="keep")})
    check(given, "forget", "curvature_forget", "safety")
    assert left_out(given) == [
        "strongreject_hrr: 1 of 313 requests are left out, because they are AdvBench's safety rows."
    ]
    with pytest.raises(InputError, match="1 requests are in both the salora and the evaluation rows"):
        check(whole, "safety")
    assert left_out(whole) == []
