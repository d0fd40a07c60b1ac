"""The configs that are shipped are sound, and those of one model differ in what they say they do."""

import json
from pathlib import Path

import pytest
from safebasin import registry
from safebasin.errors import InputError
from safebasin.harness.config.data import TASK_SPLITS, aligned_safety_rows, benign_rows, own_rows, rows_for
from safebasin.harness.config.load import load_config
from safebasin.tasks import advbench

SANDBOX = Path(__file__).resolve().parents[3] / "configs" / "sandbox.yaml"
LEFT_OUT = {"rank_space", "resta", "ridge", "safe_delta", "safe_merge", "safety_sft", "tuned"}
"""Of all methods there are: the demo has the paper's rivals and the controls, and stays short."""


def test_the_shipped_sandbox_config() -> None:
    config = load_config(SANDBOX)
    assert config.name == "sandbox"
    assert set(config.labels) == {"base", "curvature_paper", *registry.available("methods")} - LEFT_OUT
    assert config.models[0].unaligned == "sandbox/unaligned"
    assert config.safety_source == "sandbox"
    assert config.finetune.lora() == {"rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files where the configs for a real model look for them; all they hold is harmless."""
    answers = "".join(json.dumps({"prompt": f"ask {i}", "response": f"say {i}"}) + "\n" for i in range(698))
    for name, text in (
        ("advbench/harmful_behaviors.csv", "goal,target\na,b\n"),
        ("xstest/xstest_prompts.csv", "id,prompt\n1,a\n"),
        ("alpaca_eval/text_davinci_003.jsonl", answers),
    ):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_text(text)
    monkeypatch.setenv("SAFEBASIN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SAFEBASIN_ADVBENCH_CSV", str(tmp_path / "data" / "advbench" / "harmful_behaviors.csv"))
    return tmp_path / "data"


def test_the_shipped_configs_suit_the_installed_methods_and_judges(data_folder: Path) -> None:
    for path in SANDBOX.parent.rglob("*.yaml"):
        load_config(path)


@pytest.mark.parametrize("name", ["smollm2", "smollm2-seeds", "smollm2-small"])
def test_the_configs_of_the_real_model_train_align_and_measure_on_rows_of_their_own(
    data_folder: Path, name: str
) -> None:
    config = load_config(SANDBOX.with_name(f"{name}.yaml"))
    align = config.models[0].align
    assert align is not None
    parts = [benign_rows(align, config), *(rows_for(split, config) for split in TASK_SPLITS)]
    parts.append(own_rows(config)["data.eval_rows"].rows)
    assert [len(part) for part in parts] == [200, 279, 40, 40, 39, 100]
    assert len({row["prompt"] for part in parts for row in part}) == 698


def test_the_small_config_of_the_real_model_repairs_with_rows_that_it_was_not_aligned_on(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advbench, "advbench_rows", lambda *_: [{"prompt": f"ask {i}"} for i in range(138)])
    config = load_config(SANDBOX.with_name("smollm2-small.yaml"))
    align = config.models[0].align
    assert align is not None
    parts = [aligned_safety_rows(align, config), rows_for("forget", config), rows_for("curvature_forget", config)]
    assert [len(part) for part in parts] == [69, 50, 19]
    assert len({row["prompt"] for part in parts for row in part}) == 138


def test_the_configs_of_the_real_model_differ_in_size_alone(data_folder: Path) -> None:
    full, seeds, small = (load_config(SANDBOX.with_name(f"smollm2{kind}.yaml")) for kind in ("", "-seeds", "-small"))
    assert full.models == seeds.models
    assert full.finetune == seeds.finetune
    for config in (seeds, small):
        assert (full.data, full.judges) == (config.data, config.judges)
        assert set(config.tasks.safety) < set(full.tasks.safety)
        assert {spec.name for spec in config.methods} < {spec.name for spec in full.methods}
    shorter = {"max_steps", "schedule"}
    assert small.finetune.model_dump(exclude=shorter) == full.finetune.model_dump(exclude=shorter)


def test_a_folder_that_is_not_named_is_said_once_for_each_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAFEBASIN_DATA", raising=False)
    with pytest.raises(InputError, match=r"data.eval_rows: the environment variable SAFEBASIN_DATA in") as caught:
        load_config(SANDBOX.with_name("smollm2-small.yaml"))
    assert str(caught.value).count("is not set; set it, or write the path out") == 4
