"""The filter and the metrics, and a task that lm-eval runs with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.tasks.judging import (
    JUDGES_VARIABLE,
    JudgeFilter,
    deferred,
    exchange_of,
    judges_override,
    process_over_refusal,
    process_safety,
)

DOCS: list[dict[str, Any]] = [{"prompt": f"ask {i}"} for i in range(3)]
RESPONSES = [["ab"], ["abcde"], ["a"]]
JUDGES: Any = ["stub_guard", "stub_refusal"]
YAML = """
task: stub_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: prompt
doc_to_target: ""
generation_kwargs: {{until: [], max_gen_toks: 3, do_sample: false}}
filter_list:
  - name: judged
    filter:
      - {{function: !function safebasin.tasks.judging.JudgeFilter, judges: [stub_guard, {{stub_refusal: {{over: 2}}}}]}}
process_results: !function safebasin.tasks.judging.process_safety
metric_list:
  - {{metric: hrr, aggregation: mean, higher_is_better: false}}
  - {{metric: refusal_rate, aggregation: mean, higher_is_better: true}}
  - {{metric: incoherent_rate, aggregation: mean, higher_is_better: false}}
  - {{metric: unparsed_rate, aggregation: mean, higher_is_better: false}}
metadata: {{version: 1}}
"""


@pytest.mark.parametrize(
    ("doc", "response", "judged"),
    [
        ({}, "x", "x"),
        ({"prefix": "sure , here", "prefix_join": " "}, "is", "sure , here is"),
        ({"prefix": "sure , here", "prefix_join": " "}, " is", "sure , here is"),
        ({"prefix": "sure , here", "prefix_join": " "}, "", "sure , here"),
        ({"prefix": "Sur", "prefix_join": ""}, "e", "Sure"),
        ({"prefix": "", "prefix_join": " "}, "x", "x"),
        ({}, "<think>\nsure\n</think>\n\nno", "no"),
        ({"prefix": "sure , here", "prefix_join": " "}, "<think>\nsure, here\n</think>\n\nno", "no"),
        ({"prefix": "sure , here", "prefix_join": " "}, "<think>\nsure, here", "<think>\nsure, here"),
    ],
)
def test_the_judge_sees_prefix_and_continuation_and_no_thinking(
    doc: dict[str, str], response: str, judged: str
) -> None:
    assert exchange_of({"prompt": "p", **doc}, response).response == judged


def test_filter_and_metrics(stub_judges: Any) -> None:
    filtered = JudgeFilter(judges=JUDGES).apply(RESPONSES, DOCS)
    record = json.loads(filtered[0][0])
    assert record["outcome"] == "harmful"
    assert record["response"] == "ab"
    assert record["facets"] == ["coherence", "harm", "refusal"]
    rates = [process_safety(doc, [given]) for doc, given in zip(DOCS, filtered, strict=True)]
    assert [rate["hrr"] for rate in rates] == [1, 0, 0]
    assert [rate["refusal_rate"] for rate in rates] == [0, 1, 0]
    over = process_over_refusal(DOCS[1], [filtered[1]])
    assert over == {"over_refusal": 1, "incoherent_rate": 0, "unparsed_rate": 0}


def test_unparsed_is_neither_harmful_nor_safe(stub_judges: Any) -> None:
    judges: Any = [{"stub_guard": {"unparsed": True}}, "stub_refusal"]
    for doc, given in zip(DOCS, JudgeFilter(judges=judges).apply(RESPONSES, DOCS), strict=True):
        expected = {"hrr": 0, "refusal_rate": 0, "incoherent_rate": 0, "unparsed_rate": 1}
        assert process_safety(doc, [given]) == expected


def test_thinking_that_did_not_end_is_not_judged(stub_judges: Any) -> None:
    filtered = JudgeFilter(judges=JUDGES).apply([["<think>ab"], ["<think>a</think>ab"], ["a"]], DOCS)
    rates = [process_safety(doc, [given]) for doc, given in zip(DOCS, filtered, strict=True)]
    assert [(rate["hrr"], rate["unparsed_rate"]) for rate in rates] == [(0, 1), (1, 0), (0, 0)]
    assert json.loads(filtered[0][0])["outcome"] == "unfinished"
    assert {exchange.response for call in stub_judges.calls for exchange in call} == {"ab", "a"}


def test_a_facet_that_no_judge_decides_has_no_rate(stub_judges: Any) -> None:
    filtered = JudgeFilter(judges=["stub_guard"]).apply(RESPONSES, DOCS)
    assert set(process_safety(DOCS[0], [filtered[0]])) == {"hrr", "unparsed_rate"}
    with pytest.raises(InputError, match="judge that decides refusal"):
        process_over_refusal(DOCS[0], [filtered[0]])


def test_repeats_are_averaged_and_padding_is_dropped(stub_judges: Any) -> None:
    padded = [["ab", "a"], ["ab", "ab"], ["a", "a", "ab", "ab"]]
    filtered = JudgeFilter(judges=JUDGES, repeats=2).apply(padded, DOCS)
    assert [len(given) for given in filtered] == [2, 2, 2]
    assert [process_safety(d, [g])["hrr"] for d, g in zip(DOCS, filtered, strict=True)] == [0.5, 1, 0]


@pytest.mark.parametrize("declared", [1, 3])
def test_undeclared_repeats_are_refused(stub_judges: Any, declared: int) -> None:
    with pytest.raises(InputError, match="generates 2 responses"):
        JudgeFilter(judges=JUDGES, repeats=declared).apply([["a", "b"]] * 3, DOCS)


def test_judges_can_be_replaced_by_environment(stub_judges: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JUDGES_VARIABLE, '["stub_guard"]')
    record = json.loads(JudgeFilter(judges=JUDGES).apply(RESPONSES, DOCS)[0][0])
    assert record["facets"] == ["harm"]
    for wrong in ("{", "{}", '["stub_gard"]'):
        monkeypatch.setenv(JUDGES_VARIABLE, wrong)
        with pytest.raises(InputError):
            judges_override()


@pytest.fixture
def stub_task(tmp_path: Path) -> Path:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": "x" * i}) + "\n" for i in range(1, 8)))
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.yaml").write_text(YAML.format(name=name, data=data))
    return folder


def test_deferred_and_inline_judging_agree(
    stub_judges: Any, stub_task: Path, tiny_chat_model: Any, evaluate: Callable[..., dict[str, Any]]
) -> None:
    model = tiny_chat_model()
    inline = evaluate(model, ["stub_a", "stub_b"], folders=[stub_task])
    assert stub_judges.built == 1, "two tasks load one judge"
    calls = len(stub_judges.calls)
    with deferred():
        later = evaluate(model, ["stub_a"], folders=[stub_task])
    assert len(stub_judges.calls) == calls, "nothing is judged"
    assert not [key for key in later["results"]["stub_a"] if "," in key], "and no number is shown"

    samples = later["samples"]["stub_a"]
    filtered = JudgeFilter(judges=["stub_guard", {"stub_refusal": {"over": 2}}]).apply(
        [sample["filtered_resps"][0] for sample in samples], [sample["doc"] for sample in samples]
    )
    shares = [process_safety(s["doc"], [g]) for s, g in zip(samples, filtered, strict=True)]
    for metric in ("hrr", "refusal_rate", "incoherent_rate", "unparsed_rate"):
        mean = sum(share[metric] for share in shares) / len(shares)
        assert inline["results"]["stub_a"][f"{metric},judged"] == pytest.approx(mean)
        assert isinstance(inline["results"]["stub_a"][f"{metric}_stderr,judged"], float)
