"""Text of others is inert wherever it is shown: one test over all outputs and all kinds of hostile text."""

import csv
import gc
import io
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from safebasin.harness.terminal.console import safe_console
from safebasin.harness.terminal.progress import bars
from safebasin.results.aggregate import aggregate, write_aggregate
from safebasin.results.export import csv_text, read_csv, write_csv, write_markdown
from safebasin.results.frontier import frontier
from safebasin.results.html import Answer, Asked, JudgeNote, Report, Source, write_report
from safebasin.results.latex import latex_table
from safebasin.results.leaderboard import leaderboard
from safebasin.results.method_result import MethodResult
from safebasin.results.model_card import Card, Figure, write_card
from safebasin.results.records import Outcome, Verdict
from safebasin.results.replicas import replicas
from safebasin.results.replicas_view import write_replicas
from safebasin.results.terminal import render
from safebasin.results.text import csv_cell, from_csv_cell, storable, visible

Make = Callable[..., MethodResult]
HARMLESS = "plain"
HOSTILE = {
    "ansi": "\x1b[31mred\x1b[2J\x1b]0;title\x07\x9b1m",
    "rich": "[bold red]x[/] [link=http://x]y[/link] [/nothing]",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)> &lt;b&gt; \"' </script><!--",
    "markdown": "[a](javascript:x) ![i](http://x/y.png) `code` <b> | x | \\| | # h",
    "formula": "=HYPERLINK(\"http://x\",\"y\")",
    "plus": "+1+1", "minus": "-1+cmd|' /C calc'!A0", "at": "@SUM(1)", "tab": "\t=1+1", "wide": "＝1+1",
    "quote": "'=1+1",
    "latex": "\\input{/etc/passwd} $x$ %a & b # _ ^^5c {} ~ \\\\[2em] * [x]",
    "nul": "a\x00b\x08\x08c\rd", "surrogate": "a\ud800b\udfff", "rtl": "\u202egnp.exe\u2066\u200b\ufeff\u200f",
    "lines": "a\nb\r\nc\u2028d\x85e\x0bf", "million": "x" * 1_000_000, "million_lines": "=\n|<" * 250_000,
    "tags": "".join(chr(0xE0000 + ord(char)) for char in "hidden"),
}  # fmt: skip
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
CLAIMS: list[pd.DataFrame] = []
LONGEST = 5_000_000
"""Bytes of any output, whatever a model wrote."""


def rows(make: Make, text: str) -> list[MethodResult]:
    """Three seeds of methods, models and a task that are called by the text, and a row that failed because of it."""
    return [
        *(make("lora", "fine-tuning", model=text, seed=seed, hrr="HHRR", metrics={text: 1.0}) for seed in range(3)),
        *(make(f"{text}", model=text, seed=seed, hrr="RRRR", metrics={text: 2.0}) for seed in range(3)),
        make("lost", model=text, status=f"failed: {text}"),
    ]


def claims(make: Make, text: str) -> pd.DataFrame:
    """The table over worlds; its bootstrap is drawn once."""
    if not CLAIMS:
        CLAIMS.append(replicas(rows(make, HARMLESS)[:6], "lora"))
    return CLAIMS[0].replace(HARMLESS, storable(text))


def terminal(make: Make, text: str, folder: Path) -> str:
    console = safe_console(file=io.StringIO(), width=100)
    render(leaderboard(rows(make, text)), console, notes=[text[:5000]])
    with bars(console) as shown:
        shown.update(text[:5000], 0, 2)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def tables(make: Make, text: str, folder: Path) -> str:
    """All CSV, one after the other."""
    results = rows(make, text)
    write_csv(leaderboard(results), folder / "leaderboard.csv")
    write_aggregate(aggregate(results), folder / "seeds.csv")
    (folder / "frontier.csv").write_text(csv_text(frontier(results, {text: (text, 0.1)})), newline="")
    write_replicas(claims(make, text), folder / "replicas.csv", {text: [text]})
    return "".join(path.read_bytes().decode() for path in sorted(folder.glob("*.csv")))


def markdown(make: Make, text: str, folder: Path) -> str:
    tables(make, text, folder)
    write_markdown(leaderboard(rows(make, text)), folder / "leaderboard.md")
    return "\n".join(path.read_bytes().decode() for path in sorted(folder.glob("*.md")))


def card(make: Make, text: str, folder: Path) -> str:
    figure = Figure("harm", "hrr", text, 1.0, 10, 0.0, 2.0, {text: "1"})
    write_card(folder, Card(name=text, base=text, adapter=True, done=["x"], settings={text: text}, figures=[figure]))
    return (folder / "README.md").read_bytes().decode()


def page(make: Make, text: str, folder: Path) -> str:
    """Names are of a config's length; texts are as long as a model makes them."""
    name = text[:300]
    results = rows(make, name)
    said = Verdict(harmful=True, raw=text, categories=(text,))
    asked = Asked(name, name, 0, text, text, {i: Answer(text, Outcome.HARMFUL, (said,)) for i in range(6)})
    source = Source(name, {"models": {name: {"digest": name}}}, name, [name])
    judges = [JudgeNote(name, frozenset({"harm"}))]
    report = Report(results=results, frame=leaderboard(results), judges=judges, asked=[asked], sources=[source])
    write_report(report, folder, folder / "cache")
    return (folder / "report.html").read_bytes().decode()


def latex(make: Make, text: str, folder: Path) -> str:
    return latex_table(leaderboard(rows(make, text)))


def check_terminal(shown: str, plain: str) -> None:
    assert "[bold red]x[/]" in shown or "bold red" not in shown, "markup is not followed"
    assert all(len(line) <= 100 or not line.startswith("─") for line in shown.splitlines())


def check_csv(shown: str, plain: str) -> None:
    csv.field_size_limit(131_072)  # Python's own
    found, wanted = (list(csv.reader(io.StringIO(text), strict=True)) for text in (shown, plain))
    assert [len(row) for row in found] == [len(row) for row in wanted]
    for cell in (cell for row in found for cell in row):
        assert not re.match("[=+@\t\r＝＋－＠]", cell)
        assert not cell.startswith("-") or re.fullmatch(r"-?[\d.]+(e[+-]\d+)?|-inf", cell)


def check_markdown(shown: str, plain: str) -> None:
    """As many lines and cells as with a plain name, no markup of others; a card's metadata are read elsewhere."""
    shown, plain = (text.split("\n---\n", 1)[-1] for text in (shown, plain))
    bare = re.sub(r"`[^`\n]*`", "", shown)  # a reason stands as code
    bare = re.sub(r"\\.", "", bare)
    assert [line.count("|") for line in bare.splitlines()] == [
        line.count("|") for line in re.sub(r"\\.", "", re.sub(r"`[^`\n]*`", "", plain)).splitlines()
    ]
    found = re.search(r"<(?!!-- Written by)|\]\(|`", bare)
    assert found is None, bare[max(0, found.start() - 60) : found.end() + 60]


def check_html(shown: str, plain: str) -> None:
    class Tags(HTMLParser):
        def __init__(self, text: str) -> None:
            super().__init__()
            self.tags: set[tuple[str, ...]] = set()
            self.feed(text)

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.add((tag, *sorted(name for name, _ in attrs)))

    assert Tags(shown).tags <= Tags(plain).tags
    assert shown.count("</script") == plain.count("</script")


def check_latex(shown: str, plain: str) -> None:
    assert len(shown.splitlines()) == len(plain.splitlines())
    commands = set(re.findall(r"\\[a-z]+", shown)) - set(re.findall(r"\\[a-z]+", plain))
    assert all(command == "\\char" or command.startswith("\\text") for command in commands)
    bare = re.sub(r"\\[&%$#_{}]", "", shown)
    depth = 0
    for char in bare:
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0


OUTPUTS = {
    terminal: check_terminal, tables: check_csv, markdown: check_markdown, card: check_markdown, page: check_html,
    latex: check_latex,
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The charts' library is no text of others, and large."""
    monkeypatch.setattr("safebasin.results.html.page.chart_library", lambda cache: "window.vegaEmbed = null;")


@pytest.fixture(scope="module", autouse=True)
def few_to_collect() -> Iterator[None]:
    """statsmodels collects garbage at every correction; what the imports left need not be looked through each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def plain() -> dict[str, str]:
    """What each output is with a harmless name, by the output's name."""
    return {}


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.__name__)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_inert(
    make: Make, tmp_path: Path, plain: dict[str, str], output: Callable[..., str], kind: str
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "hostile").mkdir()
    if output.__name__ not in plain:
        plain[output.__name__] = output(make, HARMLESS, tmp_path / "plain")
    shown = output(make, HOSTILE[kind], tmp_path / "hostile")
    assert not UNSEEN.search(shown.replace("\r\n", "\n"))
    assert len(shown.encode()) < LONGEST
    OUTPUTS[output](shown, plain[output.__name__])


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if not kind.startswith("million")])
def test_a_cell_of_csv_comes_back(kind: str) -> None:
    assert from_csv_cell(csv_cell(HOSTILE[kind])) == visible(HOSTILE[kind])


@pytest.mark.parametrize("kind", ["formula", "plus", "minus", "at", "quote", "html", "markdown"])
def test_a_leaderboard_of_such_names_comes_back(make: Make, tmp_path: Path, kind: str) -> None:
    frame = leaderboard(rows(make, HOSTILE[kind]))
    write_csv(frame, tmp_path / "leaderboard.csv")
    back = read_csv(tmp_path / "leaderboard.csv")
    assert back["method"].tolist() == frame["method"].tolist()
    assert list(back.columns) == list(frame.columns)


def test_styles_of_our_own_reach_the_terminal_and_codes_of_others_do_not() -> None:
    console = safe_console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard")
    console.print("[red]ours[/red] \x1b]0;theirs\x07")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[31mours\x1b[0m" in text
    assert "⟨U+001B⟩" in text
    assert "\x1b]" not in text


def test_no_color_is_heeded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR no colours are sent; in a pipe nothing but text is."""
    monkeypatch.setenv("NO_COLOR", "1")
    frame = leaderboard(rows(make, "m"))
    for terminal, codes in ((True, "\x1b[3"), (False, "\x1b")):
        console = Console(file=io.StringIO(), width=100, force_terminal=terminal)
        render(frame, console)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert codes not in text
        assert max(map(len, re.sub(r"\x1b\[[\d;]*m", "", text).splitlines())) <= 100


def test_a_name_between_colons_is_no_picture() -> None:
    console = safe_console(file=(shown := io.StringIO()), width=100)
    console.print("sandbox:100: answer")
    assert shown.getvalue() == "sandbox:100: answer\n"
