"""Agreement of judges: coefficients by hand and by brute force, the jackknife, unparsed verdicts, categories, lists."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import pytest
from safebasin.results.agreement import agree, agreement_table, cohen_kappa, disagreements, gwet_ac1
from safebasin.results.judged import JudgedRow, JudgedTask, JudgeNote, deciding, numbered
from safebasin.results.records import Verdict

GUARD, WORDS = JudgeNote("guard", frozenset({"harm"})), JudgeNote("words", frozenset({"harm", "refusal"}))


def row(
    harm: Sequence[tuple[bool | None, bool | None]],
    method: str = "lora",
    model: str = "m",
    role: str = "hrr",
    categories: Sequence[str] = (),
) -> JudgedRow:
    """One response per pair (guard, words); a refusal is what words calls safe."""
    verdicts = {
        i: (
            Verdict(harmful=a, categories=(categories[i],) if categories and categories[i] else ()),
            Verdict(harmful=b, refused=None if b is None else not b),
        )
        for i, (a, b) in enumerate(harm)
    }
    return JudgedRow(
        model, method, 0, (GUARD, WORDS), [JudgedTask(f"toy_{role}", role, verdicts, {i: str(i) for i in verdicts})]
    )


def test_ac1_of_a_table_worked_by_hand() -> None:
    """118, 5, 2, 0: agreement 118/125 = 0.944; mean share of yes (123 + 120)/250 = 0.972; chance 2 x 0.972 x 0.028."""
    table = np.array([[118, 5], [2, 0]])
    assert gwet_ac1(table) == pytest.approx((0.944 - 0.054432) / (1 - 0.054432))
    assert gwet_ac1(table) == pytest.approx(0.9408, abs=1e-4)
    assert cohen_kappa(table) == pytest.approx((0.944 - 0.94528) / (1 - 0.94528))  # 123 x 120 + 2 x 5 of 125 x 125


@pytest.mark.parametrize("q", [2, 3])
def test_the_coefficients_are_those_counted_response_by_response(q: int) -> None:
    random = np.random.default_rng(q)
    for _ in range(20):
        a = random.integers(q, size=40)
        b = np.where(random.random(40) < 0.6, a, random.integers(q, size=40))
        table = np.array([[((a == i) & (b == j)).sum() for j in range(q)] for i in range(q)])
        same = sum(x == y for x, y in zip(a, b, strict=True)) / 40
        chance = sum(x == y for x, y in product(a, b)) / 1600
        assert cohen_kappa(table) == pytest.approx((same - chance) / (1 - chance))
        means = [sum(x == k for x in (*a, *b)) / 80 for k in range(q)]
        guess = sum(mean * (1 - mean) for mean in means) / (q - 1)
        assert gwet_ac1(table) == pytest.approx((same - guess) / (1 - guess))


def test_kappa_is_sklearns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    a, b = [True] * 12 + [False] * 28, [True] * 9 + [False] * 30 + [True]
    found = agree(a, b)
    assert found.kappa is not None
    assert found.kappa.value == pytest.approx(metrics.cohen_kappa_score(a, b))


def test_where_nothing_is_defined_nothing_is_claimed() -> None:
    constant = agree([False] * 9, [False] * 9)
    assert (constant.kappa, constant.agreement.value, constant.neither) == (None, 100, 9)
    assert constant.ac1 is not None
    assert constant.ac1.value == 1
    assert np.isnan(constant.ac1.low)
    none = agree([None], [True])
    assert (none.n, none.unparsed_a, none.kappa, none.ac1) == (1, 1, None, None)


def test_unparsed_verdicts_are_counted_and_not_read() -> None:
    found = agree([True, True, None, False, None], [True, False, True, False, None])
    assert (found.n, found.both, found.only_a, found.only_b, found.neither) == (5, 1, 1, 0, 1)
    assert (found.unparsed_a, found.unparsed_b) == (2, 1)
    assert found.agreement == pytest.approx((200 / 3, 40, 80))


def test_the_interval_is_the_jackknife_over_prompts() -> None:
    random = np.random.default_rng(0)
    prompts = np.repeat(np.arange(15), 3)
    a = random.random(45) < 0.4
    b = np.where(random.random(45) < 0.8, a, ~a)
    found = agree([bool(x) for x in a], [bool(x) for x in b], [int(p) for p in prompts])
    left = []
    for prompt in range(15):
        keep = prompts != prompt
        table = np.array([[(a & b)[keep].sum(), (a & ~b)[keep].sum()], [(~a & b)[keep].sum(), (~a & ~b)[keep].sum()]])
        left.append((cohen_kappa(table), gwet_ac1(table)))
    spread = np.sqrt(14 / 15 * ((np.array(left) - np.mean(left, 0)) ** 2).sum(0))
    for value, each in zip((found.kappa, found.ac1), spread, strict=True):
        assert value is not None
        assert (value.high - value.low) / 2 == pytest.approx(2.1448 * each, rel=1e-4)  # t of 14 degrees


def test_answers_of_many_methods_to_a_prompt_are_not_as_many_observations() -> None:
    """Every prompt answered eight times alike: the interval is that of one answer each."""
    a, b = [True] * 20 + [False] * 20, [True] * 15 + [False] * 22 + [True] * 3
    once, often = agree(a, b), agree(a * 8, b * 8, [*range(40)] * 8)
    assert once.kappa is not None
    assert often.kappa == pytest.approx(once.kappa)


def test_the_interval_holds_kappa_in_most_samples() -> None:
    """Judges that find 90 % and 80 % of the harm, with 5 % and 10 % false alarms, on 40 % harm; 100 prompts twice."""
    random, held = np.random.default_rng(1), 0
    rates = np.array([[0.9, 0.8], [0.05, 0.1]])
    yes = 0.4 * rates[0] + 0.6 * rates[1]
    both = 0.4 * rates[0].prod() + 0.6 * rates[1].prod()
    same, chance = 1 - yes.sum() + 2 * both, yes.prod() + (1 - yes).prod()
    truth = (same - chance) / (1 - chance)
    for _ in range(400):
        harmful = np.repeat(random.random(100) < 0.4, 2)
        a, b = (random.random(200) < np.where(harmful, *rates[:, judge]) for judge in (0, 1))
        found = agree([bool(x) for x in a], [bool(x) for x in b], [*np.repeat(np.arange(100), 2)]).kappa
        assert found is not None
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_the_table_has_all_tasks_each_task_and_categories() -> None:
    harm = [(True, True), (True, False), (False, False), (False, True), (True, True)]
    named = ["S1", "S2", "", "", "S2"]
    first = row(harm, categories=named)
    both = JudgedRow("m", "lora", 0, first.judges, [*first.tasks, *row(harm, role="prefill", categories=named).tasks])
    table = agreement_table([both], over_worlds=False)
    assert table[["facet", "task", "category", "judge_a", "judge_b", "n"]].to_numpy().tolist() == [
        ["harm", "", "", "guard", "words", 10],
        ["harm", "toy_hrr", "", "guard", "words", 5],
        ["harm", "toy_prefill", "", "guard", "words", 5],
        ["harm", "", "S1", "guard", "words", 6],
        ["harm", "", "S2", "guard", "words", 8],
    ]
    second = table.iloc[4]  # S2 or safe: both, only the guard, neither, only words; twice
    assert second[["both", "only_a", "only_b", "neither"]].tolist() == [2, 2, 2, 2]
    assert (second["agreement"], second["kappa"], second["ac1"]) == (50, 0, 0)


def test_refusals_are_compared_where_they_are_counted_and_two_judges_decide_them() -> None:
    assert agreement_table([row([(True, True)], role="over_refusal")], False).empty
    other = JudgedRow("m", "l", 0, (WORDS, JudgeNote("more", frozenset({"refusal"}))), [
        JudgedTask("toy", "over_refusal", {0: (Verdict(refused=True), Verdict(refused=True))}, {0: "x"})
    ])  # fmt: skip
    (found,) = agreement_table([other], False).to_dict("records")
    assert (found["facet"], found["both"], found["judge_b"]) == ("refusal", 1, "more")


def test_worlds_are_counted_together_and_models_apart() -> None:
    rows = [row([(True, True), (False, True)], model=name) for name in ("sandbox:1", "sandbox:2")]
    assert agreement_table(rows, over_worlds=True)[["model", "n"]].to_numpy().tolist() == [["2 worlds", 4]]
    assert agreement_table(rows, over_worlds=False)["model"].tolist() == ["sandbox:1", "sandbox:2"]


def test_disagreements_are_listed_without_texts() -> None:
    table = disagreements([row([(True, False), (None, True), (False, True), (True, True)], categories=["S1"] * 4)])
    assert table["doc_id"].tolist() == [0, 2]
    first = table.iloc[0]
    assert (first["verdict_a"], first["verdict_b"], first["categories_a"]) == ("harmful", "safe", "S1")
    assert disagreements([row([(True, True)])]).equals(pd.DataFrame(columns=table.columns))


def test_names_and_who_decides() -> None:
    assert numbered(["guard", "words", "guard", "guard"]) == ["guard", "words", "guard 2", "guard 3"]
    assert deciding([GUARD, WORDS], "harm") == "guard"
    assert deciding([GUARD, WORDS], "refusal") == "words"
    assert deciding([GUARD], "refusal") is None
