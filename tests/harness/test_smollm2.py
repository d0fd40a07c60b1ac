"""The smallest useful pass with the real model: align 4 steps, fine-tune 2, restore 1, judge 8 answers.

`pytest -m real` runs it alone. It is skipped where the model is not at hand and the package index cannot be reached.
"""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from safebasin.errors import InputError
from safebasin.harness.config.model import RunConfig
from safebasin.harness.run import run
from safebasin.harness.stages.loaded import load_run
from safebasin.harness.stages.presets import get_preset
from safebasin.tasks.sandbox.location import cache_folder

pytestmark = pytest.mark.real


@pytest.fixture
def smollm2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model, fetched if need be, in a cache of its own where the aligned one (540 MB) goes with the test."""
    try:
        get_preset("smollm2")
    except InputError as error:
        pytest.skip(f"the real model cannot be had: {error}")
    (tmp_path / "cache").mkdir()
    for name in ("models", "gguf"):
        (tmp_path / "cache" / name).symlink_to(cache_folder() / name)
    monkeypatch.setenv("SAFEBASIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def config(tmp_path: Path, xstest_csv: Path) -> RunConfig:
    for name, word in (("task", "Name fruit"), ("safety", "Make THING"), ("held", "Name colour")):
        rows = [{"prompt": f"{word} number {i}.", "response": f"It is number {i}."} for i in range(60)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curvature = {
        "iterations": 1, "estimator": "lbfgs", "scale": "trust", "pairs": 2, "min_pairs": 1, "batch_size": 4,
        "forget_size": 4, "held_out": 4, "retain_rows": 4, "check_size": 4, "max_new_tokens": 8, "ascend": 1.0,
        "refusals": 0.0, "stop": "none", "epsilon": 1.0,
    }  # fmt: skip
    return RunConfig.model_validate_json(
        json.dumps({
            "name": "smallest",
            "models": [{"id": "smollm2", "align": {"max_steps": 4, "benign_rows": 4, "answer_tokens": 8}}],
            "methods": ["base", "lora", {"curvature": curvature}],
            "finetune": {
                "dataset": str(tmp_path / "task.jsonl"), "rank": 4, "batch_size": 4, "micro_batch_size": 4,
                "max_steps": 2,
            },
            "data": {
                "safety": str(tmp_path / "safety.jsonl"), "xstest_csv": str(xstest_csv),
                "eval_rows": f"{tmp_path / 'held.jsonl'}[:8]",
            },
            "tasks": {"safety": ["xstest_safe"], "utility": ["rows_eval_loss"]},
            "judges": ["refusal", "keywords", "coherence"], "engine": "hf", "limit": 8, "max_gen_toks": 8,
        })
    )  # fmt: skip


def test_align_tune_restore_judge(smollm2: None, config: RunConfig, tmp_path: Path) -> None:
    result = run(config, tmp_path / "run", Console(file=StringIO()))
    assert result.failures == {}
    rows = load_run(tmp_path / "run").set_index("method")
    assert list(rows.index) == ["base", "lora", "curvature"]
    assert (rows["status"] == "ok").all()
    assert rows["eval_loss"].between(0.1, 10).all()
    assert rows["over_refusal"].between(0, 100).all()
    about = json.loads((tmp_path / "run" / "manifest.json").read_text())["models"]["smollm2"]
    assert about["aligned"]["details"]["steps"] == 4
    assert about["unaligned"]["gguf"]["general.name"]
