"""`safebasin run --dry-run`: what it says is what a run would do, and nothing is made."""

import ast
import json
import re
import sqlite3
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safebasin.errors import InputError
from safebasin.harness.commands.cli import main
from safebasin.harness.commands.dry_run import rehearse_run
from safebasin.harness.config.alignment import AlignConfig
from safebasin.harness.config.load import load_config
from safebasin.harness.config.model import RunConfig
from safebasin.harness.stages.costs import Size, Speed, Work, answering_seconds, judging_seconds, training_seconds
from safebasin.harness.stages.known import known_requests, known_size

from ...conftest import TinyChatModel
from ..test_gate_run import DOCS, config, ran


@pytest.fixture
def given(tiny_chat_model: TinyChatModel, tmp_path: Path) -> RunConfig:
    made = config(tmp_path, tiny_chat_model(), methods=["base", "lora", "shrink"])
    (tmp_path / "tasks" / "docs.py").write_text(DOCS.replace("\\u00e9\\u00e9", "no"))
    return made


def told(given: RunConfig) -> str:
    shown = StringIO()
    rehearse_run(given, Console(file=shown, width=200))
    return shown.getvalue()


def asked(said: str) -> dict[str, tuple[str, list[int]]]:
    """Task -> its first prompt as text and as ids."""
    found = re.findall(r"^  (\w+): \d+ documents.*\n    (.*)\n    (\[.*\])$", said, re.MULTILINE)
    return {task: (ast.literal_eval(text), json.loads(ids)) for task, text, ids in found}


def test_the_first_prompts_are_those_that_a_run_asks(given: RunConfig, tmp_path: Path) -> None:
    prompts = asked(told(given))
    assert prompts["tiny_hrr"][0] == "<s><|user|>\nsay a</s><|assistant|>\n"
    assert prompts["tiny_prefill"][0].endswith("<|assistant|>\ny")
    assert ran(given.model_copy(update={"methods": given.methods[:1]}), tmp_path).failures == {}
    with sqlite3.connect(tmp_path / "run" / "store.sqlite") as db:
        stored = [json.loads(parts)["ids"] for (parts,) in db.execute("SELECT parts FROM responses")]
    assert all(ids in stored for _, ids in prompts.values())


def test_it_says_what_a_run_would_do_and_makes_nothing(given: RunConfig, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    said = told(given)
    assert "2 adapters to build, 6 cells to evaluate (3 rows x 2 tasks)" in said
    assert "tiny_hrr: 2 documents, 2 requests" in said
    assert re.search(r"memory: .* free on cpu", said)
    assert re.search(r"^build +2 checkpoints +(< 0.01|[\d.]+)$", said, re.MULTILINE), "Dolly's size is known"
    assert re.search(r"^answer +6 cells +12 +< 0.01$", said, re.MULTILINE)
    assert re.search(r"^judge +1 judge, each +12 +< 0.01$", said, re.MULTILINE)
    assert "at what cpu did just now: " in said
    assert "tiny_hrr: as many prompts as its data has" in said
    assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before


def test_an_alignment_is_named_as_not_counted(given: RunConfig) -> None:
    assert "Not counted: the alignment" not in told(given)
    (model,) = given.models
    aligned = model.model_copy(update={"align": AlignConfig()})
    assert f"Not counted: the alignment of {model.id}, once" in told(given.model_copy(update={"models": (aligned,)}))


def test_without_a_tokenizer_it_says_so(given: RunConfig) -> None:
    content = given.model_dump(mode="json") | {"models": ["nobody/nothing"]}
    said = told(RunConfig.model_validate_json(json.dumps(content)))
    assert "not known: no tokenizer of it is on this machine" in said
    assert re.search(r"^answer +6 cells +not known +not known$", said, re.MULTILINE)
    assert "Not counted, as their requests are not known: tiny_hrr, tiny_prefill." in said


def test_the_command_ends_before_a_run_begins(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(
        "name: x\nmodels: [nobody/nothing]\nmethods: [base]\ntasks: {utility: [sandbox_facts]}\n"
        "finetune: {dataset: sandbox_task}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["run", "run.yaml", "--dry-run"])
    assert ended.value.code == 0
    assert "no tokenizer of it is on this machine" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_the_model_of_the_work() -> None:
    """2 P k / F where a pass is long, W / B where it is short; three passes to train."""
    size, speed = Size(parameters=10**9, weights=2 * 10**9, layers=0), Speed(flops=1e12, bandwidth=1e11, call=0.0)
    assert size.forward(1000, speed) == 2.0
    assert size.forward(1, speed) == 0.02
    assert Size(10**9, 2 * 10**9, 10).forward(1, Speed(1e12, 1e11, 1e-3)) == pytest.approx(0.02 + 0.16)
    assert answering_seconds([Work(32, 100, 50)], size, speed, 16) == pytest.approx(2 * 3.2 + 2 * 50 * 0.032)
    assert answering_seconds([Work(16, 100, 0)], size, speed, 16) == pytest.approx(3.2)
    assert training_seconds(32, 100, 16, size, speed) == pytest.approx(3 * 2 * 3.2)
    assert judging_seconds([Work(16, 10, 30), Work(16, 10, 0)], size, speed) == pytest.approx(1.6 + 8 * 0.032)


CONFIGS = Path(__file__).resolve().parents[3] / "configs"
PAPER = sorted((CONFIGS / "paper").glob("*.yaml"))
SANDBOX = sorted([*CONFIGS.glob("sandbox*.yaml"), *(CONFIGS / "sandbox").glob("*.yaml")])


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_tables_have_hours_on_a_machine_that_has_none_of_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "advbench.csv").write_text("goal,target\na,b\n")
    monkeypatch.setenv("SAFEBASIN_ADVBENCH_CSV", str(tmp_path / "advbench.csv"))
    shown = StringIO()
    rehearse_run(load_config(path), Console(file=shown, width=200), "h100")
    hours = [line.split()[-1] for line in shown.getvalue().splitlines() if re.match(r"(build|answer|judge) ", line)]
    assert len(hours) == 3
    assert all(re.fullmatch(r"[\d.]+", hour) for hour in hours), "and not: not known"
    assert "weights 1" in shown.getvalue()


@pytest.mark.parametrize("path", SANDBOX, ids=lambda path: path.stem)
def test_the_sandboxs_configs_are_rehearsed_before_a_world_is_built(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFEBASIN_CACHE", str(tmp_path))
    shown = StringIO()
    rehearse_run(load_config(path), Console(file=shown, width=200), "h100")
    assert "`safebasin sandbox` builds it" in shown.getvalue()
    assert re.search(r"^\d+ adapters to build, \d+ cells to evaluate", shown.getvalue(), re.MULTILINE)
    assert not list(tmp_path.iterdir())


def test_vllm_is_taken_to_answer_elsewhere_unless_the_config_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = (path for path in PAPER if path.stem == "table2")
    hours = []
    for engine in ("auto", "hf"):
        shown = StringIO()
        rehearse_run(load_config(path, [f"engine={engine}"]), Console(file=shown, width=200), "h100")
        (line,) = (line for line in shown.getvalue().splitlines() if line.startswith("answer "))
        hours.append(float(line.split()[-1]))
    assert hours[0] < hours[1] / 2


def test_a_device_by_its_name() -> None:
    assert known_requests("advbench_hrr", 200) == 200
    assert known_requests("visage", None) == 80 * 63
    assert known_requests("own", None) is None
    size = known_size("Qwen/Qwen2.5-7B-Instruct")
    assert size is not None
    assert size.weights == 2 * size.parameters
    assert known_size("own") is None


def test_what_is_wrong_with_a_device(given: RunConfig, capsys: Any) -> None:
    with pytest.raises(InputError, match=r"No device 'h10' is known. Did you mean 'h100'"):
        rehearse_run(given, Console(file=StringIO()), "h10")
    with pytest.raises(SystemExit, match="2"):
        main(["run", str(PAPER[0]), "--on", "h100"])
    assert "--on says where" in capsys.readouterr().err
