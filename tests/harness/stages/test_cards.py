"""Model cards of a run, from stores filled by hand; nothing is trained."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from rich.console import Console
from safebasin.errors import InputError
from safebasin.harness.commands.cli import main
from safebasin.harness.commands.exporting import read_benchmarks
from safebasin.harness.stages.report import report
from safebasin.harness.store.digests import checkpoint_digest

from .test_replicas import N, fill, plan_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run whose checkpoints are there by name alone."""
    plan = plan_of(["sandbox"], seeds=[0])
    made = fill(tmp_path / "run", plan, lambda cell: "a" * 64)
    for step in plan.builds:
        where = made / "checkpoints" / step.id
        where.mkdir(parents=True)
        (where / "adapter_config.json").write_text("{}")
        about = {"digest": "d" * 64, "minutes": 1.5, "peak_gb": None, "safety_examples": 0, "made_from": {}}
        (where / "provenance.json").write_text(json.dumps(about))
    return made


def test_a_report_writes_a_card_for_every_repair_and_for_nothing_else(folder: Path) -> None:
    shrunk = folder / "checkpoints" / "sandbox-shrink-seed0"
    before = checkpoint_digest(shrunk)
    report(folder, Console(quiet=True))
    assert [path.parent.name for path in folder.rglob("README.md")] == ["sandbox-shrink-seed0"]
    card = ModelCard.load(shrunk / "README.md")
    (hrr,) = [each for each in card.data.eval_results if each.metric_type == "hrr"]
    assert hrr.metric_value == 100 * 2 / N
    assert hrr.metric_args["n"] == N
    assert f"| {N} | 0.0 [0.0, 16.1] | 60.0 [38.7, 78.1] | **10.0 [2.8, 30.1]** |" in card.text
    assert "Made from a fine-tuned model (`lora`)" in card.text
    assert checkpoint_digest(shrunk) == before


def test_cards_of_all_built_rows_can_be_had_elsewhere(folder: Path, tmp_path: Path) -> None:
    command = ["export", str(folder), "--format", "model-card", "--output", str(tmp_path / "cards")]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--benchmark", "sandbox_hrr=owner/set:test"])
    assert ended.value.code == 0
    found = sorted(
        str(path.relative_to(tmp_path / "cards")) for path in (tmp_path / "cards").rglob("*.*") if path.is_file()
    )
    assert found == [
        f"sandbox-{method}-seed0/{file}"
        for method in ("lora", "shrink")
        for file in (".eval_results/safebasin.yaml", "README.md")
    ]


def test_a_benchmark_of_nothing_measured_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(folder), "--format", "model-card", "--benchmark", "gsm8k=openai/gsm8k:gsm8k"])
    assert ended.value.code == 2
    assert "the run measured no such task, but sandbox_eval_loss, sandbox_hrr" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize("text", ["gsm8k", "gsm8k=gsm8k", "gsm8k=a/b", "=a/b:c", "gsm8k=/b:c", "gsm8k=a/b:"])
def test_a_benchmark_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"not of the form TASK=OWNER/DATASET:ID"):
        read_benchmarks([text])
