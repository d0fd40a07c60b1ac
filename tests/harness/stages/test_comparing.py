"""What `compare` puts side by side and what it refuses; stores filled by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import safebasin
from safebasin.errors import InputError
from safebasin.harness.plan import Plan
from safebasin.harness.stages.comparing import sides_of
from safebasin.harness.stages.folder import name_of, open_store
from safebasin.harness.stages.judge import judged_as
from safebasin.harness.store.store import JudgeRecord, Sample
from safebasin.judges.base import Exchange
from safebasin.results.records import Verdict
from safebasin.results.statistics import mcnemar_exact

from .test_replicas import HARMFUL, WORLDS, N, fill, plan_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "run", plan_of(["sandbox"], seeds=[0]), lambda cell: "a" * 64)


def refill(folder: Path, plan: Plan, method: str, parts: dict[str, Any], prompt: str = "p", seed: int = 0) -> None:
    """Gives one row of a run other answers."""
    store = open_store(folder, None)
    (cell,) = [c for c in plan.cells if (c.label, c.role, c.seed) == (method, "hrr", seed)]
    samples = [Sample(i, f"{prompt}{i}", f"r{i < HARMFUL[method]}") for i in range(N)]
    store.add_cell("other", {"model": "a" * 64} | parts, None, samples, N)
    exchanges = [Exchange(sample.prompt, sample.response) for sample in samples]
    store.add_verdicts("judge 1", exchanges, [Verdict(harmful=e.response == "rTrue", refused=False) for e in exchanges])
    store.assign(plan.digest, name_of(cell), "other", "ok")
    store.close()


def test_both_forms_are_read(folder: Path, tmp_path: Path) -> None:
    assert sides_of([str(folder), "lora", "shrink"]) == ((folder, "lora"), (folder, "shrink"))
    odd = fill(tmp_path / "odd:name", plan_of(["sandbox"]), lambda cell: "a")
    assert sides_of([f"{folder}:a:b", f"{odd}:lora"]) == ((folder, "a:b"), (odd, "lora"))
    with pytest.raises(InputError, match=r"is not RUN_FOLDER:METHOD"):
        sides_of([str(folder), "lora"])
    with pytest.raises(InputError, match="1 arguments were given"):
        sides_of([str(folder)])


def test_one_run_has_its_difference_and_its_flips(folder: Path) -> None:
    (found,) = safebasin.compare(folder, "lora", "shrink")
    (replica,) = found.found.replicas
    assert (found.task, found.measure, replica.a.k, replica.b.k) == ("sandbox_hrr", "hrr", 12, 2)
    assert replica.p == mcnemar_exact([True] * 10 + [False] * 10, [False] * 20)
    assert [flip.doc_id for flip in found.flips] == list(range(2, 12))
    flip = found.flips[0]
    assert (flip.prompt, flip.response_a, flip.response_b) == ("p2", "rTrue", "rFalse")
    assert (flip.a, flip.b, flip.counts) == ("harmful", "refused", "a")
    (turned,) = safebasin.compare(folder, "shrink", "lora")
    assert {flip.counts for flip in turned.flips} == {"b"}
    assert turned.found.replicas[0].difference.value == -replica.difference.value


def test_the_base_stands_for_all_seeds_and_worlds_are_replicas(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", plan_of(WORLDS), lambda cell: f"digest of {cell.model}")
    (found,) = safebasin.compare(folder, "lora", "base")
    assert [(each.model, each.seed) for each in found.found.replicas] == [(m, s) for m in WORLDS for s in (0, 1)]
    assert found.found.overall is not None
    assert (found.found.overall.value, found.found.overall.p_worlds) == (60, 0.25)


def test_models_that_are_no_worlds_of_one_preset_are_not_averaged(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", plan_of(["a/b", "a/c"]), lambda cell: f"digest of {cell.model}")
    assert [each.models for each in safebasin.compare(folder, "lora", "shrink")] == [("a/b",), ("a/c",)]


def test_two_runs_of_the_same_prompts_are_compared(folder: Path, tmp_path: Path) -> None:
    other = fill(tmp_path / "other", plan_of(["sandbox"], seeds=[0], batch_size=7), lambda cell: "a" * 64)
    (found,) = safebasin.compare(f"{folder}:lora", f"{other}:shrink")
    assert (found.found.replicas[0].difference.value, found.cautions) == (50, ())


@pytest.mark.parametrize(
    ("parts", "prompt", "said"),
    [
        ({"model": "b" * 64}, "p", r"differ in the model or world \(digest aaaaaaaaaaaa \| bbbbbbbbbbbb: .*template"),
        ({}, "q", r"differ in the prompts \(20 documents, the first is 0\)"),
        ({"definition": "2"}, "p", r"differ in the task's YAML \(None \| 2\)"),
        ({"max_gen_toks": 5, "definition": "2"}, "p", r"the task's YAML \(None \| 2\); max_gen_toks \(None \| 5\)"),
    ],
)
def test_what_is_not_comparable_is_refused_by_name(folder: Path, parts: dict[str, Any], prompt: str, said: str) -> None:
    refill(folder, plan_of(["sandbox"], seeds=[0]), "shrink", parts, prompt)
    with pytest.raises(InputError, match=said):
        safebasin.compare(folder, "lora", "shrink")


def test_another_judge_is_refused(folder: Path, tmp_path: Path) -> None:
    plan = plan_of(["sandbox"], seeds=[0], batch_size=7)
    other = fill(tmp_path / "other", plan, lambda cell: "a" * 64)
    store = open_store(other, None)
    exchanges = [Exchange(f"p{i}", f"r{harm}") for i in range(N) for harm in (True, False)]
    store.add_verdicts("judge 2", exchanges, [Verdict(harmful=True)] * len(exchanges))
    store.set_judges(judged_as(plan.digest, 0), [JudgeRecord("judge", frozenset({"harm"}), "judge 2")])
    store.close()
    with pytest.raises(InputError, match=r"differ in the judge of harm \(judge 1 \| judge 2\)"):
        safebasin.compare(f"{folder}:lora", f"{other}:lora")


def test_what_only_rounds_otherwise_is_a_caution(folder: Path) -> None:
    refill(folder, plan_of(["sandbox"], seeds=[0]), "shrink", {"engine": "vllm 1"})
    (found,) = safebasin.compare(folder, "lora", "shrink")
    assert found.cautions == ("engine: None | vllm 1, which by itself flips some responses",)


def test_what_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no method 'lorra'. Did you mean 'lora'"):
        safebasin.compare(folder, "lorra", "shrink")
    with pytest.raises(InputError, match=r"no judged task 'sandbox_hr'. Did you mean 'sandbox_hrr'"):
        safebasin.compare(folder, "lora", "shrink", task="sandbox_hr")
    plan = plan_of(["sandbox"], seeds=[0])
    store = open_store(folder, None)
    store.assign(plan.digest, "sandbox | shrink | seed 0 | sandbox_hrr", None, "failed: no memory")
    store.close()
    with pytest.raises(InputError, match=r"shrink .* has no answers \(failed: no memory\)"):
        safebasin.compare(folder, "lora", "shrink")


def test_rows_of_another_world_in_a_shared_store_are_refused(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"models": {"sandbox": {"digest": "b" * 64}}}))
    with pytest.raises(InputError, match="was made with 'sandbox' of digest bbbbbbbbbbbb"):
        safebasin.compare(folder, "lora", "shrink")


def test_runs_of_other_seeds_are_refused(folder: Path, tmp_path: Path) -> None:
    other = fill(tmp_path / "other", plan_of(["sandbox"], seeds=[1]), lambda cell: "a" * 64)
    with pytest.raises(InputError, match=r"run:lora has no row for sandbox, seed 1, which the other has"):
        safebasin.compare(f"{folder}:lora", f"{other}:lora")
