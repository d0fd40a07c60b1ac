"""Model cards, read again by huggingface_hub."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from safebasin.results.model_card import MARK, Benchmark, Card, Figure, write_card, write_eval_results

FIGURES = [
    Figure("harmful responses", "hrr", "sandbox_hrr", 3.0, 200, 1.4, 6.4, {"base": "0.0 [0.0, 1.9]"}),
    Figure("", "accuracy", "gsm8k", 76.5, 1319, 74.1, 78.7),
    Figure("loss, nats per token", "loss", "dolly_loss", 1.3),
]


def card(**changes: Any) -> Card:
    given = {"base": "meta-llama/Llama-3.1-8B-Instruct", "adapter": True, "done": ["Restored."], "figures": FIGURES}
    return Card(**{"name": "llama: ours", "settings": {"epsilon": 0.1}, **given, **changes})


def test_the_metadata_come_back(tmp_path: Path) -> None:
    assert write_card(tmp_path, card())
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.base_model, data.library_name, data.model_name) == (
        "meta-llama/Llama-3.1-8B-Instruct", "peft", "llama: ours",
    )  # fmt: skip
    assert data.tags == ["safebasin", "safety", "lora"]
    found = {result.dataset_type: result for result in data.eval_results}
    assert [(name, each.metric_type, each.metric_value) for name, each in found.items()] == [
        (each.task, each.metric, each.value) for each in FIGURES
    ]
    assert found["sandbox_hrr"].metric_args == {"n": 200, "ci95_low": 1.4, "ci95_high": 6.4}
    assert found["dolly_loss"].metric_args is None


def test_it_says_what_was_measured_and_what_it_does_not_do(tmp_path: Path) -> None:
    write_card(tmp_path, card(limits=["No over-refusal was measured."]))
    text = ModelCard.load(tmp_path / "README.md").text
    assert "| harmful responses (sandbox\\_hrr)" not in text  # names with underscores stay as they are
    assert "| harmful responses (sandbox_hrr) | 200 | 0.0 [0.0, 1.9] | **3.0 [1.4, 6.4]** |" in text
    assert "| gsm8k | 1319 | - | **76.5 [74.1, 78.7]** |" in text
    limits = text.split("## What it does not do")[1]
    assert "- No over-refusal was measured." in limits
    assert "Nothing is proven safe" in limits


def test_without_figures_there_is_no_model_index(tmp_path: Path) -> None:
    write_card(tmp_path, card(figures=(), adapter=False))
    found = ModelCard.load(tmp_path / "README.md")
    assert found.data.eval_results is None
    assert found.data.library_name == "transformers"
    assert "Nothing was measured of it yet." in found.text


def test_places_on_a_disk_are_not_told(tmp_path: Path) -> None:
    base = tmp_path / "owner" / "base"
    base.mkdir(parents=True)
    write_card(tmp_path, card(base=str(base), settings={"adapter": str(tmp_path / "mine")}))
    text = (tmp_path / "README.md").read_text()
    assert str(tmp_path) not in text
    assert "base_model" not in text
    assert "- adapter: mine" in text


def test_a_card_that_somebody_made_their_own_stays(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Mine\n")
    assert not write_card(tmp_path, card())
    assert path.read_text() == "# Mine\n"
    for ours in (f"{MARK}\nold", "# Model Card for Model ID\n[More Information Needed]"):
        path.write_text(ours)
        assert write_card(tmp_path, card())
        assert "Restored." in path.read_text()


def test_eval_results_are_as_the_hub_wants_them(tmp_path: Path) -> None:
    benchmarks = {"gsm8k": Benchmark("openai/gsm8k", "gsm8k")}
    path = write_eval_results(tmp_path, FIGURES, benchmarks, "2026-01-02T03:04:05Z", "safebasin 0.1.0")
    assert path == tmp_path / ".eval_results" / "safebasin.yaml"
    (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value, entry.date) == (
        "openai/gsm8k", "gsm8k", 76.5, "2026-01-02T03:04:05Z",
    )  # fmt: skip
    assert entry.notes == "safebasin 0.1.0, task gsm8k, n = 1319, 95 % interval 74.1 to 78.7"
    assert write_eval_results(tmp_path, FIGURES, {}, None, "safebasin") is None


@pytest.mark.parametrize("name", ["a: b", "- x", "[1]", "---", "x\n---\ny", "\x1b[31m", "\ud800", "*&!%@`"])
def test_no_name_breaks_the_metadata(tmp_path: Path, name: str) -> None:
    figure = Figure("", "accuracy", name, 1.0)
    write_card(tmp_path, card(name=name, figures=[figure], settings={name: name}))
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.eval_results[0].metric_value == 1.0
    assert data.base_model == "meta-llama/Llama-3.1-8B-Instruct"
