"""Responses packed for the browser of responses: what several rows say alike is kept once, in pages of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..judged import FIELDS
from ..records import Verdict
from .contents import Answer, Asked, JudgeNote
from .embed import for_script, visible

__all__ = ["PAGE_BYTES", "Page", "disagreement", "pages"]

PAGE_BYTES = 2_000_000
"""Of JSON on one page; with the charts' library it leaves report.html under 5 MB."""
CHARACTERS = 20_000
"""Shown of one text; the store has the rest."""
RAW_CHARACTERS = 400
"""Shown of a judge's own words."""
WIDEST = 19
"""Bytes of JSON that one character can come to: those of ⟨U+E0001⟩."""


@dataclass
class Page:
    """The prompts of one page."""

    prompts: list[str] = field(default_factory=list)
    """Each as JSON that is fit for a script element."""
    size: int = 0
    first: str = ""
    last: str = ""
    """Which prompts these are, for links to the page."""


def pages(asked: Iterable[Asked], judges: Sequence[JudgeNote], limit: int = PAGE_BYTES) -> Iterator[Page]:
    """The prompts in order, on as many pages as they need.

    A text is cut at `CHARACTERS`, and shorter where all answers to one prompt would not fit on one page otherwise.

    Args:
        asked: the prompts.
        judges: theirs.
        limit: bytes of JSON on a page.
    """
    page = Page()
    for each in asked:
        text = for_script(_packed(each, judges, CHARACTERS, RAW_CHARACTERS))
        if len(text) > limit:
            share = limit // (WIDEST * 4 * max(len(each.answers), 1))
            text = for_script(_packed(each, judges, share, share // max(len(judges), 1)))
        if page.prompts and page.size + len(text) > limit:
            yield page
            page = Page()
        name = visible(f"{each.task} {each.doc_id}", 200)
        page.prompts.append(text)
        page.size += len(text) + 1
        page.first, page.last = page.first or name, name
    if page.prompts:
        yield page


def disagreement(verdicts: Sequence[Verdict], judges: Sequence[JudgeNote]) -> list[str]:
    """The facets on which judges that decide them say different things; an unparsed verdict says nothing."""
    found = []
    for facet, name in FIELDS.items():
        said = {getattr(v, name) for v, judge in zip(verdicts, judges, strict=True) if facet in judge.decides}
        if len(said - {None}) > 1:
            found.append(facet)
    return found


def _packed(asked: Asked, judges: Sequence[JudgeNote], room: int, raw: int) -> dict[str, Any]:
    """One prompt with its different answers, and the rows that gave each."""
    rows: dict[tuple[str, str], list[int]] = {}
    answers: dict[tuple[str, str], Answer] = {}
    for row, answer in asked.answers.items():
        rows.setdefault((answer.text, answer.outcome), []).append(row)
        answers[answer.text, answer.outcome] = answer
    return {
        "model": visible(asked.model),
        "task": visible(asked.task),
        "id": asked.doc_id,
        "prompt": visible(asked.prompt, room),
        "prefix": visible(asked.prefix, room),
        "answers": [
            {
                "text": visible(answer.text, room),
                "outcome": answer.outcome.value,
                "rows": rows[key],
                "disagree": disagreement(answer.verdicts, judges),
                "verdicts": [_verdict(verdict, raw) for verdict in answer.verdicts],
            }
            for key, answer in answers.items()
        ],
    }


def _verdict(verdict: Verdict, raw: int) -> list[Any]:
    """[harmful, refused, coherent, score, categories, raw]."""
    score = None if verdict.score is None or verdict.score != verdict.score else round(verdict.score, 4)
    categories = visible(", ".join(verdict.categories), raw)
    return [verdict.harmful, verdict.refused, verdict.coherent, score, categories, visible(verdict.raw, raw)]
