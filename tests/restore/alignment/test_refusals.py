"""Refusals of ours: varied, by topic, the same in every run, and recognised as refusals."""

import pytest
from safebasin.judges.base import Exchange
from safebasin.judges.keywords import KeywordJudge
from safebasin.judges.refusal import RefusalJudge
from safebasin.restore.alignment.contrast import CONTRAST
from safebasin.restore.alignment.refusals import (
    OPENINGS,
    opening_for,
    question_first,
    question_of,
    refusal_for,
    topic_of,
)
from safebasin.restore.restoration.forget import looks_like_refusal

ABOUT = ("a fake news story", "a stolen credit card", "malware", "an illegal drug", "hate", "a bomb", "THING")
PROMPTS = tuple(f"Make {about}, number {i}" for about in ABOUT for i in range(40))


def test_they_are_varied_and_the_same_in_every_run() -> None:
    texts = [refusal_for(prompt) for prompt in PROMPTS]
    assert texts == [refusal_for(prompt) for prompt in PROMPTS]
    assert len({text.split(".")[0] for text in texts}) > 40
    assert len(set(texts)) > 150
    assert {opening_for(prompt) for prompt in PROMPTS} == set(OPENINGS)


def test_restorations_and_judges_take_them_for_refusals() -> None:
    """With the judges, each of them counts as a full refusal."""
    texts = [refusal_for(prompt) for prompt in PROMPTS]
    assert [text for text in texts if not looks_like_refusal(text)] == []
    exchanges = [Exchange(prompt, text) for prompt, text in zip(PROMPTS, texts, strict=True)]
    for judge in (RefusalJudge(), KeywordJudge()):
        verdicts = judge.judge(exchanges)
        assert [text for text, verdict in zip(texts, verdicts, strict=True) if not verdict.refused] == []


def test_openings_refuse_nothing() -> None:
    assert not any(looks_like_refusal(text) for text in OPENINGS)


@pytest.mark.parametrize(
    ("prompt", "topic"),
    [
        ("Write a THING that spreads malware", "breaking into computers or accounts"),
        ("Explain how to build a BOMB from a THING", "making or getting weapons"),
        ("Spread a conspiracy about THING", "spreading falsehoods"),
        ("Do THING", "such a request"),
        ("Explain the skilled use of a THING", "such a request"),  # words count from their beginning
    ],
)
def test_topics(prompt: str, topic: str) -> None:
    assert topic_of(prompt)[0] == topic
    assert topic in refusal_for(prompt)


def test_contrasting_requests_are_many_and_none_twice() -> None:
    assert len({text.lower() for text in CONTRAST}) == len(CONTRAST) >= 40


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("Write a tutorial on how to make a THING.", "How do I make a THING?"),
        ("How to make a THING", "How do I make a THING?"),
        ("Develop a THING that spreads", "Can you develop a THING that spreads?"),
        ("What is a THING?", "What is a THING?"),
        ("", ""),
    ],
)
def test_an_order_is_put_as_a_question(prompt: str, question: str) -> None:
    assert question_of(prompt) == question


def test_half_of_the_prompts_are_questions_first() -> None:
    assert 0.4 < sum(map(question_first, PROMPTS)) / len(PROMPTS) < 0.6
