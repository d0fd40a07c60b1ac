"""`geometry correlate` on a tiny pair: which models are measured, on which rows, and what is written."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.harness.commands.cli import main
from safebasin.harness.stages.correlating import Settings, correlate
from safebasin.harness.stages.geometry_rows import KNOWN, named_columns, named_sources, rows_of_sets
from safebasin.harness.stages.iterations import iterations_kept, iterations_of
from safebasin.harness.terminal.progress import Bars
from safebasin.restore.models.loading import load_tuned
from safebasin.restore.restoration.forget import own_answers

from ...conftest import TinyChatModel
from .conftest import adapter


@pytest.fixture(scope="module")
def pair(tiny_chat_model: TinyChatModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base, a tuned adapter, and a restored one with two iterations."""
    base, folder = tiny_chat_model(), tmp_path_factory.mktemp("pair")
    restored = adapter(base, folder / "restored", 3)
    for number in (1, 2):
        adapter(base, restored / "iterations" / str(number), 10 + number)
    return base, adapter(base, folder / "tuned", 1), restored


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    harmful, task = tmp_path / "harmful.csv", tmp_path / "task.jsonl"
    harmful.write_text("goal,target\n" + "".join(f"harm {'x' * i},sure {i}\n" for i in range(7)))
    rows = [{"q": f"say {'y' * i}", "a": f"yes {i}"} for i in range(9)]
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"harmful": str(harmful), "task": str(task)}


def settings(pair: tuple[Path, Path, Path], files: dict[str, str], **changes: Any) -> Settings:
    base, tuned, restored = pair
    given: dict[str, Any] = {
        "base": str(base), "tuned": tuned, "restored": restored, "data": files,
        "columns": {"task": {"prompt": "q", "response": "a"}}, "rows": 8, "max_new_tokens": 4, "device": "cpu",
    }  # fmt: skip
    return Settings(**{**given, **changes})


def test_all_models_are_measured_on_the_same_rows_and_everything_is_written(
    pair: tuple[Path, Path, Path], files: dict[str, str], shown: Bars, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = correlate(settings(pair, files), out, shown)
    names = ["base", "tuned", "iteration 1", "iteration 2", "restored", "unrelated"]
    assert list(dict.fromkeys(found.losses["model"])) == names
    counts = found.losses[found.losses["model"] == "restored"].groupby(["set", "target"]).size()
    assert (counts["harmful", "prompt"], counts["harmful", "affirmative"], counts["task", "answer"]) == (7, 7, 8)
    for _, group in found.losses.groupby("model"):
        assert len(group) == len(found.losses) / len(names)
    assert {path.name for path in out.iterdir()} == {
        "losses.csv", "means.csv", "correlations.csv", "manifest.json", "correlate.html"
    }  # fmt: skip
    written = pd.read_csv(out / "correlations.csv")
    assert written["pearson"].to_numpy() == pytest.approx(
        found.correlations["pearson"].to_numpy(), rel=1e-4, nan_ok=True
    )
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["models"]) == set(names) - {"unrelated"}
    assert manifest["data"]["harmful"]["rows"] == 7
    assert manifest["settings"]["rows"] == 8


def test_harmful_prompts_are_answered_by_the_tuned_model(
    pair: tuple[Path, Path, Path], files: dict[str, str], shown: Bars, tmp_path: Path
) -> None:
    base, tuned, _ = pair
    found = correlate(settings(pair, files, restored=None, unrelated="none"), tmp_path / "out", shown)
    model, tokenizer = load_tuned(str(base), tuned, device="cpu")
    answers = own_answers(model, tokenizer, [f"harm {'x' * i}" for i in range(7)], 4, 7)
    own = found.losses[(found.losses["model"] == "tuned") & (found.losses["target"] == "answer")]
    rows = own[own["set"] == "harmful"]["row"].tolist()
    assert rows == [place for place, (text, _) in enumerate(answers) if text]
    assert list(dict.fromkeys(found.losses["model"])) == ["base", "tuned"]


def test_another_model_may_be_the_unrelated_one(
    pair: tuple[Path, Path, Path], files: dict[str, str], shown: Bars, tmp_path: Path, tiny_chat_model: TinyChatModel
) -> None:
    own = {"task": files["task"]}
    given = settings(pair, own, unrelated=str(pair[0]), restored=None)
    same = correlate(given, tmp_path / "same", shown).correlations
    assert same[same["model"] == "unrelated"]["pearson"].tolist() == pytest.approx([1.0] * 3)  # the base itself
    given = settings(pair, own, unrelated=str(tiny_chat_model(seed=1)), restored=None)
    other = correlate(given, tmp_path / "other", shown).correlations
    assert max(other[other["model"] == "unrelated"]["pearson"]) < 0.99


def test_what_is_not_there_is_said(
    pair: tuple[Path, Path, Path], files: dict[str, str], shown: Bars, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--tuned is missing"):
        correlate(settings(pair, files, tuned=None), tmp_path, shown)
    with pytest.raises(InputError, match="--data is missing"):
        correlate(settings(pair, {}), tmp_path, shown)
    with pytest.raises(InputError, match="is no checkpoint"):
        correlate(settings(pair, files, tuned=tmp_path), tmp_path, shown)


def test_sets_have_names_and_their_columns_too() -> None:
    assert named_sources(["harmful=a.csv", "qa = owner/name:test"]) == {"harmful": "a.csv", "qa": "owner/name:test"}
    with pytest.raises(InputError, match="twice"):
        named_sources(["a=1", "a=2"])
    with pytest.raises(InputError, match="NAME=SOURCE"):
        named_sources(["a.csv"])
    assert named_columns(["qa.prompt=q,qa.response=a"], ["qa"]) == {"qa": {"prompt": "q", "response": "a"}}
    with pytest.raises(InputError, match="SET one of qa"):
        named_columns(["other.prompt=q"], ["qa"])


def test_a_sandbox_base_has_sets_of_its_own_and_known_data_sets_are_those_of_the_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, said = rows_of_sets({}, {}, 5, 3)
    assert [*rows] == ["harmful", "task", "dual_use", "playful", "facts", "arithmetic"]
    assert [set(row) for row in rows["harmful"]] == [{"prompt", "target"}] * 5
    assert all(set(row) == {"prompt", "response"} for name, own in rows.items() if name != "harmful" for row in own)
    assert said[0] == "harmful: sandbox/harmful_test of world 3; 5 taken"
    monkeypatch.setitem(KNOWN, "dolly", lambda: [{"prompt": "p", "response": "r"}])
    assert rows_of_sets({"task": "dolly"}, {}, 5, None)[0] == {"task": [{"prompt": "p", "response": "r"}]}
    with pytest.raises(InputError, match="no split 'nothing'"):
        rows_of_sets({"x": "sandbox/nothing"}, {}, 5, None)


def test_iterations_are_kept_in_order_or_not_at_all(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, tuned, _ = pair
    model, _ = load_tuned(str(base), tuned, device="cpu")
    out = tmp_path / "out"
    with iterations_kept(model, str(base), out) as keep:
        for number in (1, 2, 10):
            keep(number)
        assert not out.exists()
        out.mkdir()
    assert [path.name for path in iterations_of(out)] == ["1", "2", "10"]
    load_tuned(str(base), out / "iterations" / "10", device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert iterations_of(tmp_path) == []


def test_the_command_prints_correlations(
    pair: tuple[Path, Path, Path], files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, tuned, _ = pair
    command = ["geometry", "correlate", "--base", str(base), "--tuned", str(tuned), "--output", str(tmp_path / "o")]
    command += ["--data", f"task={files['task']}", "--columns", "task.prompt=q,task.response=a", "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--unrelated", "none"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "given length" in said
    assert "correlate.html" in said
    with pytest.raises(SystemExit) as ended:
        main([*command, "--data", "task"])
    assert ended.value.code == 2
