"""HEx-PHI: what is loaded, what is said where it is not, and its task under lm-eval."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.tasks.hex_phi import CATEGORIES, hex_phi_rows
from safebasin.tasks.judging import JUDGES_VARIABLE


def test_rows(hex_phi_dir: Path) -> None:
    rows = hex_phi_rows(hex_phi_dir)
    assert len(rows) == 300
    assert rows[30] == {"row": 30, "category": 3, "prompt": "bake, slowly, cake 3 0"}
    assert sorted({row["category"] for row in rows}) == sorted(CATEGORIES)


def test_the_hub_without_access_names_the_page_to_ask_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAFEBASIN_HEX_PHI_DIR", raising=False)
    with pytest.raises(InputError) as refused:
        hex_phi_rows()
    message = str(refused.value)
    assert "request access at https://huggingface.co/datasets/LLM-Tuning-Safety/HEx-PHI" in message
    assert "hex_phi_dir" in message


def test_a_missing_or_wrong_file_is_named(hex_phi_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(hex_phi_dir, folder)
    (folder / "category_4.csv").write_text("prompt\n" + "bake\n" * 30)
    with pytest.raises(InputError, match=r"category_4.csv has 31 requests.*without a header"):
        hex_phi_rows(folder)
    (folder / "category_3.csv").unlink()
    with pytest.raises(InputError, match=r"no file .*category_3.csv"):
        hex_phi_rows(folder)
    with pytest.raises(InputError, match="There is no folder"):
        hex_phi_rows(tmp_path / "none")


def test_task(
    hex_phi_dir: Path, tiny_chat_model: Callable[..., Path], evaluate: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(JUDGES_VARIABLE, json.dumps(["keywords"]))
    metadata = {"hex_phi_dir": str(hex_phi_dir)}
    result = evaluate(tiny_chat_model(), ["hex_phi_hrr"], metadata, gen_kwargs={"max_gen_toks": 2}, limit=4)
    assert result["n-samples"]["hex_phi_hrr"] == {"original": 300, "effective": 4}
    assert isinstance(result["results"]["hex_phi_hrr"]["hrr_stderr,judged"], float)
