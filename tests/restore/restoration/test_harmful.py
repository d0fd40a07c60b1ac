"""The texts that harmful prompts are given, on a base that refuses and an adapter that complies."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.api import restore
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.encoding import asked, encode, prompt_ids
from safebasin.restore.restoration.data import RestorationData
from safebasin.restore.restoration.forget import encode_forget, forget_rows
from safebasin.restore.restoration.harmful import harmful_rows

from ..aligned import ANSWERED, REFUSAL

CONFIG = RestoreConfig(max_new_tokens=12)
PAPER = RestoreConfig.from_preset("paper", max_new_tokens=12)
FORGET, PROBES = [{"prompt": f"harm {i}"} for i in range(4)], [{"prompt": f"harm {i}"} for i in range(4, 7)]


def data(forget: Any = FORGET, probes: Any = PROBES) -> RestorationData:
    return RestorationData(forget, probes, ANSWERED[:4], ANSWERED[4:8], ANSWERED[8:12])


def sets_of(model: Any, tokenizer: Any, config: RestoreConfig = CONFIG, **given: Any) -> Any:
    return harmful_rows(model, tokenizer, data(**given), config, lambda what, done, total: None)


def refusals(tokenizer: Any, rows: Any, text: str = REFUSAL) -> list[Any]:
    return [encode(tokenizer, row["prompt"], text) for row in rows]


def test_the_defaults_take_the_base_s_refusals_and_nothing_else(tuned: Any, tokenizer: Any) -> None:
    """The tuned model complies; it is the base that was asked."""
    sets, report = sets_of(tuned, tokenizer)
    assert sets == {"refusals": refusals(tokenizer, FORGET)}
    assert report.to_dict() == {
        "rows": 4, "self_generated": 0, "affirmative": 0, "refused": 0, "empty": 0, "base_refusals": 4
    }  # fmt: skip


def test_pairs_are_probed_on_refusals_of_other_prompts(tuned: Any, tokenizer: Any) -> None:
    sets, _ = sets_of(tuned, tokenizer, replace(CONFIG, estimator="lbfgs"))
    assert sets == {"refusals": refusals(tokenizer, FORGET), "curvature_refusals": refusals(tokenizer, PROBES)}


def test_the_paper_takes_the_tuned_model_s_answers(tuned: Any, tokenizer: Any) -> None:
    sets, report = sets_of(tuned, tokenizer, PAPER)
    assert sets.keys() == {"forget", "curvature_forget"}
    assert [row.ids[: row.start] for row in sets["forget"]] == [
        tuple(prompt_ids(tokenizer, r["prompt"])) for r in FORGET
    ]
    assert all(tokenizer.decode(row.ids[row.start :]).startswith("yes") for row in sets["forget"])
    assert (report.self_generated, report.base_refusals) == (7, 0)


def test_both_may_be_wanted(tuned: Any, tokenizer: Any) -> None:
    for changes in ({"ascend": 0.5}, {"stop": "base_loss"}):
        sets, report = sets_of(tuned, tokenizer, replace(CONFIG, **changes))
        assert sets.keys() == {"refusals", "forget"}
        assert (report.self_generated, report.base_refusals) == (4, 4)


def test_a_column_of_refusals_is_taken_as_it_is(tuned: Any, tokenizer: Any) -> None:
    passes: list[int] = []
    tuned.get_base_model().lm_head.register_forward_hook(lambda *_: passes.append(1))
    given = [{**row, "refusal": "no, never"} for row in FORGET]
    sets, report = sets_of(tuned, tokenizer, forget=given)
    assert sets == {"refusals": refusals(tokenizer, FORGET, "no, never")}
    assert report.base_refusals == 4
    assert not passes
    sets, _ = sets_of(tuned, tokenizer, forget=[*given[:2], *FORGET[2:]])
    assert set(sets["refusals"]) == {*refusals(tokenizer, FORGET[:2], "no, never"), *refusals(tokenizer, FORGET[2:])}


def test_prompts_that_the_base_answers_are_left_out_with_a_warning(tuned: Any, tokenizer: Any) -> None:
    answered = [{"prompt": f"say {i}"} for i in range(20, 23)]
    with pytest.warns(UserWarning, match="base model refuses only 2 of 5 harmful prompts; the others are left out"):
        sets, report = sets_of(tuned, tokenizer, forget=[*answered, *FORGET[:2]])
    assert sets["refusals"] == refusals(tokenizer, FORGET[:2])
    assert report.base_refusals == 2


def test_half_of_them_give_none(tuned: Any, tokenizer: Any, recwarn: pytest.WarningsRecorder) -> None:
    sets_of(tuned, tokenizer, forget=[{"prompt": "say 20"}, {"prompt": "say 21"}, *FORGET[:2]])
    assert not recwarn


@pytest.mark.filterwarnings("ignore:.*forget rows are few")
@pytest.mark.parametrize("changes", [{}, {"forget_target": "refusal", "ascend": 1.0, "refusals": 0.0}])
def test_a_base_that_refuses_nothing_is_refused(model: Any, tokenizer: Any, changes: dict[str, Any]) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    with pytest.raises(InputError) as caught:
        restore(model, tokenizer, forget=FORGET, retain=ANSWERED, config=replace(CONFIG, **changes))
    assert "The base model refuses none of the 2 harmful prompts" in str(caught.value)
    assert "a column `refusal`, or refusals=0 and ascend=1" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert not any(getattr(module, "disable_adapters", False) is True for module in model.modules())


def test_the_target_prompt_takes_the_loss_on_the_prompt(tuned: Any, tokenizer: Any) -> None:
    passes: list[int] = []
    tuned.get_base_model().lm_head.register_forward_hook(lambda *_: passes.append(1))
    sets, report = sets_of(tuned, tokenizer, replace(PAPER, forget_target="prompt"))
    assert [(row.ids, row.start) for row in sets["forget"]] == [
        (tuple(prompt_ids(tokenizer, row["prompt"])), 1) for row in FORGET
    ]
    assert (report.rows, report.self_generated, report.affirmative) == (7, 0, 0)
    assert not passes


def test_the_target_refusal_takes_the_base_s_or_the_column_s(tuned: Any, tokenizer: Any) -> None:
    config = replace(PAPER, forget_target="refusal")
    sets, report = sets_of(tuned, tokenizer, config)
    assert sets == {"forget": refusals(tokenizer, FORGET), "curvature_forget": refusals(tokenizer, PROBES)}
    assert report.base_refusals == 7
    text = "no, never"
    given = [[{**row, "refusal": text} for row in rows] for rows in (FORGET, PROBES)]
    sets, _ = sets_of(tuned, tokenizer, config, forget=given[0], probes=given[1])
    assert sets == {"forget": refusals(tokenizer, FORGET, text), "curvature_forget": refusals(tokenizer, PROBES, text)}


@pytest.mark.filterwarnings("ignore:.*forget rows are few", "ignore:The curvature rests on few")
@pytest.mark.parametrize(("target", "rises"), [("self", True), ("prompt", True), ("refusal", False)])
def test_a_refusal_becomes_more_probable_and_all_else_less(
    tuned: Any, tokenizer: Any, target: Any, rises: bool
) -> None:
    """Also by Gauss-Newton, whose curvature is that of the losses by the size of their weights."""
    for config in (PAPER, RestoreConfig(ascend=1.0, refusals=0.0, retain=1.0, scale="trust", shrink=0.0)):
        settings = replace(config, forget_target=target, iterations=1, epsilon=1.0, min_pairs=1, max_new_tokens=12)
        result = restore(tuned, tokenizer, forget=FORGET, retain=ANSWERED, config=settings, inplace=False)
        (row,) = result.record.iterations
        assert row["accepted"]
        assert (row["forget_loss"] > row["forget_loss_before"]) == rises


@pytest.mark.parametrize("target", ["self", "refusal"])
def test_a_prompt_that_does_not_fit_is_named(tuned: Any, tokenizer: Any, target: Any) -> None:
    config = replace(CONFIG, forget_target=target, max_length=40)
    with pytest.raises(InputError, match=r"Row 1 of the forget set has \d+ tokens, more than max_length=40"):
        sets_of(tuned, tokenizer, config, forget=[FORGET[0], {"prompt": "harm " * 20}])


def test_what_is_wrong_with_a_given_refusal_is_what_is_said(tuned: Any, tokenizer: Any) -> None:
    rows = [{**row, "refusal": "</s>"} for row in FORGET]
    with pytest.raises(InputError, match="special tokens alone") as error:
        sets_of(tuned, tokenizer, forget=rows)
    assert str(error.value).count("Row 'harm") == len(rows)
    assert "refuses none" not in str(error.value)


def test_the_base_is_asked_with_the_turns_before_the_prompt(tuned: Any, tokenizer: Any) -> None:
    before = [{"role": "system", "content": "x"}]
    rows = [{"prompt": "harm 1", "before": before}, {"prompt": "harm 2", "before": before, "refusal": "\nno"}]
    with tuned.disable_adapter():
        heads = [prompt_ids(tokenizer, asked(row)) for row in rows]
        given = sets_of(tuned, tokenizer, forget=[rows[1]])[0]["refusals"]
    assert list(given[0].ids[: given[0].start]) == heads[1]
    answered, _ = forget_rows(tuned, tokenizer, rows, max_new_tokens=6, is_refusal=lambda text: False)
    assert [row["before"] for row in answered] == [before, before]
    (row,) = encode_forget(tokenizer, answered[:1])
    assert list(row.ids[: row.start]) == heads[0]
