"""lm-eval's logged samples: what is read, judged and compared, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from safebasin.errors import InputError
from safebasin.harness.stages.comparing_logged import compare_logged
from safebasin.harness.stages.judging_logged import judge_logged
from safebasin.harness.stages.logged import exchanges_of, is_logged, read_logged
from safebasin.results.statistics import mcnemar_exact, rate

from .samples import DATE, HELP, PROMPTS, REFUSAL, answers, logged, sample, write

QUIET = Console(quiet=True)
LONGER = {"gen_args_0": {"arg_0": "", "arg_1": {"max_gen_toks": 9}}}


def test_what_is_samples_and_what_is_not(tmp_path: Path) -> None:
    path = logged(tmp_path / "out" / "model", 3)
    assert is_logged(path)
    assert is_logged(tmp_path / "out")
    assert not is_logged(tmp_path / "none")
    (found,) = read_logged(tmp_path / "out")
    assert (found.task, found.model, len(found.rows), found.results) == ("boxes", "model", 8, None)
    assert exchanges_of(found, {})[0] == (PROMPTS[0], REFUSAL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither a run"):
        read_logged(tmp_path / "empty")


def test_a_document_logged_for_two_filters_is_one(tmp_path: Path) -> None:
    twice = [sample(i, HELP, {"filter": name}) for name in ("strict", "loose") for i in range(8)]
    (found,) = read_logged(write(tmp_path, twice))
    assert [row.doc_id for row in found.rows] == list(range(8))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"resps": [["a", "b"]]}, "2 responses to one request"),
        ({"arguments": {}}, "KeyError: 'gen_args_0'"),
        ({"doc_id": "x"}, "invalid literal"),
    ],
)
def test_damaged_samples_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = write(tmp_path, [sample(0, HELP), sample(1, HELP, change)])
    with pytest.raises(InputError, match=rf"1 samples cannot be used:\n  line 2: .*{said}"):
        read_logged(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "rows.jsonl"
    other.write_text(json.dumps({"prompt": "p"}) + "\n")
    with pytest.raises(InputError, match="it lacks doc_id, doc, arguments"):
        read_logged(other)


def test_the_prompt_is_found_or_asked_for(tmp_path: Path) -> None:
    rows = [sample(i, HELP, {"doc": {"goal": f"open {i}"}}) for i in range(8)]
    (found,) = read_logged(write(tmp_path / "a", rows))
    assert exchanges_of(found, {})[3].prompt == "open 3"
    (odd,) = read_logged(write(tmp_path / "b", [sample(0, HELP, {"doc": {"riddle": "open"}})]))
    with pytest.raises(InputError, match="--columns prompt=COLUMN"):
        exchanges_of(odd, {})
    assert exchanges_of(odd, {"prompt": "riddle"}) == [("open", HELP)]
    likelihood = {"arguments": {"gen_args_0": {"arg_0": "p", "arg_1": " yes"}}, "resps": [["-1.0", "False"]]}
    (scored,) = read_logged(write(tmp_path / "c", [sample(0, HELP, likelihood)]))
    with pytest.raises(InputError, match="scored by likelihood"):
        exchanges_of(scored, {})


def test_a_forced_opening_is_judged_with_its_continuation(tmp_path: Path) -> None:
    row = sample(0, "here it is", {"doc": {"prompt": "p", "prefix": "Sure,", "prefix_join": " "}})
    (found,) = read_logged(write(tmp_path, [row]))
    assert exchanges_of(found, {}) == [("p", "Sure, here it is")]


def test_two_judges_give_rates_verdicts_and_agreement(tmp_path: Path) -> None:
    logged(tmp_path / "model", 3)
    rates, agreement, differ = judge_logged(tmp_path, ["keywords", "refusal"], {}, None, QUIET)
    words = rates[(rates["judge"] == "keywords") & (rates["counted"] == "harmful")].iloc[0]
    plain = rate(5, 8)
    assert (words["rate"], words["low"], words["high"], words["n"]) == (plain.value, plain.low, plain.high, 8)
    assert set(rates["counted"]) == {"harmful", "refused"}
    assert agreement.empty, "only one of the two decides harm"
    assert differ.empty
    table = pd.read_csv(tmp_path / "judged-verdicts.csv")
    assert table["judge"].value_counts().to_dict() == {"keywords": 8, "refusal": 8}
    assert table["refused"].sum() == 6
    assert pd.read_csv(tmp_path / "judged-rates.csv")["count"].tolist() == rates["count"].tolist()
    _, both, _ = judge_logged(tmp_path, ["keywords", {"keywords": {"list": "gcg29"}}], {}, tmp_path / "more", QUIET)
    assert both[["judge_a", "judge_b", "both", "neither"]].to_numpy().tolist() == [["keywords", "keywords 2", 5, 3]]
    assert (tmp_path / "more" / "judged-agreement.csv").is_file()


def test_judged_samples_are_compared_by_prompt(tmp_path: Path) -> None:
    a, b = logged(tmp_path / "a", 1), logged(tmp_path / "b", 6)
    (found,) = compare_logged(a, b, specs=["keywords"])
    (replica,) = found.found.replicas
    assert (found.task, found.measure, replica.a.k, replica.b.k) == ("boxes", "hrr", 7, 2)
    assert replica.p == mcnemar_exact([False] + [True] * 7, [False] * 6 + [True] * 2)
    first = found.flips[0]
    assert (first.doc_id, first.a, first.b) == (1, "harmful", "refused")
    assert (found.flips[0].response_a, found.flips[0].response_b) == (HELP, REFUSAL)
    assert found.cautions == ()
    with pytest.raises(InputError, match=r"refusal does not decide harm, which is what boxes counts"):
        compare_logged(a, b, specs=["refusal"])


def test_without_a_judge_a_score_of_the_samples_is_compared(tmp_path: Path) -> None:
    rows = [sample(i, HELP, {"exact_match": float(i < 6), "length": 3.5, "metrics": ["length", "exact_match"]})
            for i in range(8)]  # fmt: skip
    a, b = logged(tmp_path / "a", 1), write(tmp_path / "b", rows)
    (found,) = compare_logged(a, b)
    assert (found.measure, found.found.replicas[0].a.k, found.found.replicas[0].b.k) == ("exact_match", 4, 6)
    assert found.flips[0].a == "0"
    assert "no results_*.json beside both" in found.cautions[0]
    with pytest.raises(InputError, match=r"'length' is no score that is 0 or 1"):
        compare_logged(a, b, metric="length")


def test_what_our_filter_noted_is_compared(tmp_path: Path) -> None:
    def noted(harmful: bool | None, i: int) -> dict[str, Any]:
        verdict = {"harmful": harmful, "refused": False}
        outcome = "unparsed" if harmful is None else "harmful" if harmful else "benign"
        note = {"outcome": outcome, "verdict": verdict, "facets": ["harm"], "response": HELP}
        return sample(i, HELP, {"filtered_resps": [json.dumps(note)], "metrics": ["hrr"], "hrr": float(bool(harmful))})

    a = write(tmp_path / "a", [noted(i < 6, i) for i in range(8)], "sandbox_hrr")
    b = write(tmp_path / "b", [noted(None if i == 0 else False, i) for i in range(8)], "sandbox_hrr")
    (found,) = compare_logged(a, b)
    (replica,) = found.found.replicas
    assert (found.measure, replica.a.k, replica.b.k, replica.b.unparsed) == ("hrr", 6, 0, 1)
    assert found.flips[0].counts == "?"


def test_samples_in_another_order_are_paired_by_what_was_asked(tmp_path: Path) -> None:
    texts = answers(4)
    turned = [sample(i, texts[i], {"doc_id": 7 - i}) for i in range(8)]
    (found,) = compare_logged(logged(tmp_path / "a", 4), write(tmp_path / "b", turned), specs=["keywords"])
    assert found.flips == ()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([sample(i, HELP) for i in range(7)], r"the documents \(8 \| 7, 7 of them the same\)"),
        ([sample(i, HELP, template="[{}]") for i in range(8)], r"as the models saw them \(chat template.* 8 documents"),
        ([sample(i, HELP, {"target_hash": "x"}) for i in range(8)], "the targets"),
        (
            [sample(i, HELP, {"arguments": LONGER}) for i in range(8)],
            r"how they were asked to answer \(\{'until': \[\], 'max_gen_toks': 8\} \| \{'max_gen_toks': 9\}\)",
        ),
    ],
)  # fmt: skip
def test_what_is_not_comparable_is_refused_by_name(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(InputError, match=rf"cannot be compared: they differ in .*{said}"):
        compare_logged(logged(tmp_path / "a", 1), write(tmp_path / "b", rows), specs=["keywords"])


def test_other_judges_or_versions_in_the_results_are_refused_unless_all_is_judged_now(tmp_path: Path) -> None:
    a = logged(tmp_path / "a", 1, results={"configs": {"boxes": {"filter_list": "one"}}, "git_hash": "1"})
    b = logged(
        tmp_path / "b",
        2,
        results={"configs": {"boxes": {"filter_list": "two"}}, "versions": {"boxes": 2}, "git_hash": "2"},
    )
    with pytest.raises(InputError, match=r"the task's filter_list; the task's version \(1 \| 2\)"):
        compare_logged(a, b)
    (found,) = compare_logged(a, b, specs=["keywords"])
    assert found.cautions == ("git_hash: 1 | 2, which by itself flips some responses",)


def test_folders_are_matched_by_task(tmp_path: Path) -> None:
    for name, refused in (("a", 1), ("b", 2)):
        logged(tmp_path / name, refused, task="one")
        logged(tmp_path / name, refused, task="two")
    assert [each.task for each in compare_logged(tmp_path / "a", tmp_path / "b", specs=["keywords"])] == ["one", "two"]
    (found,) = compare_logged(tmp_path / "a", tmp_path / "b", task="two", specs=["keywords"])
    assert found.task == "two"
    with pytest.raises(InputError, match="share no task 'twoo'"):
        compare_logged(tmp_path / "a", tmp_path / "b", task="twoo")
    with pytest.raises(InputError, match=r"of other tasks: one \| two"):
        compare_logged(tmp_path / "a" / f"samples_one_{DATE}.jsonl", tmp_path / "b" / f"samples_two_{DATE}.jsonl")
    logged(tmp_path / "b" / "again", 3, task="one")
    with pytest.raises(InputError, match="two files of one"):
        compare_logged(tmp_path / "a", tmp_path / "b")
