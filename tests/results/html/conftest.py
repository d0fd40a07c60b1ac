from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safebasin.results.agreement import agreement_table
from safebasin.results.html import Answer, Asked, JudgeNote, Report, Source, write_report
from safebasin.results.judge_table import judge_errors, judge_table
from safebasin.results.judged import JudgedRow, JudgedTask
from safebasin.results.labels import Label, LabelSet
from safebasin.results.leaderboard import leaderboard
from safebasin.results.method_result import MethodResult, SweepSample
from safebasin.results.records import Outcome, Verdict

JUDGES = (
    JudgeNote("guard", frozenset({"harm"})),
    JudgeNote("words", frozenset({"harm", "refusal"})),
)
METHODS = {"base": ("base", "RRRRRRRB"), "lora": ("fine-tuning", "HHHHHIUB"), "repaired": ("post-hoc", "HRRRRRIB")}
TEXTS = {
    "R": "i cannot help with that .",
    "H": "step one : lift the red lever .",
    "I": "the the",
    "U": "?",
    "B": "a tale",
}
LETTERS = {outcome.value[0].upper(): outcome for outcome in reversed(Outcome)} | {"T": Outcome.UNFINISHED}


def answer(letter: str, text: str | None = None) -> Answer:
    harmful = None if letter == "U" else letter == "H"
    verdicts = (
        Verdict(
            harmful=harmful, score=0.9 if harmful else 0.1, categories=("S2",) if harmful else (), raw="unsafe\nS2"
        ),
        Verdict(harmful=letter != "R", refused=letter == "R"),
    )
    return Answer(TEXTS[letter] if text is None else text, LETTERS[letter], verdicts)


def asked(rows: dict[int, str], doc_id: int, prompt: str = "", prefix: str = "", task: str = "toy_hrr") -> Asked:
    """`rows`: number of the row -> the letter of its outcome."""
    answers = {row: answer(letter) for row, letter in rows.items()}
    return Asked("toy", task, doc_id, prompt or f"how do i open box {doc_id} ?", prefix, answers)


LABELS = {0: Label(True), 1: Label(False), 5: Label(True), 6: Label(False)}


def judged(method: str, letters: str) -> JudgedRow:
    """What `answer` says of each letter, of one task."""
    verdicts = {i: answer(letter).verdicts for i, letter in enumerate(letters)}
    task = JudgedTask("toy_hrr", "hrr", verdicts, {i: f"{method} {i}" for i in verdicts})
    return JudgedRow("sandbox", method, 0, JUDGES, [task])


def swept(harmful: float) -> list[SweepSample]:
    """Every response is harmful beyond 1 - `harmful`."""
    outcomes = [Outcome.REFUSED, Outcome.HARMFUL]
    return [
        SweepSample(p, d, a, outcomes[abs(a) > 1 - harmful], abs(a) > 1 - harmful, -2.0, 4)
        for p in range(3) for d in range(2) for a in (-1.0, -0.5, 0.0, 0.5, 1.0)
    ]  # fmt: skip


@pytest.fixture
def results(make: Callable[..., MethodResult]) -> list[MethodResult]:
    """Base, fine-tuned and repaired, with everything that has a chart."""
    found = [
        make(
            *(name, stage),
            **{"hrr": letters, "prefill": letters, "over_refusal": "B" * 7 + "R", "sweep": swept(0.2 * i)},
            **{"metrics": {"facts": 90.0 - i, "eval_loss": 1.0 / (i + 1), "boolq_fewshot": i - 1.0}},
            **{"minutes": None if i == 0 else 2.5},
        )
        for i, (name, (stage, letters)) in enumerate(METHODS.items())
    ]
    for result in found:
        kinds = [replace(sample, category="ab"[sample.doc_id % 2]) for sample in result.safety["hrr"]]
        result.safety["hrr"] = kinds  # type: ignore[index]  # what `make` gives is a dict
    return found


@pytest.fixture
def report(results: list[MethodResult]) -> Report:
    letters = [outcomes for _, outcomes in METHODS.values()]
    prompts = [asked({row: letters[row][i] for row in range(3)}, i) for i in range(8)]
    forced = [asked({0: "R", 1: "H", 2: "R"}, i, prefix="step one", task="toy_prefill") for i in range(8)]
    source = Source("run", {"safebasin": "0.1.0", "models": {"toy": {"digest": "a" * 64}}}, "name: toy\n", ["make it"])
    rows = [judged(method, letters) for method, (_, letters) in METHODS.items()]
    labels = LabelSet("oracle", {("sandbox", row.method, 0, "toy_hrr"): LABELS for row in rows})
    return Report(
        results=results, frame=leaderboard(results), judges=JUDGES, asked=[*prompts, *forced],
        starts={"repaired": "lora"}, sources=[source], judge_rates=judge_table(rows, labels),
        judge_errors=judge_errors(rows, labels), agreement=agreement_table(rows, over_worlds=False),
    )  # fmt: skip


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the charts' library is kept; bundled once in all tests."""
    return tmp_path_factory.mktemp("library")


Write = Callable[..., Path]


@pytest.fixture
def write(report: Report, library: Path, tmp_path: Path) -> Write:
    """Writes the report, with changes, and returns the path of report.html."""

    def written(**changes: Any) -> Path:
        return write_report(replace(report, **changes), tmp_path, library)[0]

    return written
