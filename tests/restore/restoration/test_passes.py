"""A whole restoration runs the model exactly as often as its algorithm needs."""

from dataclasses import replace
from math import ceil
from typing import Any

import pytest
import torch
from safebasin.restore.api import restore
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.restoration import stopping
from safebasin.restore.restoration.forget import looks_like_refusal
from safebasin.restore.restoration.problem import RestoreResult

from ..aligned import ANSWERED

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
    """Counts runs of the model and of its backward passes, and the rows of each.

    Of an answer that is generated the first pass counts, over the prompt; the others are over one token.
    """

    def __init__(self, model: Any) -> None:
        self.forward: list[int] = []
        self.backward: list[int] = []

        def entered(module: Any, _: Any, given: Any) -> None:
            rows, width = given["input_ids"].shape
            if width > 1:
                self.forward.append(rows)

        model.get_base_model().model.register_forward_pre_hook(entered, with_kwargs=True)  # answers go past PEFT
        last = model.get_base_model().model.layers[-1]
        last.register_full_backward_hook(lambda module, _, gradients: self.backward.append(len(gradients[0])))

    @property
    def rows(self) -> float:
        """Row-passes: a row forward is a third of one forward and backward."""
        forward, backward = sum(self.forward), sum(self.backward)
        return backward + (forward - backward) / 3


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
    assert result.record.row_passes == pytest.approx(passes.rows)
    rows = result.record.iterations
    assert sum(row["curvature_row_passes"] for row in rows) == 2 * len(result.record.probes) * 3  # of the pairs alone
    assert all(0 < row["curvature_seconds"] < row["seconds"] for row in rows)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many of the held-out prompts are refused, in words not seen before, each time that they are asked."""
    found, seen, ask = [], set(), stopping.own_answers

    def asked(model: Any, tokenizer: Any, prompts: Any, *given: Any) -> Any:
        answers = ask(model, tokenizer, prompts, *given)
        new = {one for one in zip(prompts, answers, strict=True) if looks_like_refusal(one[1][0])} - seen
        seen.update(new)
        found.append(len(new))
        return answers

    monkeypatch.setattr(stopping, "own_answers", asked)
    return found


def default_formula(
    result: RestoreResult, refusals: int, retain: int, check: int, held_out: int, rows: tuple[int, int], told: list[int]
) -> tuple[list[int], list[int]]:
    """Rows of each forward and each backward pass, sorted; `rows` are those of the curvature, of each loss.

    The base's predictions of its refusals are made once, its refusals of held-out prompts are counted once, and so are
    the retain losses of both models where the bound is a share of their difference. A product is two passes forward
    and one backward, and one forward over the first micro-batch for its step, to which those of an iteration share
    another. Each trial is judged by its loss on the retain check rows, and then by its gain. Of the held-out prompts,
    the base is asked about those that are refused in new words, `told` each time.
    """
    done, record = result.record.iterations, result.record
    descended, product = halves(refusals) + halves(retain), halves(rows[0]) + halves(rows[1])
    products = sum(row["products"] for row in done)
    within = sum(row["trials"] - (row["step_factor"] == 0) for row in done)
    backward = len(done) * descended + products * product
    forward = backward + products * product + (products + len(done)) * halves(rows[0])[:1] + within * descended
    forward += sum(row["halvings"] + 1 for row in done) * halves(check)
    forward += 2 * halves(refusals) + (1 if record.config.epsilon else 3) * halves(check)
    assert len(told) == 1 + (1 + sum(row["accepted"] for row in done) if record.state else 0)
    asked = [rows for count in told for rows in halves(held_out) + halves(count)]
    return sorted(forward + asked), sorted(backward)


CHANGES: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({}, (5, 5)), ({"iterations": 4}, (5, 5)), ({"products": 1}, (5, 5)), ({"product_tolerance": 0.5}, (5, 5)),
    ({"curvature_rows": 4, "iterations": 1}, (2, 2)), ({"epsilon": 1e-9, "halvings": 2}, (5, 5)),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "rows"), CHANGES)
@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.filterwarnings("ignore:The model is not fully restored")
def test_nothing_but_the_formula_of_the_default_touches_the_model(
    request: pytest.FixtureRequest,
    tokenizer: Any,
    changes: dict[str, Any],
    rows: tuple[int, int],
    refuses: bool,
    refused: list[int],
) -> None:
    """On a base that refuses, the bound in nats, and on one that does not, the bound as a share; the trace tells it."""
    model = request.getfixturevalue("tuned" if refuses else "model")
    bound = {"epsilon": 0.1} if refuses else {}
    few = {"iterations": 2, "check_size": 6, "micro_batch_size": 2, "retain_rows": 5}
    config = RestoreConfig(**{**bound, **few, **changes})
    forget, passes = [{"prompt": f"harm {i}", "refusal": "i cannot"} for i in range(9)], Passes(model)
    result = restore(model, tokenizer, forget=forget[:5], curvature_forget=forget[5:], retain=ANSWERED, config=config)
    done = result.record.iterations
    assert done
    assert bool(result.record.state) == refuses
    assert all(row["trials"] == 1 for row in done)  # or the trace would not tell the halvings of all of them
    assert (sorted(passes.forward), sorted(passes.backward)) == default_formula(result, 5, 5, 6, 4, rows, refused)
    assert refused[0] == (4 if refuses else 0)
    assert result.record.row_passes == pytest.approx(passes.rows)
    assert 0 < done[-1]["row_passes"] <= result.record.row_passes


def test_generated_answers_count_with_their_prompts(tuned: Any, tokenizer: Any) -> None:
    """What is restored already costs the losses at the start and two rounds of answers, and the losses of one."""
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if ".lora_" in name:
                parameter.mul_(0.1)
    passes, forget = Passes(tuned), [{"prompt": f"harm {i}", "refusal": "i cannot"} for i in range(9)]
    config = RestoreConfig(epsilon=0.1, check_size=6, micro_batch_size=2)
    result = restore(tuned, tokenizer, forget=forget[:5], curvature_forget=forget[5:], retain=ANSWERED, config=config)
    assert (result.record.ended, passes.backward) == ("restored", [])
    assert result.record.row_passes == pytest.approx((2 * 5 + 6 + 2 * 4 + 4) / 3) == pytest.approx(passes.rows)


FORGET, CHECK = 50, 200


def default_rows(iterations: int) -> float:
    """Row-passes at the sizes of the paper, at most where each first trial is within the bound.

    All products are taken, and all held-out prompts are refused in new words each time.
    """
    config = RestoreConfig()
    shares = [ceil(config.curvature_rows * n / (FORGET + config.retain_rows)) for n in (FORGET, config.retain_rows)]
    descended, held_out = FORGET + config.retain_rows, config.held_out
    product = (4 * sum(shares) + config.micro_batch_size) / 3
    each = descended * 4 / 3 + config.products * product + (config.micro_batch_size + CHECK + 2 * held_out) / 3
    return (2 * FORGET + 3 * CHECK + 4 * held_out) / 3 + iterations * each


@pytest.mark.parametrize(("probes", "iterations"), [(120, 6), (256, 8)])
def test_many_iterations_cost_less_than_the_paper_s_three(probes: int, iterations: int) -> None:
    """At the sizes of the paper, by the count of the paper's own settings where no probe step is rejected."""
    config = RestoreConfig.from_preset("paper")
    assert (config.iterations, config.forget_size, config.check_size, config.batch_size) == (3, FORGET, CHECK, 64)
    sizes = [min(config.batch_size, ceil(probes / 4)), config.batch_size, config.batch_size]
    probed = sum(2 * sizes[turn % 3] for turn in range(config.pairs))
    paper = config.iterations * (probed + FORGET + CHECK / 3) + (CHECK + FORGET) / 3
    assert default_rows(iterations) < paper
