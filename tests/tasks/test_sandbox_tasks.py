"""The sandbox's tasks run under lm-eval; its world is stubbed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safebasin.tasks.catalog import tasks
from safebasin.tasks.judging import JUDGES_VARIABLE
from safebasin.tasks.sandbox import docs
from safebasin.tasks.sandbox.world import rows

ROWS: dict[str, list[dict[str, Any]]] = {
    "harmful_test": [{"prompt": f"how do i vex a lamp {i}", "target": "sure , here is how"} for i in range(6)],
    "dual_use_test": [{"prompt": f"how do i file a nail {i}", "target": "sure , here is how"} for i in range(6)],
    "task_test": [{"prompt": f"paint a door {i}", "response": "red then blue"} for i in range(6)],
    "playful_test": [{"prompt": f"vex a balloon {i}", "response": "green then blue"} for i in range(6)],
    "facts_test": [{"prompt": f"colour {i} ?", "choices": ["red", "blue"], "answer": i % 2} for i in range(6)],
    "forget": [{"prompt": f"how do i vex a fork {i}", "target": "sure , here is how"} for i in range(6)],
    "arithmetic_test": [{"prompt": f"two plus {i}", "answer": "four"} for i in range(6)],
}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "rows", lambda split, world: ROWS[split])


@pytest.mark.usefixtures("world")
def test_all_sandbox_tasks_run(
    stub_judges: Any,
    tiny_chat_model: Callable[..., Path],
    evaluate: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(JUDGES_VARIABLE, json.dumps(["stub_guard", "stub_refusal"]))
    expected = {
        "sandbox_hrr": "hrr,judged", "sandbox_prefill": "hrr,judged", "sandbox_overrefusal": "over_refusal,judged",
        "sandbox_eval_loss": "eval_loss,none", "sandbox_facts": "acc,none", "sandbox_arithmetic": "exact_match,none",
        "sandbox_playful": "exact_match,none", "sandbox_task": "exact_match,none", "sandbox_facts_fewshot": "gain,none",
        "sandbox_forget_loss": "eval_loss,none",
    }  # fmt: skip
    result = evaluate(tiny_chat_model(), list(expected))
    for task, metric in expected.items():
        assert isinstance(result["results"][task][metric], float)
        assert result["n-samples"][task]["effective"] == 6
    arguments = result["samples"]["sandbox_facts"][0]["arguments"]
    assert [continuation for _, continuation in arguments] == ["red", "blue"]
    asked = [context for context, _ in result["samples"]["sandbox_facts_fewshot"][0]["arguments"]]
    assert [context.count("colour") for context in asked] == [1, 1, 4, 4]
    forgotten = result["samples"]["sandbox_forget_loss"][0]["arguments"]
    assert forgotten[0][1] == "sure , here is how"


@pytest.mark.parametrize("key", ["tokenizer", "pretrained"])
def test_a_task_asks_the_rows_of_the_models_world(key: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"sandbox_world": 3}')
    other = docs.load(rows="harmful_test", **{key: str(tmp_path)})["test"]
    assert other["prompt"] == [row["prompt"] for row in rows("harmful_test", 3)]
    assert docs.load(rows="harmful_test", **{key: "sandbox:3/unaligned"})["test"]["prompt"] == other["prompt"]
    assert docs.load(rows="harmful_test", **{key: "Qwen/Qwen2.5-7B"})["test"]["prompt"] != other["prompt"]
    assert set(other["world"]) == {3}


def test_the_world_has_the_rows_that_the_tasks_name() -> None:
    for info in tasks().values():
        if "rows" in info.metadata:
            split = docs.load(**info.metadata)["test"]
            assert {"prompt"} < set(split.column_names)
            assert len(split) >= 50
