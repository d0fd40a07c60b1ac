"""Two data-parallel ranks give what one gives: every request once, each answer at its request, in order."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safebasin.tasks.judging import JUDGES_VARIABLE

from ..conftest import guard

SCRIPT = Path(__file__).with_name("two_ranks.py")
Found = tuple[dict[str, Any], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, xstest_csv: Path) -> dict[tuple[str, int], Found]:
    """The scores and the logged samples of each command on one rank and on two."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", JUDGES_VARIABLE: '["keywords"]'}
    found, settings = {}, [("safebasin", 1), ("safebasin", 2), ("lm_eval", 2)]
    for command, ranks in settings:
        folder = tmp_path_factory.mktemp(f"{command}{ranks}")
        running = [
            subprocess.Popen(
                [sys.executable, str(SCRIPT), command, str(rank), str(ranks), str(folder), str(xstest_csv)],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for rank in range(ranks)
        ]  # fmt: skip
        for process in running:
            printed, _ = process.communicate(timeout=guard())
            assert process.returncode == 0, printed
        ((results,), (samples,)) = (list(folder.rglob(name)) for name in ("results_*.json", "samples_*.jsonl"))
        lines = samples.read_text(encoding="utf-8").splitlines()
        found[command, ranks] = json.loads(results.read_text(encoding="utf-8")), [json.loads(line) for line in lines]
    return found


def test_two_ranks_agree_with_one_to_the_order_of_the_samples(runs: dict[tuple[str, int], Found]) -> None:
    (one, samples), (two, others) = runs["safebasin", 1], runs["safebasin", 2]
    assert [row["doc_id"] for row in samples] == list(range(7))
    assert others == samples, "7 requests on 2 ranks: one rank is padded, and the padding must not show"
    assert two["results"]["xstest_safe"] == one["results"]["xstest_safe"]
    assert two["task_hashes"] == one["task_hashes"]
    assert one["results"]["xstest_safe"]["over_refusal,judged"] == 3 / 7
    for row in samples:
        record = json.loads(row["filtered_resps"][0][0])
        assert record["response"].endswith(row["doc"]["prompt"])
        assert (record["outcome"] == "refused") == bool(int(row["doc"]["row"]) % 2)


def test_plain_lm_eval_has_the_same_samples_rank_by_rank(runs: dict[tuple[str, int], Found]) -> None:
    (one, samples), (two, others) = runs["safebasin", 1], runs["lm_eval", 2]
    assert [row["doc_id"] for row in others] == [0, 2, 4, 6, 1, 3, 5]
    assert sorted(others, key=lambda row: int(row["doc_id"])) == samples
    assert two["results"]["xstest_safe"] == one["results"]["xstest_safe"]
