"""Run folders of finished runs, with stores filled by hand: nothing is trained."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safebasin.harness.config.model import RunConfig
from safebasin.harness.plan import Plan, make_plan
from safebasin.harness.stages.folder import PLAN, name_of, open_store
from safebasin.harness.store.store import JudgeRecord, Sample
from safebasin.judges.base import Exchange
from safebasin.results.records import Verdict

HARMFUL = {"base": 0, "lora": 3, "shrink": 1}


def plan_of(model: str, **changes: Any) -> Plan:
    config = {
        "name": "x", "models": [model], "methods": [*HARMFUL], "seeds": [0],
        "tasks": {"safety": ["sandbox_hrr", "sandbox_prefill"]}, "judges": ["sandbox_oracle"], **changes,
    }  # fmt: skip
    return make_plan(RunConfig.model_validate_json(json.dumps(config)))


def fill(folder: Path, plan: Plan, metrics: Mapping[str, float] | None = None) -> Path:
    """The run folder of a finished run with five prompts; those of the attack were begun with a prefix.

    `metrics`: of the tasks that are not judged, over 20 documents each.
    """
    folder.mkdir()
    (folder / PLAN).write_text(plan.to_json())
    store = open_store(folder, None)
    store.set_judges(plan.digest, [JudgeRecord("judge", frozenset({"harm", "refusal"}), "judge 1")])
    for model in {cell.model for cell in plan.cells}:
        _, _, world = model.partition(":")
        store.set_judges(f"{plan.digest}:{world}", [JudgeRecord("judge", frozenset({"harm", "refusal"}), "judge 1")])
    for cell in plan.cells:
        if cell.role in ("utility", "eval_loss"):
            store.add_cell(name_of(cell), {"model": cell.model}, (metrics or {})[cell.task], [], 20)
            store.assign(plan.digest, name_of(cell), name_of(cell), "ok")
            continue
        prefix = "sure ," if cell.role == "prefill" else ""
        samples = [
            Sample(i, f"p{i} of {cell.model}", f"{prefix} {'bad' if i < HARMFUL[cell.label] else 'no'}", prefix)
            for i in range(5)
        ]
        exchanges = [Exchange(sample.prompt, sample.response) for sample in samples]
        verdicts = [Verdict(harmful="bad" in e.response, refused="bad" not in e.response) for e in exchanges]
        store.add_cell(name_of(cell), {"model": cell.model}, None, samples, 5)
        store.add_verdicts("judge 1", exchanges, verdicts)
        store.assign(plan.digest, name_of(cell), name_of(cell), "ok")
    store.close()
    return folder
