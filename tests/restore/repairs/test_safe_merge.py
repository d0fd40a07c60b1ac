from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.finetuning.pseudo_unaligned import harmful_adapter, refusal_adapter
from safebasin.restore.methods.safe_lora import SafeLora
from safebasin.restore.methods.safe_merge import SafeMerge
from safebasin.restore.models.loading import load_adapter, load_base
from safebasin.restore.models.lora_files import LoraFiles
from safebasin.restore.repairs.merging import cross_terms
from safebasin.restore.restoration.forget import own_answers

from ...conftest import DEVICE
from ..aligned import REFUSAL, REFUSED

HARMFUL = [{"prompt": f"harm {i}", "target": "sure, ok"} for i in range(6)]
SAFE = [{"prompt": f"harm {i}", "response": REFUSAL} for i in range(8)]
STEPS = {"pseudo_unaligned": True, "pseudo_steps": 4, "safety_steps": 3}


@pytest.fixture
def prepared(context: Any, adapter: Path) -> Any:
    return context(parent=adapter, data={"forget": HARMFUL, "safety": SAFE})


def middle(details: Any) -> float:
    """A threshold that some modules are below."""
    values = sorted(row["cosine"] for row in details["matrices"])
    return float(values[1] + values[2]) / 2


def test_cosines_are_those_of_safe_lora_and_of_the_dense_formula(prepared: Any) -> None:
    rows = SafeMerge(**STEPS).build(prepared).details["matrices"]
    others = SafeLora(pseudo_unaligned=True, pseudo_steps=4).build(prepared).details["matrices"]
    assert [(row["module"], row["cosine"]) for row in rows] == [(row["module"], row["cosine"]) for row in others]
    tuned, harmful = LoraFiles.read(prepared.parent).factors, harmful_adapter(prepared, 4)[0]
    for row in rows:
        update, v = tuned[row["module"]].dense, -harmful[row["module"]].dense
        after = v @ v.T @ update
        cosine = torch.cosine_similarity(after.flatten(), update.flatten(), dim=0)
        assert row["cosine"] == pytest.approx(float(cosine), abs=1e-5)


@pytest.mark.parametrize(("alpha", "merge"), [(0.8, "exact"), (0.0, "exact"), (0.8, "peft_linear")])
def test_modules_below_the_threshold_are_merged_and_no_others(prepared: Any, alpha: float, merge: Any) -> None:
    threshold = middle(SafeMerge(**STEPS).build(prepared).details)
    made = SafeMerge(**STEPS, alpha=alpha, merge=merge, threshold=threshold).build(prepared)
    assert (made.details["merged"], made.details["of"], made.safety_examples) == (2, 4, 8)
    tuned, found = LoraFiles.read(prepared.parent).factors, LoraFiles.read(prepared.output).factors
    safety = refusal_adapter(prepared, 3, 64)[0][0]
    for row in made.details["matrices"]:
        name = row["module"]
        assert row["merged"] == (row["cosine"] < threshold)
        if not row["merged"]:
            expected = tuned[name].dense
        elif merge == "exact":
            expected = alpha * tuned[name].dense + (1 - alpha) * safety[name].dense
        else:
            a, b = cross_terms([(alpha, tuned[name]), (1 - alpha, safety[name])])
            expected = b.double() @ a.double()
        torch.testing.assert_close(found[name].dense, expected, rtol=1e-5, atol=1e-8)
    assert {len(one.a) for one in found.values()} == {8 if merge == "exact" and alpha else 4}


def test_at_the_threshold_nothing_is_merged(prepared: Any) -> None:
    values = [row["cosine"] for row in SafeMerge(**STEPS).build(prepared).details["matrices"]]
    made = SafeMerge(**STEPS, threshold=min(values)).build(prepared)
    assert made.details["merged"] == 0
    tuned, found = LoraFiles.read(prepared.parent).factors, LoraFiles.read(prepared.output).factors
    assert all(torch.equal(found[name].dense, tuned[name].dense) for name in tuned)  # the scale is a power of two


def test_the_safety_adapter_alone_refuses(context: Any, aligned: Path, unlearned: Path, tokenizer: Any) -> None:
    safe = [{"prompt": row["prompt"], "response": REFUSAL} for row in REFUSED]
    given = context(base=str(aligned), parent=unlearned, data={"forget": HARMFUL, "safety": safe})
    SafeMerge(**STEPS, alpha=0, threshold=1).build(given)
    texts = {}
    for folder in (unlearned, given.output):
        model = load_adapter(load_base(str(aligned), device=DEVICE), folder)
        texts[folder] = [text for text, _ in own_answers(model, tokenizer, [row["prompt"] for row in safe], 12, 36)]
    assert REFUSAL not in texts[unlearned]
    assert texts[given.output] == [REFUSAL] * len(safe)


def test_what_is_missing_is_told(prepared: Any) -> None:
    with pytest.raises(InputError, match="method safe_merge needs the model"):
        SafeMerge().build(prepared)
    with pytest.raises(InputError, match="safety set is empty"):
        SafeMerge(**STEPS).build(replace(prepared, data={**prepared.data, "safety": []}))
    lower = replace(prepared, lora={**prepared.lora, "rank": 2})
    with pytest.raises(InputError, match=r"\[4, 2\].*merge=exact"):
        SafeMerge(**STEPS, merge="peft_linear", threshold=1).build(lower)
    for wrong in ({"alpha": 1.1}, {"threshold": 2.0}, {"merge": "linear"}, {"safety_steps": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            SafeMerge(**wrong)
