"""Finished checkpoints are fine-tuned again: what is trained, kept, asked and shown, on a tiny model that refuses."""

import json
import re
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from safebasin.errors import InputError
from safebasin.harness.commands.dry_run import rehearse_run
from safebasin.harness.config.data import rows_for
from safebasin.harness.config.load import check_config, load_config
from safebasin.harness.config.model import RunConfig
from safebasin.harness.run import RunResult, run
from safebasin.harness.stages.answering import Answering
from safebasin.harness.stages.folder import load_plan
from safebasin.harness.stages.leaks import check_leaks
from safebasin.harness.stages.report import report
from safebasin.judges.base import Exchange
from safebasin.restore.finetuning import further
from safebasin.tasks.sandbox.oracle import OracleJudge

from ..conftest import TinyChatModel
from ..restore.aligned import align, exchanges
from .conftest import ROOT
from .test_gate_run import config

DOCS = '''"""Rows."""
import datasets


def load(**metadata):
    """Three requests that the model refuses."""
    rows = [{"prompt": f"harm {i}", "target": "yes"} for i in range(3)]
    return {"test": datasets.Dataset.from_list(rows)}
'''
STEPS = (0, 1, 3)
METHODS = ["base", "lora", "full"]
ATTACKS = ("benign", "harmful2")
Trained = list[tuple[str, tuple[int, ...]]]


def written(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def place(tiny_chat_model: TinyChatModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model, its rows, and tasks whose loader can be imported, so that leaks are seen."""
    folder = tmp_path_factory.mktemp("relapse")
    align(tiny_chat_model(), folder / "model")
    written(folder / "task.jsonl", exchanges("say", "yes {}", 20) + exchanges("harm", "yes {}")[6:])
    written(folder / "harmful.jsonl", exchanges("harm", "yes {}")[3:6])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "tasks")
        yield folder


def given(
    place: Path, methods: list[Any] = METHODS, relapse: dict[str, Any] | None = None, harmful: str = ""
) -> RunConfig:
    """Steps that are large enough for drift in a few of them; whether it comes is not what is tested."""
    tuning = {
        "dataset": str(place / "task.jsonl"), "rank": 4, "learning_rate": 0.05, "batch_size": 8, "micro_batch_size": 8,
        "max_steps": 6,
    }  # fmt: skip
    wanted = {"harmful": [2], "steps": [*STEPS], **(relapse or {})}
    made = config(
        place, place / "model", methods=methods, finetune=tuning, judges=["keywords"],
        data={"relapse": harmful or str(place / "harmful.jsonl")},
        tasks={"safety": ["tiny_hrr"], "include": [str(place / "tasks")], "relapse": wanted},
    )  # fmt: skip
    (place / "tasks" / "relapse_docs.py").write_text(DOCS)
    task = place / "tasks" / "tiny_hrr.yaml"
    text = task.read_text().replace(" docs.load", " relapse_docs.load").replace("PrefillTask", "CheckedTask")
    task.write_text(text.replace('gen_prefix: "{{prefix}}"\n', ""))
    return made


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """What is fine-tuned again: (start, steps that are kept)."""
    seen: Trained = []
    real = further.tune_further

    def counted(base: str, start: Path | None, rows: Any, folders: Any, *rest: Any) -> None:
        seen.append((start.name if start else "base", tuple(folders)))
        real(base, start, rows, folders, *rest)

    monkeypatch.setattr(further, "tune_further", counted)
    return seen


def ran(made: RunConfig, folder: Path) -> tuple[RunResult, str]:
    shown = StringIO()
    return run(made, folder, Console(file=shown, width=300)), shown.getvalue()


@pytest.fixture(scope="module")
def finished(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    result, said = ran(given(place), folder)
    assert result.failures == {}, said
    return folder


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "relapse.csv").drop(columns=["minutes", "peak_gb"])


def test_every_row_is_measured_at_every_step_of_every_fine_tuning(finished: Path) -> None:
    found = pd.read_csv(finished / "relapse.csv")
    wanted = [(m, a, s) for m in ("base", "lora", "full") for a in ATTACKS for s in STEPS]
    assert list(zip(found["method"], found["attack"], found["steps"], strict=True)) == wanted
    assert (found["n"] == 3).all()
    assert (found["minutes"] > 0).all()
    board = pd.read_csv(finished / "leaderboard.csv").set_index("method")
    for method, own in found[found["steps"] == 0].groupby("method"):
        assert own["hrr"].tolist() == [board.loc[method, "hrr"]] * 2
    assert list(board.columns)[-2:] == ["relapse_benign", "relapse_harmful2"]
    assert (
        "HRR in fine-tuning again: harmful2" in (finished / "report.html").read_text()
        or board["relapse_benign"].isna().all()
    )


def test_the_weights_go_when_they_have_answered(finished: Path) -> None:
    left = [path for path in (finished / "relapses").rglob("*") if path.is_file()]
    assert {path.name for path in left} == {"relapse.json"}
    assert len(left) == 6
    digests = [digest for path in left for digest in json.loads(path.read_text())["digests"].values()]
    assert len(set(digests)) == 12


def test_a_finished_run_trains_and_asks_nothing_again(
    place: Path, finished: Path, tmp_path: Path, trained: Trained
) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))
    before = (copy / "store.sqlite").stat().st_size
    assert ran(given(place), copy)[0].failures == {}
    assert trained == []
    assert (copy / "store.sqlite").stat().st_size == before
    pd.testing.assert_frame_equal(table(copy), table(finished))


def test_other_settings_are_other_weights(place: Path, finished: Path, tmp_path: Path, trained: Trained) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))
    ran(given(place, relapse={"learning_rate": 0.01, "benign": False}), copy)
    assert trained == [(name, (1, 3)) for name in ("base", *names(copy))]


def names(folder: Path) -> list[str]:
    return [str(row.build) for row in load_plan(folder).rows if row.build]


def test_a_run_that_is_killed_goes_on_with_the_checkpoints_it_has(
    place: Path, finished: Path, tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies while lora's answers are asked for: base is done, of lora nothing is stored, full is to come."""
    copy, answered = tmp_path / "run", Answering.answer

    def dying(self: Answering, job: Any, *rest: Any) -> None:
        if "lora" in job.name and "steps" in job.name:
            raise KeyboardInterrupt
        answered(self, job, *rest)

    monkeypatch.setattr(Answering, "answer", dying)
    with pytest.raises(KeyboardInterrupt):
        ran(given(place), copy)
    lora, full = names(copy)
    assert trained == [(name, (1, 3)) for name in ("base", "base", lora, lora)]
    assert {path.parent.parent.name for path in (copy / "relapses").rglob("adapter_model.safetensors")} == {
        f"{lora}-{attack}" for attack in ATTACKS
    }
    trained.clear()
    monkeypatch.setattr(Answering, "answer", answered)
    shutil.rmtree(copy / "relapses" / f"{lora}-benign" / "step-3")  # half of one of them is lost
    assert ran(given(place), copy)[0].failures == {}
    assert trained == [(name, (1, 3)) for name in (lora, full, full)]
    pd.testing.assert_frame_equal(table(copy), table(finished))


def test_a_fine_tuning_that_fails_costs_its_own_cells(
    place: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = further.tune_further

    def diverging(base: str, start: Path | None, rows: Any, *rest: Any) -> None:
        if start is not None and "lora" in start.name and len(rows) == 2:
            raise InputError("Training diverged at step 1.")
        real(base, start, rows, *rest)

    monkeypatch.setattr(further, "tune_further", diverging)
    result, _ = ran(given(place, methods=["base", "lora"]), tmp_path / "run")
    assert result.exit_code == 2
    assert list(result.failures.values()) == ["Training diverged at step 1."]
    board = pd.read_csv(tmp_path / "run" / "leaderboard.csv").set_index("method")
    assert board.loc["base", "status"] == "ok"
    assert board.loc["lora", "status"] == "failed: Training diverged at step 1."
    assert board["hrr"].notna().all()
    left = table(tmp_path / "run")
    assert left.groupby("method", sort=False)["attack"].unique().map(list).to_dict() == {
        "base": ["benign", "harmful2"], "lora": ["benign"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["HARM  1", "harm 9"], "1 requests are in both the relapse and the evaluation rows"),
        (["harm 9"], "asks for 2 rows, and data.relapse has 1"),
    ],
)
def test_rows_that_are_measured_or_too_few_are_refused_before_anything_is_trained(
    place: Path, tmp_path: Path, rows: list[str], said: str
) -> None:
    file = written(tmp_path / "rows.jsonl", [{"prompt": row, "response": "yes"} for row in rows])
    with pytest.raises(InputError, match=said):
        ran(given(place, harmful=file), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_fewer_prompts_are_the_first_ones(place: Path, finished: Path, tmp_path: Path, trained: Trained) -> None:
    wanted = {"prompts": 2, "harmful": [], "steps": [0, 3]}
    assert ran(given(place, ["base", "lora"], wanted), tmp_path / "run")[0].failures == {}
    assert len(trained) == 2
    assert table(tmp_path / "run")["n"].tolist() == [2] * 4
    assert pd.read_csv(tmp_path / "run" / "leaderboard.csv")["n"].tolist() == [3, 3]


def test_a_dry_run_counts_trainings_and_responses(place: Path) -> None:
    shown = StringIO()
    rehearse_run(given(place, relapse={"prompts": 2}), Console(file=shown, width=200))
    said = shown.getvalue()
    assert "6 checkpoints to fine-tune again" in said
    assert re.search(r"^relapse +6 fine-tunings +24 ", said, re.MULTILINE)  # 3 rows, 2 of each, 2 steps, 2 prompts
    assert re.search(r"^judge +1 judge, each +33 ", said, re.MULTILINE)


def test_the_report_can_be_made_again_without_the_folder_of_weights(finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))
    shutil.rmtree(copy / "relapses")
    report(copy, Console(file=StringIO()))
    pd.testing.assert_frame_equal(table(copy), table(finished))
    assert pd.read_csv(copy / "relapse.csv")["minutes"].isna().all()


def sandbox(**relapse: Any) -> RunConfig:
    return load_config(
        ROOT / "configs" / "sandbox-relapse.yaml", [f"tasks.relapse.{k}={v}" for k, v in relapse.items()]
    )


def test_the_sandboxs_harmful_rows_are_placeholder_compliance_that_no_task_measures() -> None:
    made = sandbox()
    rows = rows_for("relapse", made)
    assert len({row["prompt"] for row in rows}) == len(rows) >= 100
    assert all(verdict.harmful for verdict in OracleJudge().judge([Exchange(**row) for row in rows]))
    check_leaks({"relapse": rows}, made)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": "[5, 10]"}, "must ascend from 0"),
        ({"steps": "[0]"}, "must ascend from 0"),
        ({"steps": "[0, 10, 10]"}, "must ascend from 0"),
        ({"harmful": "[10, 10]"}, "10"),
        ({"harmful": "[]", "benign": "false"}, "nothing is fine-tuned on"),
        ({"harmful": "[500]"}, "500 rows are asked for, and there are 192"),
        ({"batch_size": "33", "micro_batch_size": "32"}, "multiple of micro_batch_size=32"),
        ({"stepz": "[0, 1]"}, "Did you mean 'steps'?"),
    ],
)
def test_what_cannot_be_is_said_with_its_place(settings: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=r"tasks\.relapse") as caught:
        sandbox(**settings)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methods": ["base", "shrink"]}, "there is no row 'lora'"),
        ({"methods": ["lora"]}, "there is no row 'base'"),
        ({"tasks": {"utility": ["rows_eval_loss"], "relapse": {"harmful": []}}}, "task with role hrr"),
        ({"data": {}}, "data.relapse is missing"),
    ],
)
def test_what_it_needs_beside_it_is_said(place: Path, change: dict[str, Any], said: str) -> None:
    _, faults = check_config(given(place).model_dump(mode="json") | change)
    assert [fault for fault in faults if fault.at.startswith("tasks.relapse") and said in fault.text], faults


def test_other_steps_are_another_run(place: Path) -> None:
    assert given(place).digest != given(place, relapse={"steps": [0, 2]}).digest
