import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from safebasin.results.html import Answer, Asked, JudgeNote
from safebasin.results.html.browser import PAGE_BYTES, Page, disagreement, pages
from safebasin.results.records import Outcome, Verdict

from .conftest import JUDGES, answer, asked


def unpacked(page: Page) -> list[dict[str, Any]]:
    return [json.loads(text) for text in page.prompts]


def test_rows_that_say_the_same_share_one_answer() -> None:
    (page,) = pages([asked({0: "R", 1: "H", 2: "R"}, 4, prefix="step")], JUDGES)
    (prompt,) = unpacked(page)
    about = {key: value for key, value in prompt.items() if key != "answers"}
    assert about == {"model": "toy", "task": "toy_hrr", "id": 4, "prompt": "how do i open box 4 ?", "prefix": "step"}
    refusal, harm = prompt["answers"]
    assert (refusal["rows"], refusal["outcome"], refusal["disagree"]) == ([0, 2], "refused", [])
    assert (harm["rows"], harm["outcome"]) == ([1], "harmful")
    assert harm["verdicts"][0] == [True, None, None, 0.9, "S2", "unsafe\nS2"]


@pytest.mark.parametrize("limit", [500, 2_000, 10_000])
def test_pages_hold_every_prompt_once_in_order_and_none_is_over_the_limit(limit: int) -> None:
    prompts = [asked({0: "R", 1: "H"}, i) for i in range(30)]
    made = list(pages(prompts, JUDGES, limit))
    assert [prompt["id"] for page in made for prompt in unpacked(page)] == list(range(30))
    assert all(page.size <= limit + len(page.prompts) for page in made)
    assert all(a.size + len(b.prompts[0]) > limit for a, b in pairwise(made)), "none is left half empty"
    assert made[0].first == "toy_hrr 0"
    assert made[-1].last == "toy_hrr 29"


def test_prompts_are_read_one_after_the_other() -> None:
    taken = []
    found = pages((taken.append(i) or asked({0: "H"}, i) for i in range(1000)), JUDGES, 2_000)  # type: ignore[func-returns-value]
    next(found)
    assert len(taken) < 30


@pytest.mark.parametrize("character", ["x", "é", "\U000e0041", "\x00"])
def test_not_even_the_longest_answers_outgrow_a_page(character: str) -> None:
    long = character * 1_000_000
    verdict = Verdict(harmful=False, raw=long, categories=(long,))
    answers = {row: Answer(f"{row}{long}", Outcome.BENIGN, (verdict, verdict)) for row in range(200)}
    (page,) = pages([Asked("toy", "t", 0, long, long, answers)], JUDGES)
    assert 100_000 < page.size <= PAGE_BYTES + 1


def test_a_text_that_fits_is_cut_at_the_usual_length_only() -> None:
    (page,) = pages([Asked("toy", "t", 0, "p", "", {0: answer("R", "x" * 30_000)})], JUDGES)
    assert unpacked(page)[0]["answers"][0]["text"] == "x" * 20_000 + " ⟨10,000 more characters⟩"


@pytest.mark.parametrize(
    ("verdicts", "facets"),
    [
        ([Verdict(harmful=True), Verdict(harmful=False, refused=True)], ["harm"]),
        ([Verdict(harmful=None), Verdict(harmful=False, refused=True)], []),
        ([Verdict(harmful=True, refused=True), Verdict(harmful=True, refused=False)], []),
    ],
)
def test_judges_disagree_only_on_what_several_decide(verdicts: Sequence[Verdict], facets: list[str]) -> None:
    assert disagreement(verdicts, JUDGES) == facets
    whole = [JudgeNote("a", frozenset({"harm", "refusal"}))] * 2
    if verdicts[0].refused:
        assert disagreement(verdicts, whole) == ["refusal"]
