"""The align stage: an aligned base is made once, from what its key says, and stands for the model in the run."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safebasin.errors import InputError
from safebasin.harness.commands.explaining import explain_keys
from safebasin.harness.config.model import RunConfig
from safebasin.harness.run import run
from safebasin.harness.stages import align as stage
from safebasin.harness.stages.align import find_model, model_of
from safebasin.harness.stages.loaded import load_run
from safebasin.harness.stages.models import ModelSource, described, resolve
from safebasin.restore.alignment import align as training

QUICK = {"max_steps": 2, "benign_rows": 4, "answer_tokens": 4, "contrast": False}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SAFEBASIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model(tiny_chat_model: Any) -> Path:
    return Path(tiny_chat_model())


def config(tmp_path: Path, model: Path, *, more: dict[str, Any] | None = None, **align: Any) -> RunConfig:
    task, safety, held = tmp_path / "task.jsonl", tmp_path / "safety.jsonl", tmp_path / "held.jsonl"
    for path, word in ((task, "say"), (safety, "harm"), (held, "tell")):
        rows = [{"prompt": f"{word} {i}", "response": f"yes {i}"} for i in range(60)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        "name": "x", "models": [{"id": str(model), "align": QUICK | align}], "methods": ["base", "lora"],
        "finetune": {"dataset": str(task), "rank": 2, "batch_size": 4, "micro_batch_size": 4, "max_steps": 1},
        "data": {"safety": str(safety), "eval_rows": f"{held}[:4]"}, "tasks": {"utility": ["rows_eval_loss"]},
        "device": "cpu", "processes": 1,
    }  # fmt: skip
    return RunConfig.model_validate_json(json.dumps(given | (more or {})))


def made(given: RunConfig) -> ModelSource:
    return model_of(given.models[0], given, lambda what, done, total: None)


def test_it_is_made_once_and_takes_the_models_place(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    given = config(tmp_path, model)
    assert find_model(given.models[0], given) is None
    source, before = made(given), resolve(str(model))
    assert Path(source.location).is_relative_to(cache / "aligned")
    assert source.digest != before.digest
    assert (source.name, source.unaligned) == (str(model), before)
    monkeypatch.setattr(training, "align", lambda *_: pytest.fail("it is made a second time"))
    assert made(given) == source
    assert find_model(given.models[0], given) == source
    told = described({"it": source})["it"]
    assert told["unaligned"]["digest"] == before.digest
    assert told["aligned"]["made_from"]["base"] == before.digest
    assert told["aligned"]["details"]["rows"] == {"refusals": 60, "deep_refusals": 60, "benign": 4, "contrast": 0}
    assert (told["aligned"]["safety_examples"], told["aligned"]["details"]["steps"]) == (60, 2)


@pytest.mark.parametrize(
    "change",
    [{"deep": False}, {"questions": False}, {"max_steps": 3}, {"answers": "given"}, {"benign_rows": 5}, {"seed": 1}],
)
def test_another_setting_is_another_model(tmp_path: Path, model: Path, change: dict[str, Any]) -> None:
    whole = {"batch_size": 64}  # two steps see every row
    one, other = config(tmp_path, model, **whole), config(tmp_path, model, **(whole | change))
    source = made(one)
    assert find_model(other.models[0], other) is None
    changed = made(other)
    assert changed.location != source.location
    assert changed.digest != source.digest


def test_other_rows_are_another_model_and_fine_tuning_is_not_in_it(tmp_path: Path, model: Path) -> None:
    given = config(tmp_path, model)
    source = made(given)
    longer = given.model_copy(update={"finetune": given.finetune.model_copy(update={"max_steps": 9})})
    assert find_model(longer.models[0], longer) == source
    (tmp_path / "safety.jsonl").write_text('{"prompt": "another harm"}\n')
    assert find_model(given.models[0], given) is None


def test_a_damaged_one_is_made_again(tmp_path: Path, model: Path) -> None:
    given = config(tmp_path, model)
    source = made(given)
    (Path(source.location) / "generation_config.json").write_text('{"eos_token_id": 7}')
    assert find_model(given.models[0], given) is None
    assert made(given) == source


def test_an_unaligned_model_that_is_named_stays(tmp_path: Path, model: Path, tiny_chat_model: Any) -> None:
    other = tiny_chat_model(seed=1)
    given = config(tmp_path, model, more={"models": [{"id": str(model), "align": QUICK, "unaligned": str(other)}]})
    assert made(given).unaligned == resolve(str(other))


def test_rows_that_are_measured_are_refused(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = config(tmp_path, model, benign=str(tmp_path / "held.jsonl"))
    with pytest.raises(InputError, match="requests are in both the benign and the evaluation rows"):
        made(given)
    monkeypatch.setattr(stage, "check_leaks", lambda *_: pytest.fail("the harmful rows are looked at"))
    with pytest.raises(pytest.fail.Exception, match="harmful rows are looked at"):
        made(config(tmp_path, model))


def test_a_run_aligns_first_and_tells_of_it(tmp_path: Path, model: Path) -> None:
    given = config(tmp_path, model)
    shown = StringIO()
    explain_keys(given, tmp_path / "run", Console(file=shown, width=200))
    assert f"the alignment of {model} is not made yet" in shown.getvalue()
    result = run(given, tmp_path / "run", Console(file=shown))
    assert result.exit_code == 0, result.failures
    about = json.loads((tmp_path / "run" / "manifest.json").read_text())["models"][str(model)]
    assert about["digest"] == about["aligned"]["digest"] != about["unaligned"]["digest"]
    rows = load_run(tmp_path / "run")
    assert list(rows["method"]) == ["base", "lora"]
    assert rows["eval_loss"].notna().all()
    later = StringIO()
    explain_keys(given, tmp_path / "run", Console(file=later, width=200))
    assert "to be made" not in later.getvalue()
