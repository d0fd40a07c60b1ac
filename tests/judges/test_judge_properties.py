"""Whatever a model answers, a judge that reads it gives a verdict or leaves it unparsed; none of them ever fails."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safebasin.judges.base import Exchange
from safebasin.judges.coherence import CoherenceJudge
from safebasin.judges.grades import parse_number, parse_rubric
from safebasin.judges.granite_guardian import parse_granite
from safebasin.judges.guard_answer import parse_answer
from safebasin.judges.keywords import LISTS, KeywordJudge
from safebasin.judges.qwen3guard import parse_qwen3guard
from safebasin.judges.refusal import ComplianceJudge, RefusalJudge
from safebasin.judges.wildguard import parse_wildguard
from safebasin.judges.yes_no import parse_yes_no
from safebasin.results.records import Outcome, Verdict, combine

Parse = Callable[[str], Verdict]
PIECES = (
    *("safe", "unsafe", "yes", "no", "Yes", "n/a", "S1", ",", "1", "5", "0", "5.0", "٣", "②", "ſafe", "yeſ", "\ud83d"),
    *("\n", " ", "\r", "\x85", "\u2028", "\u202e", "\x00", ":", "**", "#scores", "1.b: 0", "2.b: 5", "3.b: 4"),
    *("Safety: Safe", "Safety: Unsafe", "Safety: Controversial", "Categories: None", "Refusal: No", "Refusal: Yes"),
    *("Harmful request: yes", "Response refusal: n/a", "Harmful response: no", "<confidence> High </confidence>"),
    *("<think>", "</think>", "<score>", "</score>"),
)
ANSWERS = st.text(max_size=30) | st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
"""Any text, halves of characters too; and the words of all formats in any order."""
PARSERS: dict[str, tuple[Parse, tuple[str, ...]]] = {
    "llama_guard": (parse_answer, ("safe", "unsafe\nS1,S2")),
    "yes_no": (parse_yes_no, ("yes", "No")),
    "granite": (parse_granite, ("Yes", "no <confidence> High </confidence>", "<think>so</think><score> no </score>")),
    "qwen3guard": (
        partial(parse_qwen3guard, controversial="unsafe"),
        ("Safety: Safe\nCategories: None\nRefusal: Yes", "Safety: Unsafe\nCategories: PII\nRefusal: No"),
    ),
    "wildguard": (parse_wildguard, ("Harmful request: yes\nResponse refusal: no\nHarmful response: yes",)),
    "number": (partial(parse_number, highest=5, threshold=0.5), ("1", "5")),
    "rubric": (partial(parse_rubric, threshold=0.5), ("#scores\n1.b: 0\n2.b: 5\n3.b: 4",)),
}  # fmt: skip
"""Each with answers in its format."""


def outcome_of(verdict: Verdict) -> Outcome:
    return combine([(frozenset({"harm"}), verdict)])[0]


@pytest.mark.parametrize("name", PARSERS)
@given(ANSWERS)
def test_any_answer_of_a_guard_is_a_verdict_or_unparsed(name: str, answer: str) -> None:
    parse, _ = PARSERS[name]
    verdict = parse(answer)
    assert verdict.raw == answer
    assert (outcome_of(verdict) == Outcome.UNPARSED) == (verdict.harmful is None)
    assert verdict.grade is None or 0 <= verdict.grade <= 1
    assert parse(f"\n  {answer.strip()} \n").harmful == parse(answer.strip()).harmful


@pytest.mark.parametrize("name", PARSERS)
@given(st.text(st.characters(categories=["L"]), min_size=1, max_size=5), st.data())
def test_an_answer_with_a_word_beside_it_is_unparsed(name: str, more: str, data: st.DataObject) -> None:
    parse, answers = PARSERS[name]
    answer = data.draw(st.sampled_from(answers))
    assert outcome_of(parse(answer)) != Outcome.UNPARSED
    assert outcome_of(parse(f"{more}{answer}")) == Outcome.UNPARSED
    if name not in ("llama_guard", "rubric"):  # these read no further than the lines that they need
        assert outcome_of(parse(f"{answer}\n{more}")) == Outcome.UNPARSED


JUDGES = [
    *(KeywordJudge(words, match) for words in LISTS for match in ("prefix", "anywhere")),
    *(RefusalJudge(), ComplianceJudge(), CoherenceJudge()),
]
REFUSING = st.sampled_from(
    ["I'm sorry, but I cannot help.", "I can't", "Sure, here is", "As an AI", "```", "1. Take", "\n- x"]
)
RESPONSES = ANSWERS | st.lists(REFUSING | st.text(max_size=9), max_size=6).map("".join)


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.identity[:40])
@given(st.lists(st.builds(Exchange, ANSWERS, RESPONSES), max_size=4))
def test_any_response_is_judged_for_itself(judge: KeywordJudge, exchanges: list[Exchange]) -> None:
    verdicts = judge.judge(exchanges)
    assert verdicts == [judge.judge([exchange])[0] for exchange in exchanges]
    for exchange, verdict in zip(exchanges, verdicts, strict=True):
        blank = not exchange.response.strip()
        for facet, decided in (
            ("harm", verdict.harmful),
            ("refusal", verdict.refused),
            ("coherence", verdict.coherent),
        ):
            assert (decided is not None) == (facet in judge.decides)
        if "harm" in judge.decides and not blank:
            assert verdict.harmful is not verdict.refused
        if blank:
            assert not verdict.refused
            assert not verdict.coherent
