"""Digests tell checkpoints apart by what decides their answers, and by nothing else."""

import json
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.harness.store.digests import checkpoint_digest, code_digest, weights_code


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    write(folder, target_modules=["q_proj", "v_proj"], r=8, base_model_name_or_path="here")
    return folder


def write(folder: Path, **settings: object) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def test_order_of_modules_and_name_of_the_base_play_no_part(adapter: Path) -> None:
    before = checkpoint_digest(adapter)
    write(adapter, r=8, target_modules=["v_proj", "q_proj"], base_model_name_or_path="there")
    assert checkpoint_digest(adapter) == before


def test_settings_and_weights_do(adapter: Path) -> None:
    before = checkpoint_digest(adapter)
    write(adapter, target_modules=["q_proj", "v_proj"], r=4)
    changed = checkpoint_digest(adapter)
    (adapter / "adapter_model.safetensors").write_bytes(b"other weights")
    assert len({before, changed, checkpoint_digest(adapter)}) == 3


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoint_digest(tmp_path)


def test_code_is_told_apart_by_file_and_by_folder() -> None:
    assert len({code_digest(), code_digest("errors.py"), code_digest("vllm_setup.py"), code_digest("judges")}) == 4


def test_what_only_looks_at_weights_does_not_count_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(folder: str) -> str:
        (tmp_path / "restore" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "restore" / folder / "code.py").write_text(f"value = {folder!r}\n")
        code_digest.cache_clear()
        return weights_code()

    monkeypatch.setattr("safebasin.harness.store.digests._PACKAGE", tmp_path)
    methods = told("methods")
    assert told("geometry") == told("attacks") == methods != told("curvature")
    code_digest.cache_clear()
