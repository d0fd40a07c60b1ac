"""`safebasin judge`: a further judge for a run or for lm-eval's samples, and a judge's own test against labels."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ...errors import InputError
from ...judges.base import Exchange, RemoteJudge
from ...results.judge_error import Accuracy, Judged, accuracy
from ...results.judging_view import print_agreement, print_rates
from ...tasks.rows.reader import read_rows
from ...tasks.verdicts import JudgeSpec, build_judges, judge_each, judge_types
from ..config.file import read_value
from ..terminal.progress import bars
from ..terminal.quiet import quiet
from .shared import folded

__all__ = ["check_judge", "judge_run", "judge_samples", "read_judge"]

SHOWN = 5
"""Rows listed that a judge gets wrong."""
_FORM = "Write a name, or a name with its settings, as in 'keywords={list: gcg29}'."


def read_judge(text: str, option: str = "--judge") -> JudgeSpec:
    """Reads `keywords`, `keywords={list: gcg29}`, or as in a config `{keywords: {list: gcg29}}`.

    Raises:
        InputError: it is of another form.
    """
    name, equals, settings = text.partition("=")
    whole = not equals or name.lstrip().startswith("{")
    try:
        value = read_value(text if whole else settings)
    except yaml.YAMLError as error:
        raise InputError(f"{option} '{text}' is no YAML ({' '.join(str(error).split())}). {_FORM}") from error
    spec = value if whole else {name.strip(): value}
    if isinstance(spec, str):
        return spec
    if not isinstance(spec, dict) or len(spec) != 1 or not all(v is None or isinstance(v, dict) for v in spec.values()):
        raise InputError(f"{option} '{text}' is no judge with settings. {_FORM}")
    return spec


def judge_run(folder: Path, specs: Sequence[JudgeSpec], console: Console, store: Path | None) -> None:
    """Lets further judges judge a finished run, and reports it anew.

    Raises:
        InputError: as `add_judges` and `report`.
    """
    from ..stages.rejudge import add_judges
    from ..stages.report import report

    judge_types(specs, whole=False)
    add_judges(folder, specs, console, store)
    report(folder, console, store)


def judge_samples(
    where: Path, specs: Sequence[JudgeSpec], columns: Mapping[str, str], output: Path | None, console: Console
) -> None:
    """Judges lm-eval's samples, and prints rates and agreement.

    Raises:
        InputError: as `judge_logged`.
    """
    from ..stages.judging_logged import judge_logged

    judge_types(specs, whole=False)
    rates, agreement, differ = judge_logged(where, specs, columns, output, console)
    print_rates(rates, console)
    print_agreement(agreement, differ, console)
    folder = output or (where.parent if where.is_file() else where)
    console.print(Text(f"In {folder}: judged-rates.csv, judged-verdicts.csv"), soft_wrap=True)


def check_judge(spec: JudgeSpec, source: str, columns: Mapping[str, str], console: Console) -> Accuracy:
    """Runs a judge on labelled rows and prints what it gets right.

    Args:
        spec: as in a config.
        source: file of rows, or a data set on the hub, with prompt, response and harmful.
        columns: role -> column, where the names do not tell.
        console: where to.

    Raises:
        InputError: the rows cannot be used, or the judge cannot be had or does not decide harm.
    """
    (kind, _), *_rest = judge_types([spec], whole=False)
    if "harm" not in kind.decides:
        raise InputError(f"The judge '{kind.name}' decides {', '.join(sorted(kind.decides))}, and labels are of harm.")
    read = read_rows(source, ("prompt", "response", "harmful"), columns)
    console.print(Text(read.said), soft_wrap=True)
    quiet()
    (judge,) = build_judges([spec], whole=False)
    exchanges = [Exchange(row["prompt"], row["response"]) for row in read.rows]
    with bars(console) as shown:
        if isinstance(judge, RemoteJudge):
            shown.say(f"[yellow]{escape(judge.notice)}[/yellow]")
        total = len({*exchanges})
        shown.update(judge.name, 0, total)
        try:
            verdicts = judge_each(judge, exchanges, on_progress=lambda own, done: shown.update(own.name, done, total))
        finally:
            judge.close()
    rows = [Judged(v.harmful, row["harmful"]) for v, row in zip(verdicts, read.rows, strict=True)]
    found = accuracy(rows)
    console.print(Text(f"{judge.name} on {len(rows)} rows, {found.yes} labelled harmful", style="bold"))
    console.print(_accuracy_table(found, rows))
    for line in _wrong(rows, read.rows):
        console.print(Text(line), soft_wrap=True)
    for line in (*_EXPLAINED, *_left_out(read.rows)):
        console.print(Text(line, style="dim"))
    return found


_EXPLAINED = (
    "sensitivity: of the rows labelled harmful, the share that the judge calls harmful; specificity: of the others, "
    "the share that it calls safe. Percent with the Wilson 95 % interval; an unparsed verdict is neither: it widens "
    "the interval upwards.",
    "Both are of texts like these: on answers of another kind the judge may err more.",
)


def _left_out(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    turns = sum("before" in row for row in rows)
    return [f"{turns} rows have earlier turns or a system message, which judges do not see."] if turns else []


def _accuracy_table(found: Accuracy, rows: Sequence[Judged]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, head in enumerate(("", "of", "right", "unparsed", "share [95 %]")):
        table.add_column(head, justify="left" if place == 0 else "right")
    for name, share, label in (("sensitivity", found.sensitivity, True), ("specificity", found.specificity, False)):
        own = [row.verdict for row in rows if row.label is label]
        shown = "-" if share is None else f"{share.value:.1f} [{share.low:.1f}, {share.high:.1f}]"
        table.add_row(name, *map(str, (len(own), own.count(label), own.count(None))), shown)
    return table


def _wrong(rows: Sequence[Judged], given: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Which rows the judge gets wrong, with the beginning of the prompt."""
    for words, verdict, label in (
        ("missed", False, True), ("false alarms", True, False), ("unparsed", None, True), ("unparsed", None, False),
    ):  # fmt: skip
        own = [i for i, row in enumerate(rows) if row.verdict is verdict and row.label is label]
        if own:
            kind = f" (labelled {'harmful' if label else 'harmless'})" if verdict is None else ""
            yield f"{words}{kind}: {len(own)}"
        for i in own[:SHOWN]:
            yield f"  row {i + 1}: {folded(given[i]['prompt'])}"
        if len(own) > SHOWN:
            yield f"  and {len(own) - SHOWN} more"
