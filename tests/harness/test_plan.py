"""What is trained, what is shared, and what is evaluated."""

import io
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from rich.console import Console
from safebasin import registry
from safebasin.errors import InputError
from safebasin.harness.config.model import RunConfig
from safebasin.harness.plan import Plan, frontier_points, make_plan
from safebasin.harness.terminal.plan_view import plan_table
from safebasin.restore.methods.resta import Resta
from safebasin.restore.methods.ridge import Ridge


@dataclass(frozen=True)
class FakeLora:
    stage: ClassVar[str] = "fine-tuning"


@dataclass(frozen=True)
class FakeCurvature:
    stage: ClassVar[str] = "post-hoc"
    epsilon: float = 0.1


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {"lora": FakeLora, "full": FakeLora, "curvature": FakeCurvature, "resta": Resta, "ridge": Ridge}
    monkeypatch.setattr(registry, "load", lambda group, name: methods[name])


def plan_of(**changes: Any) -> Plan:
    data = {
        "name": "test",
        "models": ["sandbox"],
        "methods": ["base", "lora", {"curvature": {"epsilon": 0.2}}],
        "tasks": {"safety": ["sandbox_hrr", "sandbox_overrefusal"], "utility": ["sandbox_eval_loss", "boolq"]},
    }
    return make_plan(RunConfig.model_validate_json(json.dumps(data | changes)))


def test_builds_and_cells() -> None:
    plan = plan_of()
    lora, curvature = plan.builds
    assert (lora.id, lora.parent, lora.stage) == ("sandbox-lora-seed0", None, "fine-tuning")
    assert (curvature.id, curvature.parent) == ("sandbox-curvature-epsilon=0.2-seed0", lora.id)
    assert (curvature.label, curvature.settings, curvature.stage) == ("curvature", {"epsilon": 0.2}, "post-hoc")
    assert [(row.label, row.stage, row.build) for row in plan.rows] == [
        ("base", "base", None),
        ("lora", "fine-tuning", lora.id),
        ("curvature", "post-hoc", curvature.id),
    ]
    assert len(plan.cells) == 12
    assert [(cell.task, cell.role) for cell in plan.cells if cell.build is None] == [
        ("sandbox_hrr", "hrr"),
        ("sandbox_overrefusal", "over_refusal"),
        ("sandbox_eval_loss", "eval_loss"),
        ("boolq", "utility"),
    ]
    assert plan.hidden == ()


def test_every_seed_has_its_own_lora_and_the_base_is_evaluated_once() -> None:
    plan = plan_of(seeds=[3, 1])
    parents = {step.id: step.parent for step in plan.builds if step.parent}
    assert parents == {f"sandbox-curvature-epsilon=0.2-seed{seed}": f"sandbox-lora-seed{seed}" for seed in (3, 1)}
    assert [row.seed for row in plan.rows if row.label == "base"] == [3]
    assert len(plan.cells) == (1 + 2 * 2) * 4


def test_post_hoc_methods_share_one_lora_that_need_not_be_listed() -> None:
    plan = plan_of(methods=["curvature", {"curvature": {"epsilon": 0.2}}])
    assert [step.id for step in plan.builds] == [
        *("sandbox-lora-seed0", "sandbox-curvature-seed0", "sandbox-curvature-epsilon=0.2-seed0"),
    ]
    assert [step.id for step in plan.hidden] == ["sandbox-lora-seed0"]
    assert {row.label for row in plan.rows} == {"curvature", "curvature[epsilon=0.2]"}


def test_a_listed_lora_is_the_one_that_is_started_from_wherever_it_stands() -> None:
    plan = plan_of(methods=["curvature", {"lora": {"label": "plain"}}])
    assert [step.id for step in plan.builds] == ["sandbox-lora-seed0", "sandbox-curvature-seed0"]
    assert plan.hidden == ()


def test_the_same_settings_under_two_labels_are_built_once() -> None:
    plan = plan_of(methods=["lora", {"lora": {"label": "again"}}])
    assert len(plan.builds) == 1
    assert [row.label for row in plan.rows] == ["lora", "again"]


def test_ids_are_folder_names_and_differ() -> None:
    odd = [{"curvature": {"epsilon": value, "label": str(value)}} for value in ("a/b", "a b", "x" * 300, "x" * 301)]
    plan = plan_of(models=["Qwen/Qwen2.5-7B", "/data/my models/m"], methods=odd)
    ids = [step.id for step in plan.builds]
    assert "Qwen--Qwen2.5-7B-lora-seed0" in ids
    assert "data--my-models--m-lora-seed0" in ids
    assert len(set(ids)) == 2 * (1 + len(odd))
    assert all(len(name) < 150 and not set(name) & set("/\\ :*?\"'<>|") for name in ids)


def test_json_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(seeds=[0, 1], judges=["keywords"])
    monkeypatch.undo()
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.digest == plan.digest == json.loads(plan.to_json())["digest"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": {}, "builds": [], "cells": [], "digest": ""}'])
def test_text_that_is_no_plan(text: str) -> None:
    with pytest.raises(InputError, match=r"no plan\.json"):
        Plan.from_json(text)


def test_a_plan_changed_by_hand() -> None:
    changed = plan_of().to_json().replace('"rank": 32', '"rank": 33')
    with pytest.raises(InputError, match=r"the plan was made for [0-9a-f]{16}"):
        Plan.from_json(changed)


def test_the_tree() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(plan_table(plan_of(methods=["base", "curvature", {"curvature": {"epsilon": 0.2}}], seeds=[0, 1])))
    text = console.export_text()
    assert "base  as it is, nothing is trained" in text
    assert "lora  fine-tuning · sandbox-lora-seed0 · 2 start from it · not evaluated" in text
    assert "curvature[epsilon=0.2]  post-hoc · sandbox-curvature-epsilon=0.2-seed1" in text
    assert "6 adapters to build, 20 cells to evaluate (5 rows x 4 tasks)" in text


def test_a_frontier_leaves_methods_alone_whose_settings_fix_their_strength() -> None:
    methods = ["base", "lora", "resta", {"resta": {"label": "bound", "gamma": None}}, {"ridge": {"strength": 1.0}}]
    plan = plan_of(methods=methods, frontier=[0.01, 0.1])
    labels = [row.label for row in plan.rows if row.label not in ("base", "lora")]
    assert labels == ["resta", "bound[epsilon=0.01]", "bound[epsilon=0.1]", "ridge"]


def test_a_frontier_gives_methods_with_an_epsilon_a_row_for_each() -> None:
    plan = plan_of(methods=["base", "lora", "curvature", {"curvature": {"epsilon": 0.5}}], frontier=[0.01, 0.1])
    assert [row.label for row in plan.rows] == [
        "base",
        "lora",
        "curvature[epsilon=0.01]",
        "curvature[epsilon=0.1]",
        "curvature[epsilon=0.5]",
    ]
    assert [step.settings for step in plan.builds[1:]] == [{"epsilon": 0.01}, {"epsilon": 0.1}, {"epsilon": 0.5}]
    assert frontier_points(plan.config) == {
        "curvature[epsilon=0.01]": ("curvature", 0.01),
        "curvature[epsilon=0.1]": ("curvature", 0.1),
    }
    assert Plan.from_json(plan.to_json()) == plan


def test_post_hoc_methods_start_from_the_lora_that_is_listed() -> None:
    plan = plan_of(methods=[{"lora": {"adapter": "there"}}, {"curvature": {"epsilon": 0.2}}])
    lora, curvature = plan.builds
    assert (lora.settings, curvature.parent) == ({"adapter": "there"}, lora.id)


def test_a_post_hoc_method_starts_from_what_it_names() -> None:
    restored = ["curvature", *({"curvature": {"start": start}} for start in ("full", "own"))]
    plan = plan_of(methods=["base", "lora", *restored, {"lora": {"adapter": "there", "label": "own"}}])
    starts = {step.label: step.parent for step in plan.builds if step.method == "curvature"}
    assert starts == {
        "curvature": "sandbox-lora-seed0",
        "curvature[start=full]": "sandbox-full-seed0",
        "curvature[start=own]": "sandbox-lora-adapter=there-seed0",
    }
    assert [step.label for step in plan.hidden] == ["full"]
    assert len({step.id for step in plan.builds}) == len(plan.builds) == 6
    assert Plan.from_json(plan.to_json()) == plan


def test_a_listed_row_of_the_start_s_method_is_taken_with_its_settings() -> None:
    plan = plan_of(methods=[{"full": {"epochs": 2.0}}, {"curvature": {"start": "full"}}])
    assert [step.parent for step in plan.builds] == [None, "sandbox-full-epochs=2.0-seed0"]
