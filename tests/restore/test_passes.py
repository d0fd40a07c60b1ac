"""A whole restoration runs the model exactly as often as its algorithm needs."""

from dataclasses import replace
from typing import Any

import pytest
from safebasin.restore.api import restore
from safebasin.restore.config import RestoreConfig
from safebasin.restore.problem import RestoreResult

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*forget rows are few"),
    pytest.mark.filterwarnings("ignore:The curvature rests on few"),
]
CONFIG = RestoreConfig.from_preset(
    "paper",
    iterations=3, pairs=4, min_pairs=1, trust_radius=0.5, epsilon=0.1, check_size=6, micro_batch_size=2, batch_size=3,
    forget_target="affirmative",
)  # fmt: skip


class Passes:
    """Counts runs of the model and of its backward passes, and the rows of each."""

    def __init__(self, model: Any) -> None:
        self.forward: list[int] = []
        self.backward: list[int] = []
        model.register_forward_pre_hook(
            lambda module, _, given: self.forward.append(len(given["input_ids"])), with_kwargs=True
        )
        last = model.get_base_model().model.layers[-1]
        last.register_full_backward_hook(lambda module, _, gradients: self.backward.append(len(gradients[0])))


def halves(rows: int) -> list[int]:
    """Micro-batches of two rows."""
    return [2] * (rows // 2) + [1] * (rows % 2)


def formula(result: RestoreResult, probed: int, forget: int, check: int) -> tuple[list[int], list[int]]:
    """Rows of each forward and each backward pass, sorted."""
    rows, attempts = result.record.iterations, len(result.record.probes)
    gradients = 2 * attempts * halves(probed) + len(rows) * halves(forget)
    trials = sum(1 + row["halvings"] for row in rows)
    last = halves(forget) if rows[-1]["accepted"] else []
    return sorted(gradients + (1 + trials) * halves(check) + last), sorted(gradients)


@pytest.mark.parametrize("changes", [{}, {"epsilon": 0.0}, {"trust_radius": 50.0, "max_update": 100.0}, {"walk": True}])
def test_nothing_but_the_formula_touches_the_model(
    model: Any, tokenizer: Any, harmful: Any, benign: Any, changes: dict[str, Any]
) -> None:
    passes, probes = Passes(model), [{"prompt": f"evil {i}", "target": "sure"} for i in range(12)]
    config = replace(CONFIG, **changes)
    result = restore(model, tokenizer, forget=harmful[:5], curvature_forget=probes, retain=benign, config=config)
    assert len(result.record.probes) >= 12
    assert (sorted(passes.forward), sorted(passes.backward)) == formula(result, probed=3, forget=5, check=6)


def default_formula(result: RestoreResult, refusals: int, retain: int, check: int) -> list[int]:
    """Rows of each forward pass, sorted: the base's once, and as few of the tuned model as the algorithm needs."""
    rows = result.record.iterations
    trials, products = sum(1 + row["halvings"] for row in rows), sum(row["products"] for row in rows)
    values = 1 + 1 + 1  # the base's predictions; the weight of the retain loss; the end
    both = len(rows) + products
    return sorted((values + both) * halves(refusals) + both * halves(retain) + (1 + trials) * halves(check))


@pytest.mark.parametrize("changes", [{}, {"epsilon": 1e-4}, {"cg_iterations": 1}])
def test_by_default_a_product_is_one_pass_over_each_loss(
    model: Any, tokenizer: Any, harmful: Any, benign: Any, changes: dict[str, Any]
) -> None:
    passes, forget = Passes(model), [{**row, "refusal": "i cannot"} for row in harmful]
    config = RestoreConfig(**{"check_size": 6, "micro_batch_size": 2, "retain_rows": 5, "cg_iterations": 4, **changes})
    result = restore(model, tokenizer, forget=forget[:5], curvature_forget=forget[5:], retain=benign, config=config)
    assert len(result.record.iterations) == 3
    assert sorted(passes.forward) == default_formula(result, refusals=5, retain=5, check=6)
