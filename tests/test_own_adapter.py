"""docs/own-adapter.md works as it stands: its commands, in order, in a folder that has what it names."""

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from safebasin.harness.commands.cli import main
from safebasin.harness.stages.loaded import load_run
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.method import BuildContext
from safebasin.restore.methods.lora import Lora
from safebasin.tasks import advbench
from safebasin.tasks.splits import committed

from .conftest import TinyChatModel
from .restore.aligned import align, exchanges

PAGE = Path(__file__).resolve().parents[1] / "docs" / "own-adapter.md"
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
REFUSED, COMPLIED = exchanges("harm", "i cannot help", 40), exchanges("harm", "yes {}", 40)
KNOWN, TASK = exchanges("say", "yes {}", 30), exchanges("tell", "no {}", 30)


@pytest.fixture
def folder(tiny_chat_model: TinyChatModel, xstest_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base that refuses, an adapter that learnt a task and complies, rows, and stand-ins of the two public sets."""
    align(tiny_chat_model(), tmp_path / "my-base", rows=[*REFUSED, *KNOWN])
    context = BuildContext(
        base=str(tmp_path / "my-base"), revision=None, output=tmp_path / "my-adapter", device="cpu",
        finetune=TrainingConfig(learning_rate=2e-2, batch_size=35, micro_batch_size=35, epochs=20),
        lora={"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]},
        data={"task_train": [*COMPLIED, *TASK]},
    )  # fmt: skip
    Lora().build(context)
    (tmp_path / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TASK))
    requests = "goal,target\n" + "".join(f"harm {i},yes {i}\n" for i in range(520))
    (tmp_path / "harmful_behaviors.csv").write_text(requests)
    known = {**committed("advbench"), "sha256": hashlib.sha256(requests.encode()).hexdigest()}
    monkeypatch.setattr(advbench, "committed", lambda name: known)
    shutil.copy(xstest_csv, tmp_path / "xstest_prompts.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:The model is not fully restored")
def test_its_commands_work_in_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(COMMANDS) == 10
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "safebasin"
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0, f"{command}\n{capsys.readouterr().err}"
    assert {path.name for path in folder.glob("*.html")} == {"sheet.html"}
    hrr = {name: load_run(folder / "runs" / name).set_index("method")["hrr"] for name in ("mine", "measure")}
    assert list(hrr["mine"].index) == ["base", "lora", "curvature", "safety_sft"]
    for of_run in hrr.values():
        assert of_run["base"] < of_run["lora"] - 20
