"""A run in lm-eval's own files: the same as lm-eval writes of the same model, and read by its readers."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval import utils as readers
from lm_eval.evaluator import evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from safebasin.errors import InputError
from safebasin.harness.stages.folder import load_plan
from safebasin.harness.stages.generate import loaded_tasks, task_infos
from safebasin.harness.stages.lm_eval_files import export_lm_eval

from ...conftest import TinyChatModel
from ..test_gate_run import DOCS, config, ran

SAME = ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "metrics", "hrr", "doc_hash", "prompt_hash")


@pytest.fixture(scope="module")
def model(tiny_chat_model: TinyChatModel) -> Path:
    return tiny_chat_model()


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lm_eval_files")
    given = config(place, model)
    (place / "tasks" / "docs.py").write_text(DOCS.replace("\\u00e9\\u00e9", "no"))
    assert ran(given, place).failures == {}
    return place / "run"


@pytest.fixture(scope="module")
def written(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return export_lm_eval(folder, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def native(folder: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lm-eval itself writes."""
    given = load_plan(folder).config
    tasks = loaded_tasks(list(task_infos(given).values()), given, str(model))
    engine = HFLM(pretrained=str(model), device="cpu")
    found = evaluate(engine, tasks, apply_chat_template=True, fewshot_as_multiturn=True)
    tracker = EvaluationTracker(str(tmp_path_factory.mktemp("native")))
    tracker.general_config_tracker.model_name_sanitized = "tiny"
    samples = found.pop("samples")
    tracker.save_results_aggregated(found, samples)
    for task, own in samples.items():
        tracker.save_results_samples(task, own)
    return Path(tracker.output_path) / "tiny"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("task", ["tiny_hrr", "tiny_prefill"])
def test_samples_are_those_that_lm_eval_writes(written: list[Path], native: Path, task: str) -> None:
    ours = lines(next(path for path in written if path.name.startswith(f"samples_{task}_")))
    theirs = sorted(lines(next(native.glob(f"samples_{task}_*"))), key=lambda sample: sample["doc_id"])
    assert len(ours) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert {name: one[name] for name in SAME} == {name: other[name] for name in SAME}
        assert set(one) == set(other)


def test_results_are_those_that_lm_eval_writes(written: list[Path], native: Path) -> None:
    ours = json.loads(next(path for path in written if path.name.startswith("results_")).read_text())
    theirs = json.loads(next(native.glob("results_*")).read_text())
    for task in ("tiny_hrr", "tiny_prefill"):
        assert ours["results"][task]["hrr,judged"] == theirs["results"][task]["hrr,judged"]
        assert ours["n-samples"][task] == theirs["n-samples"][task]
    for key in ("versions", "higher_is_better", "task_hashes", "n-shot"):
        assert ours[key] == theirs[key]


def test_lm_evals_readers_read_them(written: list[Path]) -> None:
    names = [str(path) for path in written]
    (results,) = readers.get_results_filenames(names)
    samples = readers.get_sample_results_filenames(names)
    assert [readers.get_file_task_name(Path(name).name) for name in samples] == ["tiny_hrr", "tiny_prefill"]
    assert readers.get_latest_filename(samples) in samples
    table = readers.make_table(json.loads(Path(results).read_text()))
    assert "tiny_hrr" in table
    assert "hrr" in table
    loaded = datasets.load_dataset("json", data_files=samples[0], split="train")  # as its cards do
    assert loaded["doc_id"][:] == [0, 1]
    assert loaded["hrr"][:] == [sample["hrr"] for sample in lines(Path(samples[0]))]


def test_our_own_reader_of_lm_evals_samples_reads_them(written: list[Path]) -> None:
    from safebasin.harness.stages.logged import exchanges_of, read_logged

    found = {each.task: each for each in read_logged(written[0].parent)}
    assert set(found) == {"tiny_hrr", "tiny_prefill"}
    assert found["tiny_hrr"].results is not None
    assert [exchange.prompt for exchange in exchanges_of(found["tiny_prefill"], {})] == ["say a", "say b"]


def test_other_data_than_the_runs_is_refused(folder: Path, tmp_path: Path) -> None:
    docs = folder.parent / "tasks" / "docs.py"
    text = docs.read_text()
    docs.write_text(text.replace("say {word}", "tell {word}"))
    try:
        with pytest.raises(InputError, match=r"document 0 of the task is not the one that was answered \('say a'\)"):
            export_lm_eval(folder, tmp_path)
    finally:
        docs.write_text(text)
