"""Two data-parallel ranks give what one gives: every request once, each answer at its request."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from safebasin.tasks.judging import JUDGES_VARIABLE

SCRIPT = Path(__file__).with_name("two_ranks.py")


def in_processes(ranks: int, folder: Path, xstest_csv: Path) -> None:
    command = [sys.executable, str(SCRIPT)]
    running = [
        subprocess.Popen(
            [*command, str(rank), str(ranks), str(folder), str(xstest_csv)],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    for process in running:
        printed, _ = process.communicate(timeout=240)
        assert process.returncode == 0, printed


def test_two_ranks_agree_with_one(tmp_path: Path, xstest_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JUDGES_VARIABLE, '["keywords"]')
    in_processes(2, tmp_path, xstest_csv)
    runpy.run_path(str(SCRIPT))["run"](0, 1, tmp_path, str(xstest_csv))
    one, two = (json.loads((tmp_path / f"of_{ranks}.json").read_text()) for ranks in (1, 2))
    assert two["results"]["xstest_safe"]["over_refusal,judged"] == one["results"]["xstest_safe"]["over_refusal,judged"]
    assert one["results"]["xstest_safe"]["over_refusal,judged"] == 3 / 7
    assert [row["doc_id"] for row in one["samples"]] == list(range(7))
    samples = sorted(two["samples"], key=lambda row: int(row["doc_id"]))
    assert samples == one["samples"], "7 requests on 2 ranks: one rank is padded, and the padding must not show"
    for row in samples:
        record = json.loads(row["filtered_resps"][0][0])
        assert record["response"].endswith(row["doc"]["prompt"])
        assert (record["outcome"] == "refused") == bool(int(row["doc"]["row"]) % 2)
