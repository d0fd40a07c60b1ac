"""`safebasin.repair`: every post-hoc method on a model in memory."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import safebasin
import torch
from safebasin.errors import InputError
from safebasin.registry import load
from safebasin.restore.method import post_hoc
from safebasin.restore.models.loading import load_adapter, load_base, load_tokenizer
from safebasin.restore.repair import REPAIRED, _data

from .cases import CASES, Case
from .conftest import FINETUNE, World, rows
from .test_common import logits

pytestmark = pytest.mark.filterwarnings("ignore:.*few", "ignore:.*curvature pairs", "ignore:The model is not fully")
POST_HOC = [case for case in CASES if load("methods", case.method).stage == "post-hoc" and case.method != "tuned"]
FORGET = [*rows("forget"), *rows("curvature_forget")]
RETAIN = [row for name in ("retain_1", "retain_2", "retain_check") for row in rows(name)]


@pytest.fixture
def world(make_world: Any) -> World:
    found: World = make_world("llama")
    return found


@pytest.fixture
def tuned(world: World) -> Any:
    return load_adapter(load_base(str(world.base), device="cpu"), world.parent)


def repaired(tuned: Any, world: World, method: str, **settings: Any) -> Any:
    given = {"forget": FORGET, "retain": RETAIN, "unaligned": str(world.unaligned), "finetune": FINETUNE}
    return safebasin.repair(tuned, method, **{**given, **settings})


@pytest.mark.parametrize("case", POST_HOC, ids=str)
def test_the_result_is_an_ordinary_adapter_beside_the_tuned_one(
    case: Case, tuned: Any, world: World, tmp_path: Path
) -> None:
    before = logits(tuned)
    if case.whole_model:
        with pytest.raises(InputError, match="makes a whole model"):
            repaired(tuned, world, case.method, **case.settings)
        assert torch.equal(logits(tuned), before)
        return
    found = repaired(tuned, world, case.method, **case.settings)
    assert found.model is tuned
    assert (tuned.active_adapter, found.adapter) == (REPAIRED, REPAIRED)
    after = logits(tuned)
    assert after.isfinite().all()
    if case.keeps_parent:
        torch.testing.assert_close(after, before)
    found.save_pretrained(tmp_path / "out", str(world.base))
    again = load_adapter(load_base(str(world.base), device="cpu"), tmp_path / "out")
    torch.testing.assert_close(logits(again), after, atol=1e-5, rtol=1e-5)
    tuned.set_adapter("default")
    assert torch.equal(logits(tuned), before)


def test_a_second_repair_takes_the_place_of_the_first(tuned: Any, world: World) -> None:
    one = logits(repaired(tuned, world, "ridge", strength=1.0).model)
    tuned.set_adapter("default")
    two = logits(repaired(tuned, world, "ridge", strength=10.0).model)
    assert not torch.equal(one, two)
    assert sorted(tuned.peft_config) == ["default", REPAIRED]


def test_a_repaired_model_can_be_repaired_again(tuned: Any, world: World) -> None:
    one = logits(repaired(tuned, world, "ridge", strength=1.0).model)
    again = logits(repaired(tuned, world, "ridge", strength=1.0).model)
    assert sorted(tuned.peft_config) == ["default", REPAIRED]
    assert not torch.equal(one, again)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_in_its_mode(tuned: Any, world: World, training: bool) -> None:
    repaired(tuned.train(training), world, "no_op")
    assert tuned.training is training
    assert {module.training for module in tuned.modules()} == {training}


def test_what_a_table_writes_for_nothing_is_no_refusal(tuned: Any, world: World) -> None:
    rows = [{**row, "refusal": float("nan") if number % 2 else "i cannot"} for number, row in enumerate(FORGET)]
    found = repaired(tuned, world, "ridge", strength=1.0, forget=rows, max_new_tokens=4)
    assert found.details["refusals"] >= len(FORGET) / 2


def test_rows_are_split_by_the_sizes_of_the_method() -> None:
    many = [{"prompt": f"harm {i}"} for i in range(300)]
    tasks = [{"prompt": f"task {i}", "response": "yes"} for i in range(400)]
    method = post_hoc("curvature", {"forget_size": 100, "check_size": 10})
    found = _data(method, many, tasks, 0)
    assert (len(found["forget"]), len(found["retain_check"])) == (100, 10)


def test_the_template_may_lie_beside_the_adapter(tuned: Any, world: World, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(world.base, bare)
    tokenizer = load_tokenizer(str(world.base))
    plain = load_tokenizer(str(bare))
    plain.chat_template = None
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    plain.save_pretrained(str(bare))
    assert not load_tokenizer(str(bare)).chat_template
    for method in ("ridge", "resta"):
        settings = {"strength": 1.0} if method == "ridge" else {"pseudo_steps": 1}
        with pytest.raises(InputError, match="chat template"):
            repaired(tuned, world, method, base=str(bare), **settings)
        repaired(tuned, world, method, base=str(bare), tokenizer=tokenizer, **settings)
        tuned.set_adapter("default")


def test_what_it_cannot_do_is_said(tuned: Any, world: World) -> None:
    before = logits(tuned)
    for changes, said in (
        ({"method": "lora"}, "give a post-hoc one"),
        ({"method": "safe_lore"}, "Did you mean 'safe_lora'"),
        ({"method": "ridge", "strenght": 1.0}, "no setting 'strenght'"),
        ({"method": "ridge", "forget": ()}, "needs harmful prompts. Give forget="),
        ({"method": "ridge", "retain": ()}, "needs rows of the task. Give retain="),
        ({"method": "tuned", "of": "ridge"}, "needs rows of validation, which only a run has"),
    ):
        with pytest.raises(InputError, match=said):
            repaired(tuned, world, **changes)
    tuned.peft_config["default"].base_model_name_or_path = ""
    with pytest.raises(InputError, match="Give base="):
        repaired(tuned, world, "no_op")
    assert torch.equal(logits(tuned), before)
