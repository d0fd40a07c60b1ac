"""`geometry claim`: which fine-tunings of which runs are measured, and what of them is put together."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.harness.commands.cli import main
from safebasin.harness.stages.claiming import CELLS, CORRELATIONS, PREDICTED, PRESERVED, claim
from safebasin.harness.stages.correlating import Settings
from safebasin.harness.stages.models import resolve
from safebasin.harness.terminal.progress import Bars

from ...conftest import TinyChatModel
from .conftest import adapter
from .test_replicas import fill, plan_of


@pytest.fixture(scope="module")
def run(tiny_chat_model: TinyChatModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two models with two fine-tunings each: HRR 0 % of the base, 60 of lora, 10 of shrink."""
    bases = [tiny_chat_model(seed=seed) for seed in (0, 1)]
    plan = plan_of([str(base) for base in bases])
    folder = tmp_path_factory.mktemp("claim") / "run"
    digests = {str(base): resolve(str(base)).digest for base in bases}
    fill(folder, plan, lambda cell: digests[cell.model])
    for place, build in enumerate(step for step in plan.builds if step.label == "lora"):
        adapter(Path(build.model), folder / "checkpoints" / build.id, place)
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("rows")
    harmful, task = folder / "harmful.csv", folder / "task.csv"
    harmful.write_text("prompt,target\n" + "".join(f"harm {'x' * i},sure {i}\n" for i in range(8)))
    task.write_text("prompt,response\n" + "".join(f"say {'y' * i},yes {i}\n" for i in range(8)))
    data = {"harmful": str(harmful), "task": str(task)}
    return Settings("", None, None, data, {}, max_new_tokens=4, device="cpu")


def asked(runs: Sequence[Path], settings: Settings, output: Path, shown: Bars, **changes: Any) -> Any:
    return claim(runs, settings, **{"tuned": "lora", "output": output, "shown": shown, **changes})


def test_every_fine_tuning_is_a_cell_and_repairs_stand_beside_what_was_preserved(
    run: Path, settings: Settings, shown: Bars, tmp_path: Path
) -> None:
    found = asked([run], settings, tmp_path, shown)
    cells, every = pd.read_csv(tmp_path / CELLS), pd.read_csv(tmp_path / CORRELATIONS)
    assert cells[["method", "drift"]].to_numpy().tolist() == [["shrink", 60]] * 4
    assert cells["undone"].tolist() == pytest.approx([100 * 50 / 60] * 4, rel=1e-4)
    assert [len(own) for _, own in every.groupby(["model", "seed"])] == [len(every) / 4] * 4
    for pair in sorted((tmp_path / "pairs").iterdir()):
        assert (pair / "correlate.html").is_file()
    assert len(list((tmp_path / "pairs").iterdir())) == 4
    own = every[(every["set"] == "harmful") & (every["target"] == "prompt")]
    assert cells["prompt"].tolist() == pytest.approx(own["partial"].tolist(), rel=1e-3)
    assert {"prompt", "affirmative"} <= set(found.preserved["target"])
    assert set(found.preserved["models"]) == {2}
    assert found.predicted["rho"].isna().all()  # all repairs undid as much
    told = json.loads((tmp_path / "manifest.json").read_text())
    assert len(told["fine-tunings"]) == 4
    assert {path.name for path in tmp_path.iterdir()} == {
        *(CELLS, CORRELATIONS, PRESERVED, PREDICTED), "pairs", "manifest.json", "claim.html",
    }  # fmt: skip


def test_what_cannot_be_measured_is_said(
    run: Path, settings: Settings, shown: Bars, tmp_path: Path, tiny_chat_model: TinyChatModel
) -> None:
    with pytest.raises(InputError, match=r"has no fine-tuned row 'full'; it has base, lora, shrink. Name one"):
        asked([run], settings, tmp_path, shown, tuned="full")
    with pytest.raises(InputError, match=r"seed 0, is in .* Give one"):
        asked([run, run], settings, tmp_path, shown)
    with pytest.raises(InputError, match=r"--data names the sets a; the harmful prompts are missing"):
        asked([run], Settings("", None, None, {"a": "b"}, {}), tmp_path, shown)
    base = tmp_path / "base"
    shutil.copytree(tiny_chat_model(), base)
    other = fill(tmp_path / "run", plan_of([str(base)]), lambda cell: "what it was")
    with pytest.raises(InputError, match=r"is another one than when the run was made"):
        asked([other], settings, tmp_path, shown)


def test_a_model_that_hardly_drifted_has_nothing_to_undo(
    run: Path, settings: Settings, shown: Bars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safebasin.harness.stages.claiming.LEAST_DRIFT", 61)
    found = asked([run], settings, tmp_path, shown)
    assert found.predicted.empty
    assert len(found.preserved)
    assert "Does it predict?" in (tmp_path / "claim.html").read_text()  # the heading of an empty table


def test_the_command(run: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = [word for name, source in settings.data.items() for word in ("--data", f"{name}={source}")]
    how = ["--max-new-tokens", "2", "--device", "cpu", "--output", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(["geometry", "claim", str(run), *data, *how])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "against" in out
    assert "shrink" in out
    assert "claim.html" in out
