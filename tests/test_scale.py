"""docs/scale.md: its minutes are those of the model of the work."""

import re
from pathlib import Path

import pytest
from safebasin.harness.stages.costs import Work, answering_seconds, judging_seconds, training_seconds
from safebasin.harness.stages.estimates import AT_ONCE
from safebasin.harness.stages.known import DEVICES, ROWS, known_requests, known_size

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("column", "name"), enumerate(["Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.1-70B-Instruct"])
)
def test_the_minutes_of_the_table(column: int, name: str) -> None:
    size, guard = known_size(name), known_size("meta-llama/Llama-Guard-3-8B")
    assert size is not None
    assert guard is not None
    device, rows = DEVICES["h100"], ROWS["dolly"]

    def work(task: str, new: int) -> list[Work]:
        requests = known_requests(task, None)
        assert requests is not None
        return [Work(requests, 128, new)]

    expected = [
        training_seconds(rows.number, rows.tokens, 16, size, device),
        *(answering_seconds(work(task, new), size, device, AT_ONCE) for task, new in
          (("advbench_hrr", 256), ("gsm8k", 256), ("arc_challenge", 0), ("visage", 512))),
        judging_seconds(work("visage", 512), guard, device),
    ]  # fmt: skip
    table = PAGE.split("| once for each row |")[1].split("\n\n")[0]
    found = [row.split("|")[2 + column].strip() for row in table.splitlines()[2:]]
    assert found == [f"{seconds / 60:.1f}" for seconds in expected]
    assert all(str(work(task, 0)[0].requests) in PAGE for task in re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
