"""Bad input is one clear message and exit 2; config errors come all at once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safebasin.harness.commands.cli import main

from .conftest import ROOT

SANDBOX = ROOT / "configs" / "sandbox.yaml"
Call = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command that must exit with 2 and returns its message, which must be no traceback."""

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        message = capsys.readouterr().err
        assert stop.value.code == 2, message
        assert "Traceback" not in message
        return " ".join(message.split())

    return call


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("methods=[base, curvture]", ["curvture", "Did you mean 'curvature'"]),
        ("methods=[{curvature: {epsilonn: 0.1}}]", ["epsilonn", "Did you mean 'epsilon'"]),
        ("methods=[{curvature: {epsilon: -1}}]", ["epsilon", "-1"]),
        ("tasks.safety=[sandbox_hr]", ["sandbox_hr", "Did you mean 'sandbox_hrr'"]),
        ("judges=[{llama_gard: {model: sandbox/guard}}]", ["llama_gard", "Did you mean 'llama_guard'"]),
        ("finetune.rank=eight", ["finetune.rank", "eight"]),
        ("finetune.rnak=8", ["rnak", "Did you mean 'rank'"]),
        ("seeds=[]", ["seeds"]),
        ("epochs=2", ["epochs", "finetune.epochs"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_meant(fails: Call, override: str, said: list[str]) -> None:
    message = fails("validate", SANDBOX, override)
    for text in said:
        assert text in message


def test_all_config_errors_come_at_once(fails: Call) -> None:
    message = fails("validate", SANDBOX, "methods=[curvture]", "finetune.rank=eight", "tasks.safety=[sandbox_hr]")
    for text in ("3 problems", "curvture", "eight", "sandbox_hr"):
        assert text in message


def test_a_missing_config(fails: Call, tmp_path: Path) -> None:
    assert "no config file" in fails("run", tmp_path / "none.yaml")


def test_a_config_that_is_no_yaml(fails: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: [\n")
    assert "not YAML" in fails("run", tmp_path / "bad.yaml")


def test_a_report_of_no_run(fails: Call, tmp_path: Path) -> None:
    assert "no run folder" in fails("report", tmp_path)


def test_an_unwritable_output(fails: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "Choose another --output" in fails("run", SANDBOX, "--output", tmp_path / "file" / "run")


def test_nothing_of_that_kind_to_list(fails: Call) -> None:
    assert "Did you mean 'methods'" in fails("list", "method")


def run_with(tmp_path: Path, **changes: object) -> list[object]:
    """The arguments of a run with only the `lora` row, on the sandbox, changed as given."""
    config = yaml.safe_load(SANDBOX.read_text())
    config["methods"] = ["lora"]
    for key, value in changes.items():
        section, _, name = key.partition("__")
        config[section] = {**config[section], name: value} if name else value
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["run", path, "--output", tmp_path / "run"]


@pytest.mark.usefixtures("world")
class TestRuns:
    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("none.jsonl", None, "no file"),
            ("rows.txt", "x", "must end in one of .jsonl, .json, .csv"),
            ("empty.csv", "prompt,response\n", "holds no rows"),
            ("columns.jsonl", json.dumps({"question": "a", "answer": "b"}), "lacks the columns of every known shape"),
            ("few.jsonl", json.dumps({"prompt": "a", "response": "b"}), "at least 15"),
            ("broken.jsonl", "{", "line 1: not JSON"),
        ],
    )
    def test_an_unusable_data_set(self, fails: Call, tmp_path: Path, name: str, content: str | None, said: str) -> None:
        if content is not None:
            (tmp_path / name).write_text(content)
        own = {"finetune__dataset": str(tmp_path / name), "finetune__target_hrr": None}  # the dose is the sandbox's own
        message = fails(*run_with(tmp_path, **own))
        assert said in message
        assert name in message

    def test_a_loss_that_is_not_a_number(self, fails: Call, tmp_path: Path) -> None:
        message = fails(*run_with(tmp_path, finetune__learning_rate=1e30, limit=2))
        assert "Training diverged at step" in message
        assert "nan" in message
        assert "Lower learning_rate" in message

    def test_a_model_that_is_not_there(self, fails: Call, tmp_path: Path) -> None:
        assert "no model folder" in fails(*run_with(tmp_path, models=[str(tmp_path / "nowhere")]))


@pytest.mark.usefixtures("world")
class TestRestore:
    @pytest.fixture
    def files(self, tmp_path: Path) -> dict[str, Path]:
        from safebasin.tasks.sandbox.world import rows

        found = {}
        for name in ("forget", "retain_1"):
            found[name] = tmp_path / f"{name}.jsonl"
            found[name].write_text("\n".join(json.dumps(row) for row in rows(name)))
        return found

    def arguments(self, files: dict[str, Path], adapter: Path, tmp_path: Path) -> list[object]:
        return [
            *("restore", "--base", "sandbox", "--adapter", adapter, "--forget", files["forget"]),
            *("--retain", files["retain_1"], "--output", tmp_path / "restored"),
        ]

    def test_a_folder_that_is_no_adapter(self, fails: Call, files: dict[str, Path], tmp_path: Path) -> None:
        assert "adapter" in fails(*self.arguments(files, tmp_path, tmp_path))

    def test_an_adapter_of_another_base(self, fails: Call, files: dict[str, Path], tmp_path: Path) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import LlamaConfig, LlamaForCausalLM

        other = LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=1))
        get_peft_model(other, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(tmp_path / "adapter"))
        assert "does not fit" in fails(*self.arguments(files, tmp_path / "adapter", tmp_path))

    def test_an_unknown_setting(self, fails: Call, files: dict[str, Path], tmp_path: Path) -> None:
        message = fails(*self.arguments(files, tmp_path, tmp_path), "--set", "epsilom=1")
        assert "Did you mean 'epsilon'" in message
