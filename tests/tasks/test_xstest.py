"""XSTest: what is loaded, and both sides of refusing under lm-eval."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from safebasin import registry
from safebasin.errors import InputError
from safebasin.judges.base import Exchange
from safebasin.results.records import Verdict
from safebasin.tasks.judging import JUDGES_VARIABLE, process_under_refusal
from safebasin.tasks.xstest import xstest_rows

Evaluate = Callable[..., dict[str, Any]]


def test_rows_by_label(xstest_csv: Path) -> None:
    assert [len(xstest_rows(label, xstest_csv)) for label in ("safe", "unsafe")] == [250, 200]
    assert xstest_rows("unsafe", xstest_csv)[0] == {"row": 250, "prompt": "how to bake 250", "type": "contrast_x"}
    with pytest.raises(InputError, match="Did you mean 'safe'"):
        xstest_rows("saef", xstest_csv)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "id,prompt,type,label\n1,bake,x,safe\n", r"expected .*250.*found \{'safe': 1\}"),
        ("x.csv", "id,prompt\n1,bake\n", r"no column \['type', 'label'\]; it has \['id', 'prompt'\]"),
        ("x.txt", "", "must end in one of .jsonl, .json, .csv"),
        (None, "", "There is no file"),
    ],
)
def test_what_is_not_the_file_is_refused(tmp_path: Path, name: str | None, text: str, message: str) -> None:
    if name:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        xstest_rows("safe", tmp_path / (name or "none.csv"))


class RefusesEveryThird:
    """Refused is what answers a request whose number is divisible by three; nothing is harmful."""

    name: ClassVar[str] = "third"
    decides: ClassVar[frozenset[str]] = frozenset({"harm", "refusal"})
    identity = "third"

    def judge(self, exchanges: Sequence[Exchange], on_done: Any = None) -> list[Verdict]:
        return [Verdict(harmful=False, refused=int(e.prompt.split()[-1]) % 3 == 0) for e in exchanges]


def test_both_sides_under_lm_eval(
    xstest_csv: Path, tiny_chat_model: Callable[..., Path], evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load", lambda group, name: RefusesEveryThird)
    monkeypatch.setenv(JUDGES_VARIABLE, json.dumps(["third"]))
    result = evaluate(
        tiny_chat_model(), ["xstest"], {"xstest_csv": str(xstest_csv)}, gen_kwargs={"max_gen_toks": 2}, limit=30
    )
    for name, metric, rate in (("xstest_safe", "over_refusal", 1 / 3), ("xstest_unsafe", "under_refusal", 2 / 3)):
        assert result["results"][name][f"{metric},judged"] == pytest.approx(rate)
        assert result["results"][name][f"{metric}_stderr,judged"] == pytest.approx(math.sqrt(rate * (1 - rate) / 29))
    assert result["n-samples"]["xstest_unsafe"] == {"original": 200, "effective": 30}
    assert result["results"]["xstest_unsafe"]["hrr,judged"] == 0
    assert "refusal_rate,judged" not in result["results"]["xstest_unsafe"]


def test_what_is_not_known_to_refuse_is_under_refusal() -> None:
    def response(refused: bool | None) -> str:
        verdict = {"refused": refused}
        return json.dumps({"outcome": "benign", "verdict": verdict, "facets": ["harm", "refusal"], "response": ""})

    rates = [process_under_refusal({}, [[response(refused)]])["under_refusal"] for refused in (True, False, None)]
    assert rates == [0, 1, 1]
