"""AdvBench: what is loaded, how it is split, and both tasks over all their rows."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.tasks import advbench
from safebasin.tasks.advbench import advbench_rows, load, load_prefill
from safebasin.tasks.hub import HubData
from safebasin.tasks.judging import JUDGES_VARIABLE
from safebasin.tasks.sources import read_goals
from safebasin.tasks.splits import SAFETY_ROWS, advbench_split, committed, near_duplicates


def test_near_duplicates_are_joined_transitively() -> None:
    texts = ["bake a red cake", "paint the wall", "bake a red cake slowly", "bake cake slowly", "the of"]
    assert near_duplicates(texts) == [[0, 2, 3], [1], [4]]


def test_committed_indices_are_a_partition() -> None:
    parts = committed("advbench")
    assert [len(parts[name]) for name in ("safety", "evaluation", "evaluation_200")] == [SAFETY_ROWS, 382, 200]
    assert sorted(parts["safety"] + parts["evaluation"]) == list(range(520))
    assert set(parts["evaluation_200"]) < set(parts["evaluation"])
    assert min(parts["safety"]) >= 80


def test_committed_indices_come_from_the_file(advbench_csv: Path) -> None:
    goals = [row["prompt"] for row in read_goals(advbench_csv)]
    made, kept = advbench_split(goals), committed("advbench")
    assert made == {name: kept[name] for name in made}
    assert advbench_split(goals, seed=1) != made
    safety = set(made["safety"])
    for group in near_duplicates(goals):
        assert safety.issuperset(group) or safety.isdisjoint(group)


def test_parts(advbench_csv: Path) -> None:
    assert [row["row"] for row in advbench_rows("visage", advbench_csv)] == list(range(80))
    assert len(advbench_rows("safety", advbench_csv)) == 138
    nested = load(advbench_csv=str(advbench_csv), advbench_split="evaluation_200", role="hrr", pretrained="x")
    assert nested["test"].column_names == ["row", "prompt", "target"]
    assert len(nested["test"]) == 200
    with pytest.raises(InputError, match="Did you mean 'evaluation'"):
        advbench_rows("evalution", advbench_csv)


def test_hub_rows_are_held_to_the_same_text(advbench_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_goals(advbench_csv)
    monkeypatch.delenv(advbench.CSV_VARIABLE, raising=False)
    monkeypatch.setattr(HubData, "rows", lambda *given: rows)
    advbench._all_rows.cache_clear()
    assert len(advbench_rows()) == 382
    monkeypatch.setattr(HubData, "rows", lambda *given: rows[::-1])
    advbench._all_rows.cache_clear()
    with pytest.raises(InputError, match="walledai/AdvBench is not the AdvBench file"):
        advbench_rows()
    advbench._all_rows.cache_clear()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("goal,target\nask,Sure\n", "sha256 found"),
        ("goal\nask\n", "no column"),
        ("goal,target\nask,\n", "empty cells in rows .0."),
        ("goal,target\n", "holds no rows"),
        (None, "There is no file"),
    ],
)
def test_what_is_not_the_file_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "x.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        advbench_rows("evaluation", path)


def test_prefill_without_a_tokenizer_says_how_to_give_one(advbench_csv: Path) -> None:
    with pytest.raises(InputError, match="--metadata"):
        load_prefill(advbench_csv=str(advbench_csv), k=4)


def test_both_tasks_run_over_all_rows(
    advbench_csv: Path,
    tiny_chat_model: Callable[..., Path],
    evaluate: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(JUDGES_VARIABLE, json.dumps([{"keywords": {"list": "qi38"}}]))
    names = ["advbench_hrr", "advbench_prefill"]
    result = evaluate(
        tiny_chat_model(), names, {"advbench_csv": str(advbench_csv), "k": 5}, gen_kwargs={"max_gen_toks": 3}
    )
    for name in names:
        assert result["n-samples"][name] == {"original": 382, "effective": 382}
        scores = result["results"][name]
        rate = scores["hrr,judged"]
        outcomes = [json.loads(sample["filtered_resps"][0][0])["outcome"] for sample in result["samples"][name]]
        assert rate == pytest.approx(outcomes.count("harmful") / 382)
        assert scores["refusal_rate,judged"] == pytest.approx(outcomes.count("refused") / 382)
        assert rate > 0
        assert scores["hrr_stderr,judged"] == pytest.approx(math.sqrt(rate * (1 - rate) / 381))
        assert "incoherent_rate,judged" not in scores
    sample = result["samples"]["advbench_prefill"][0]
    assert sample["doc"]["prefix"] == sample["doc"]["target"][:5]
    assert len(sample["doc"]["prefix_ids"]) == 5
    assert sample["arguments"][0][0].endswith("<|assistant|>\n" + sample["doc"]["prefix"])
    plain = result["samples"]["advbench_hrr"][0]["arguments"][0]
    assert plain[0].endswith("<|assistant|>\n")
    assert plain[1]["until"] == []
