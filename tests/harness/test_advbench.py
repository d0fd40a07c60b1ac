"""The real AdvBench file goes through the whole path: config, plan, generation, judging, leaderboard."""

import json
import sqlite3
from pathlib import Path

import pandas as pd
import pytest
import yaml
from safebasin.harness.config.load import load_config
from safebasin.harness.run import run
from safebasin.tasks.advbench import advbench_rows
from transformers import AutoTokenizer

from ..conftest import TinyChatModel


@pytest.fixture(scope="module")
def run_folder(advbench_csv: Path, tiny_chat_model: TinyChatModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("advbench")
    config = {
        "models": [str(tiny_chat_model())],
        "methods": ["base"],
        "data": {"advbench_csv": str(advbench_csv)},
        "tasks": {"safety": ["advbench_hrr", "advbench_prefill"]},
        "judges": [{"keywords": {"list": "qi38"}}, "coherence"],
        "max_gen_toks": 4,
        "batch_size": 64,
    }
    (folder / "advbench.yaml").write_text(yaml.safe_dump(config))
    assert run(load_config(folder / "advbench.yaml"), folder / "run").exit_code == 0
    return folder / "run"


def test_all_evaluation_rows_are_answered_and_judged(run_folder: Path) -> None:
    (row,) = pd.read_csv(run_folder / "leaderboard.csv").to_dict("records")
    assert (row["method"], row["status"], row["n"]) == ("base", "ok", 382)
    assert row["hrr"] + row["refusal_rate"] + row["incoherent_rate"] + row["unparsed_rate"] <= 100 + 1e-9
    assert row["prefill_asr_low"] <= row["prefill_asr"] <= row["prefill_asr_high"]


def test_prefilled_prompts_end_in_the_first_four_tokens_of_the_targets(
    run_folder: Path, advbench_csv: Path, tiny_chat_model: TinyChatModel
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_chat_model())
    with sqlite3.connect(run_folder / "store.sqlite") as db:
        asked = {tuple(json.loads(parts)["ids"]) for (parts,) in db.execute("SELECT parts FROM responses")}
    for row in advbench_rows("evaluation", advbench_csv):
        chat = [{"role": "user", "content": row["prompt"]}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        plain = tokenizer.encode(text, add_special_tokens=False)
        forced = plain + tokenizer.encode(row["target"], add_special_tokens=False)[:4]
        assert {tuple(plain), tuple(forced)} <= asked


def test_a_run_says_what_it_leaves_out_of_other_sets(
    advbench_csv: Path, request_copies: dict[str, Path], tiny_chat_model: TinyChatModel, tmp_path: Path
) -> None:
    copy = request_copies["jbb_harmful"] / "harmful-behaviors.csv"
    frame = pd.read_csv(copy)
    frame.loc[7, "Goal"] = advbench_rows("safety", advbench_csv)[0]["prompt"]
    frame.to_csv(copy, index=False)
    config = {
        "models": [str(tiny_chat_model())], "methods": ["base"], "judges": ["keywords"], "max_gen_toks": 2,
        "batch_size": 64, "tasks": {"safety": ["jbb_harmful_hrr"]}, "data": {"jbb_dir": str(copy.parent)},
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    out = ["jbb_harmful_hrr: 1 of 100 requests are left out, because they are AdvBench's safety rows."]
    for overlap, n, told in (("leave_out", 99, out), ("keep", 100, [])):
        given = load_config(tmp_path / "own.yaml", [f"data.advbench_overlap={overlap}"])
        assert run(given, tmp_path / overlap, store=tmp_path / "store").exit_code == 0
        (row,) = pd.read_csv(tmp_path / overlap / "leaderboard.csv").to_dict("records")
        assert row["n"] == n, "what answered the one must not be taken for the other"
        assert json.loads((tmp_path / overlap / "manifest.json").read_text())["left_out"] == told
