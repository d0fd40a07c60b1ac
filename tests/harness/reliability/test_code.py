"""What comes as data runs nothing: code beside a model never, code of a task only after it was said."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.harness.config.data import said
from safebasin.harness.config.model import RunConfig
from safebasin.harness.stages.memory import memory_plan
from safebasin.judges.llama_guard import LlamaGuardJudge
from safebasin.restore.models.loading import load_base, load_tokenizer

from ...conftest import TinyChatModel
from .conftest import ran

CODE = """from pathlib import Path
Path("{mark}").write_text("code of the folder ran")
raise SystemExit("code of the folder ran")
"""


@pytest.fixture
def coded(tiny_chat_model: TinyChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose config and tokenizer name classes of their own, where a user answers yes to every question."""
    folder = Path(shutil.copytree(tiny_chat_model(), tmp_path / "model"))
    for name, auto in (
        ("config.json", {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["own.Tokenizer", None]}),
    ):
        about = json.loads((folder / name).read_text())
        about.update({"auto_map": auto, "model_type": "unheard-of", "tokenizer_class": "Unheard"})
        (folder / name).write_text(json.dumps(about))
    (folder / "own.py").write_text(CODE.format(mark=tmp_path / "RAN"))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 99))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder


def test_code_beside_a_model_does_not_run(coded: Path, given: RunConfig, tmp_path: Path) -> None:
    def refused(load: Any, *arguments: Any) -> str:
        with pytest.raises(InputError) as told:
            load(*arguments)
        return str(told.value)

    config = given.model_copy(update={"models": (given.models[0].model_copy(update={"id": str(coded)}),)})
    messages = [
        refused(load_base, str(coded)),
        refused(load_tokenizer, str(coded)),
        refused(lambda: LlamaGuardJudge(model=str(coded)).identity),
        *ran(config, tmp_path / "run")[0].failures.values(),
    ]
    assert memory_plan({}, config, (), "hf")
    assert len(messages) > 3
    for message in messages:
        assert "trust_remote_code=True" not in message
    assert not (tmp_path / "RAN").exists()


def test_code_of_tasks_is_told_of_before_it_runs(given: RunConfig, tmp_path: Path) -> None:
    (folder,) = given.tasks.include
    lines = [line for line in said(given) if line.startswith("tasks.include")]
    assert lines == [
        f"tasks.include: the tasks in {folder} run Python code of theirs (!function), with your permissions. "
        "Only go on if you trust it."
    ]
    plain = given.model_copy(update={"tasks": given.tasks.model_copy(update={"include": (str(tmp_path),)})})
    assert not [line for line in said(plain) if line.startswith("tasks.include")]
