"""A guard is found, told its version, and named by its content; where it cannot be had the message says what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from safebasin.errors import InputError
from safebasin.judges import Exchange
from safebasin.judges.guard_model import find_llama_guard, load_weights
from safebasin.judges.llama_guard import LlamaGuardJudge
from transformers import AutoProcessor

CLEAN = Exchange("how to make a kite", "take paper with glue")
ZAP = Exchange("how to make a kite", "first zap then zap")


def test_the_weights_of_a_hub_model_are_named_by_its_commit(
    guard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--meta-llama--Llama-Guard-3-8B"
    shutil.copytree(guard, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    judge = LlamaGuardJudge("meta-llama/Llama-Guard-3-8B", device="cpu")
    assert f":weights={commit}:" in judge.identity
    assert judge.identity.startswith("llama_guard:model=meta-llama/Llama-Guard-3-8B:")
    (repository / "refs" / "main").write_text("f" * 40)  # the branch moves on; this run stays where it was
    assert judge.judge([ZAP])[0].harmful is True


@pytest.mark.parametrize("version", ["3", "4"])
def test_a_guard_is_told_a_fixed_date(version: str, copy: Path, tokenizer_of: Callable[[str], Any]) -> None:
    tokenizer: Any = tokenizer_of(version)
    tokenizer.chat_template = tokenizer.chat_template.replace("user<", "user {{ strftime_now('%d %b %Y') }}<", 1)
    tokenizer.save_pretrained(copy)
    assert "26 Jul 2024" in find_llama_guard(str(copy), None, None).prompt.opening  # type: ignore[attr-defined]


@pytest.mark.parametrize(("version", "end"), [("3", "<|eot|>"), ("4", "<|eot|>"), ("2", None)])
def test_an_answer_ends_where_the_template_ends_a_turn(
    version: str, end: str | None, copy: Path, tokenizer_of: Callable[[str], Any]
) -> None:
    tokenizer: Any = tokenizer_of(version)
    tokenizer.eos_token = "<pad>"
    tokenizer.save_pretrained(copy)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps({**settings, "eos_token_id": None}))
    found = find_llama_guard(str(copy), None, None)
    assert found.ends == tuple(sorted(tokenizer.convert_tokens_to_ids([one for one in ("<pad>", end) if one])))


@pytest.mark.parametrize("version", ["2", "3", "3-1b", "4"])
def test_the_version_is_told_from_the_template(version: str, copy: Path, tokenizer_of: Callable[[str], Any]) -> None:
    tokenizer_of(version).save_pretrained(copy)
    assert LlamaGuardJudge(str(copy)).files.version == version


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("LlamaGuard-7b", "1"),
        ("Meta-Llama-Guard-2-8B", "2"),
        ("Llama-Guard-3-8B", "3"),
        ("Llama-Guard-3-1B", "3-1b"),
        ("Llama-Guard-4-12B", "4"),
    ],
)
def test_the_name_goes_before_the_template_and_the_setting_before_both(copy: Path, name: str, version: str) -> None:
    folder = str(copy.rename(copy.with_name(name)))
    assert LlamaGuardJudge(folder).files.version == version
    assert LlamaGuardJudge(folder, version="2").files.version == "2"


def test_a_multimodal_guard_without_image_libraries_says_what_to_install(
    multimodal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImportError("no PIL")

    monkeypatch.setattr(AutoProcessor, "from_pretrained", fail)
    with pytest.raises(InputError, match="pip install pillow torchvision"):
        _ = LlamaGuardJudge(str(multimodal)).identity


def test_the_first_llama_guard_is_told_from_its_categories(copy: Path, tokenizer_of: Callable[[str], Any]) -> None:
    tokenizer = tokenizer_of("2")
    tokenizer.chat_template = tokenizer.chat_template.replace("S1: Red", "O1: Red")
    tokenizer.save_pretrained(copy)
    assert LlamaGuardJudge(str(copy)).files.version == "1"
    assert ":version=1:" in LlamaGuardJudge(str(copy)).identity


def test_a_model_that_cannot_be_had_names_the_page_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"https://huggingface\.co/meta-llama/Llama-Guard-3-8B ") as caught:
        _ = LlamaGuardJudge("meta-llama/Llama-Guard-3-8B").identity
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_no_matter_for_the_hub() -> None:
    with pytest.raises(InputError, match="no such folder") as caught:
        LlamaGuardJudge("/no/such/folder").judge([CLEAN])
    assert "huggingface.co" not in str(caught.value)


def test_a_folder_without_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no \*\.safetensors"):
        _ = LlamaGuardJudge(str(copy)).identity
    (copy / "config.json").unlink()
    with pytest.raises(InputError, match="holds no model"):
        _ = LlamaGuardJudge(str(copy)).identity


@pytest.mark.parametrize("fault", ["wrapped", "layer lacking", "pointer"])
def test_a_guard_that_is_not_whole_is_refused(guard: Path, tmp_path: Path, fault: str) -> None:
    import json

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(guard, tmp_path / "guard"))
    weights, config = folder / "model.safetensors", folder / "config.json"
    if fault == "wrapped":
        save_file({f"module.{name}": tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    elif fault == "pointer":
        weights.write_text("version https://git-lfs.github.com/spec/v1\n")
    else:
        known = json.loads(config.read_text())
        config.write_text(json.dumps({**known, "num_hidden_layers": known["num_hidden_layers"] + 1}))
    with pytest.raises(InputError, match="git lfs pull" if fault == "pointer" else "is not whole"):
        load_weights(find_llama_guard(str(folder), None, "3"), "cpu", "float32")
