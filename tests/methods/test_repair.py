"""`safebasin.repair`: every post-hoc method on a model in memory."""

from pathlib import Path
from typing import Any

import pytest
import safebasin
import torch
from safebasin.errors import InputError
from safebasin.registry import load
from safebasin.restore.models.loading import load_adapter, load_base
from safebasin.restore.repair import REPAIRED

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
    (saved,) = (tmp_path / "out").rglob("adapter_config.json")
    again = load_adapter(load_base(str(world.base), device="cpu"), saved.parent)
    torch.testing.assert_close(logits(again), after, atol=1e-5, rtol=1e-5)
    tuned.set_adapter("default")
    assert torch.equal(logits(tuned), before)


def test_a_second_repair_takes_the_place_of_the_first(tuned: Any, world: World) -> None:
    one = logits(repaired(tuned, world, "ridge", strength=1.0).model)
    tuned.set_adapter("default")
    two = logits(repaired(tuned, world, "ridge", strength=10.0).model)
    assert not torch.equal(one, two)
    assert sorted(tuned.peft_config) == ["default", REPAIRED]


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
