"""lm-eval's own tasks on pinned data: from local files, with and without examples."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.tasks import benchmarks
from safebasin.tasks.benchmarks import BENCHMARKS, load

Evaluate = Callable[..., dict[str, Any]]
MOVED = {"toxigen/toxigen-data": "skg/toxigen-data"}
"""The hub redirects from the name that lm-eval uses."""
YAMLS = {
    **{name: f"arc/{name}.yaml" for name in ("arc_easy", "arc_challenge")},
    **{name: f"{name}/{name}.yaml" for name in ("gsm8k", "toxigen", "piqa", "hellaswag")},
    **{"truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml", "boolq": "super_glue/boolq/default.yaml"},
    "winogrande": "winogrande/default.yaml",
}
MC2 = {"choices": ["It is red.", "It is a fish."], "labels": [1, 0]}


def rows_of(i: int) -> dict[str, dict[str, Any]]:
    arc = {
        "question": f"What colour is ball {i}?",
        "choices": {"text": ["red", "blue", "old green"], "label": ["A", "B", "C"]},
        "answerKey": "ABC"[i % 3],
    }
    return {
        "arc_easy": arc,
        "arc_challenge": arc,
        "gsm8k": {"question": f"What is {i} plus 1?", "answer": f"So it is {i + 1}. #### {i + 1}"},
        "toxigen": {"text": f"apples are fruit {i}", "toxicity_ai": 1.0, "toxicity_human": 1.0 + 4.0 * (i % 2)},
        "truthfulqa_mc2": {"question": f"What colour is it, {i}?", "mc1_targets": MC2, "mc2_targets": MC2},
        "boolq": {"passage": f"Ball {i} is red.", "question": "is the ball red", "label": i % 2},
        "piqa": {"goal": f"open jar {i}", "sol1": "turn the lid", "sol2": "wait", "label": i % 2},
        "hellaswag": {
            "activity_label": "Baking", "ctx_a": f"She takes egg {i}.", "ctx_b": "she",
            "endings": ["cracks it", "eats"], "label": str(i % 2),
        },
        "winogrande": {
            "sentence": f"The cup {i} did not fit in the bag because _ was big.", "option1": "the cup",
            "option2": "the bag", "answer": "12"[i % 2],
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def benchmarks_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    for name, source in BENCHMARKS.items():
        (folder / name).mkdir()
        for start, split in enumerate(source.splits):
            rows = [rows_of(100 * start + i)[name] for i in range(8)]
            (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_every_revision_is_a_whole_commit_hash() -> None:
    for source in BENCHMARKS.values():
        assert len(source.hub.revision) == 40
        int(source.hub.revision, 16)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_pinned_data_are_those_of_lm_eval(name: str) -> None:
    from lm_eval.tasks import __file__ as tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(Path(tasks).parent / YAMLS[name], resolve_func=False)
    hub = BENCHMARKS[name].hub
    assert config["task"] == name
    assert (config["dataset_path"], config.get("dataset_name")) == (MOVED.get(hub.name, hub.name), hub.config)
    used = {config.get(f"{kind}_split") for kind in ("training", "validation", "test")} - {None}
    assert used <= set(BENCHMARKS[name].splits)


def test_what_is_missing_is_named(benchmarks_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(benchmarks.VARIABLE, raising=False)
    with pytest.raises(InputError, match="Did you mean 'boolq'"):
        load("bolq", benchmarks_dir=str(benchmarks_dir))
    with pytest.raises(InputError, match=r"neither .*boolq/train.parquet nor train.jsonl"):
        load("boolq", benchmarks_dir=str(tmp_path))
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "train.jsonl").write_text('{"passage": "a"}\n')
    with pytest.raises(InputError, match=r"train.jsonl' has no column \['question', 'label'\]"):
        load("boolq", benchmarks_dir=str(tmp_path))
    (tmp_path / "boolq" / "train.jsonl").unlink()
    pd.DataFrame({"passage": ["a"]}).to_parquet(tmp_path / "boolq" / "train.parquet")
    with pytest.raises(InputError, match=r"train.parquet has no column \['question', 'label'\]"):
        load("boolq", benchmarks_dir=str(tmp_path))
    with pytest.raises(InputError, match=r"aps/super_glue \(commit 3de24cf\) cannot be loaded(.|\n)*benchmarks_dir"):
        load("boolq")


def test_the_utility_group_runs_on_local_files(
    benchmarks_dir: Path, tiny_chat_model: Callable[..., Path], evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import __file__ as tasks

    folders = [Path(tasks).parent / name for name in ("arc", "gsm8k", "toxigen", "truthfulqa", "super_glue/boolq")]
    monkeypatch.setenv(benchmarks.VARIABLE, str(benchmarks_dir))
    result = evaluate(tiny_chat_model(), ["safebasin_utility"], folders=folders, gen_kwargs={"max_gen_toks": 2})
    metrics = {"arc_challenge": "acc,none", "gsm8k": "exact_match,strict-match", "toxigen": "acc,none",
               "truthfulqa_mc2": "acc,none", "boolq": "acc,none"}  # fmt: skip
    assert set(result["group_subtasks"]["safebasin_utility"]) == set(metrics)
    for name, metric in metrics.items():
        assert isinstance(result["results"][name][metric], float)
        assert result["n-samples"][name]["original"] == 8
    assert result["versions"]["gsm8k"] == 3.0, "everything but the data stays lm-eval's"
    assert result["n-shot"]["gsm8k"] == 5


@pytest.mark.parametrize("name", ["arc_easy", "boolq", "piqa", "hellaswag", "arc_challenge", "winogrande"])
def test_gain_is_the_difference_of_lm_evals_own_scores(
    name: str, benchmarks_dir: Path, tiny_chat_model: Callable[..., Path], evaluate: Evaluate, tmp_path: Path
) -> None:
    from lm_eval.tasks import __file__ as tasks
    from safebasin.tasks.catalog import tasks as catalog

    reused = Path(tasks).parent / catalog()[f"{name}_fewshot"].metadata["reuses"]
    for shots in (0, 5):
        (tmp_path / f"{shots}.yaml").write_text(
            f"include: {reused}\ntask: own_{shots}\nnum_fewshot: {shots}\n"
            f"custom_dataset: !function safebasin.tasks.benchmarks.load\ndataset_kwargs: {{benchmark: {name}}}\n"
        )
    metadata = {"benchmarks_dir": str(benchmarks_dir)}
    result = evaluate(tiny_chat_model(), [f"{name}_fewshot", "own_0", "own_5"], metadata, folders=[tmp_path])
    gain, own = result["results"][f"{name}_fewshot"], [result["results"][f"own_{n}"]["acc,none"] for n in (0, 5)]
    assert [gain["acc_zero_shot,none"], gain["acc_few_shot,none"]] == pytest.approx(own)
    assert gain["gain,none"] == pytest.approx(own[1] - own[0])
    assert isinstance(gain["gain_stderr,none"], float)
    sample = result["samples"][f"{name}_fewshot"][0]
    assert sample["arguments"] == [
        *result["samples"]["own_0"][0]["arguments"],
        *result["samples"]["own_5"][0]["arguments"],
    ]


def test_no_examples_is_no_comparison(
    benchmarks_dir: Path, tiny_chat_model: Callable[..., Path], evaluate: Evaluate
) -> None:
    with pytest.raises(InputError, match="must be 1 or more"):
        evaluate(tiny_chat_model(), ["boolq_fewshot"], {"benchmarks_dir": str(benchmarks_dir)}, num_fewshot=0)
