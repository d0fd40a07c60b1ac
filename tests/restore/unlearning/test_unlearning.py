import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.registry import load
from safebasin.restore.losses.encoding import encode_all, pad_id_of
from safebasin.restore.losses.npo import NpoLoss
from safebasin.restore.losses.objective import TokenMeanLoss
from safebasin.restore.losses.of_model import Losses
from safebasin.restore.losses.terms import Term
from safebasin.restore.methods.grad_diff import GradDiff
from safebasin.restore.methods.gradient_ascent import GradientAscent
from safebasin.restore.methods.npo import Npo
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.models.prepare import trainable_adapter
from safebasin.restore.unlearning.config import RetainedUnlearnConfig, UnlearnConfig
from safebasin.restore.unlearning.steps import retain_terms, unlearn_parameters
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity

CONFIG = UnlearnConfig(epsilon=0.05, steps=4, step_length=0.3)
METHODS = [GradientAscent, GradDiff, Npo]
Problem = tuple[FlatParameters, Callable[[int, int], list[Term]], Any]


@pytest.fixture
def problem(theta: FlatParameters, quadratic: Any) -> Problem:
    forget, retain = quadratic(1), quadratic(2)
    theta.set(retain.centre.float())
    return theta, lambda iteration, step: [Term("forget_loss", -1.0, forget)], retain


def test_a_step_goes_up_the_gradient_with_the_given_length(problem: Problem, quadratic: Any) -> None:
    theta, forget = problem[0], quadratic(1)
    start, gradient = theta.get(), forget.loss_and_gradient()[1]
    trace = unlearn_parameters(*problem, replace(CONFIG, epsilon=100.0, iterations=1, steps=1))
    assert torch.allclose(theta.get() - start, 0.3 * gradient / gradient.norm(), atol=1e-6)
    assert trace.iterations[0]["distance"] == pytest.approx(0.3, rel=1e-5)


def test_the_terms_are_summed_with_their_weights(theta: FlatParameters, quadratic: Any) -> None:
    one, two, start = quadratic(1), quadratic(2), theta.get()
    gradient = -0.5 * one.loss_and_gradient()[1] + 2.0 * two.loss_and_gradient()[1]
    terms = [Term("a", -0.5, one), Term("b", 2.0, two)]
    config = replace(CONFIG, epsilon=1e6, iterations=1, steps=1)
    trace = unlearn_parameters(theta, lambda *_: terms, quadratic(3), config)
    assert torch.allclose(theta.get() - start, -0.3 * gradient / gradient.norm(), atol=1e-6)
    assert trace.iterations[0]["gradient_evaluations"] == 2
    assert trace.iterations[0]["b_before"] > 0


def test_shorter_gradients_make_shorter_steps_unless_the_length_is_constant(
    theta: FlatParameters, quadratic: Any
) -> None:
    down = [Term("loss", 1.0, quadratic(1))]
    config = replace(CONFIG, epsilon=1e6, constant_length=False, iterations=1, steps=6)
    rows = unlearn_parameters(theta, lambda *_: down, quadratic(2), config).iterations
    for row in rows:
        expected = 0.3 * min(1.0, row["gradient_norm"] / rows[0]["gradient_norm"])
        assert row["moved_norm"] == pytest.approx(expected, rel=1e-4)
    assert rows[-1]["step_norm"] < rows[0]["step_norm"] == pytest.approx(0.3)


@pytest.mark.parametrize("epsilon", [0.0, 0.001, 0.1])
def test_epsilon_bounds_the_sum_of_all_steps(problem: Problem, epsilon: float) -> None:
    theta, _, retain = problem
    before = theta.get()
    trace = unlearn_parameters(*problem, replace(CONFIG, epsilon=epsilon, step_length=2.0, steps=21))
    assert retain.loss() <= trace.retain_reference + epsilon
    assert trace.iterations[-1]["retain_loss"] == retain.loss()
    assert torch.equal(theta.get(), before) == (epsilon == 0)


def test_a_step_given_up_ends_its_iteration(problem: Problem) -> None:
    trace = unlearn_parameters(*problem, replace(CONFIG, epsilon=0.0, halvings=2))
    assert [(row["iteration"], row["step"], row["accepted"]) for row in trace.iterations] == [
        (i, 0, False) for i in range(3)
    ]


@pytest.mark.parametrize("evaluations", range(2, 8))
def test_an_interrupt_leaves_the_last_accepted_step(problem: Problem, evaluations: int) -> None:
    theta, _, retain = problem
    start, states = theta.get(), []
    unlearn_parameters(*problem, replace(CONFIG, epsilon=100.0), lambda *_: states.append(theta.get()))
    theta.set(start)
    retain.calls.clear()
    retain.fail_at = evaluations  # the reference, then one for each step
    with pytest.raises(KeyboardInterrupt):
        unlearn_parameters(*problem, replace(CONFIG, epsilon=100.0))
    assert torch.equal(theta.get(), [start, *states][evaluations - 1])


def test_a_vanished_gradient_is_refused(theta: FlatParameters, quadratic: Any) -> None:
    retain = quadratic(1)
    zero = [Term("forget_loss", 0.0, retain)]
    with pytest.raises(InputError, match="vanished"):
        unlearn_parameters(theta, lambda *_: zero, retain, CONFIG)


@pytest.fixture
def losses(model: Any, tokenizer: Any) -> Any:
    """Losses on answers of different lengths, the model being as fine-tuned."""
    answers = ["yes", "yes 1 2 3", "no", "here is how to do it"]
    rows = encode_all(tokenizer, [{"prompt": f"harm {i}", "response": text} for i, text in enumerate(answers)], "x")
    with trainable_adapter(model) as parameters:
        yield Losses(model, parameters, {"forget": rows, "retain": rows * 6}, pad_id_of(tokenizer), 3, 0)


def nudge(losses: Losses, size: float = 0.05) -> None:
    torch.manual_seed(1)
    losses.parameters.add(torch.randn(losses.parameters.size), size)


def test_npo_at_its_reference_is_gradient_ascent(losses: Losses) -> None:
    npo = NpoLoss(losses, "forget", 0.7)
    value, gradient = npo.loss_and_gradient()
    assert value == pytest.approx(2 / 0.7 * 0.6931471805599453)
    assert npo.loss() == pytest.approx(value)
    ascent = -losses.on("forget").loss_and_gradient()[1]
    tokens = sum(row.targets for row in losses.rows["forget"])
    assert torch.allclose(gradient, ascent * tokens / 4, rtol=1e-4, atol=1e-6)


def test_npo_tends_to_gradient_ascent_as_beta_falls(losses: Losses) -> None:
    made = [NpoLoss(losses, "forget", beta) for beta in (3.0, 0.1, 1e-4)]
    nudge(losses, 0.3)
    ascent = -losses.on("forget").loss_and_gradient()[1]
    off = [1 - float(cosine_similarity(npo.loss_and_gradient()[1], ascent, dim=0)) for npo in made]
    assert off[0] > off[1] > off[2]
    assert off[2] < 1e-5


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
def test_npo_weights_each_row_in_closed_form(losses: Losses, beta: float) -> None:
    def one_by_one() -> list[tuple[float, torch.Tensor]]:
        """log pi(y|x) of each row and its gradient."""
        found = []
        for row in losses.rows["forget"]:
            loss, gradient = TokenMeanLoss(losses.model, losses.parameters, [row], 1, losses.pad).loss_and_gradient()
            found.append((-loss * row.targets, -gradient * row.targets))
        return found

    npo, reference = NpoLoss(losses, "forget", beta), one_by_one()
    nudge(losses)
    now = one_by_one()
    ratios = torch.tensor([a - b for (a, _), (b, _) in zip(now, reference, strict=True)], dtype=torch.float64)
    value, gradient = npo.loss_and_gradient()
    assert value == pytest.approx(float((2 / beta * torch.log1p(torch.exp(beta * ratios))).mean()), rel=1e-4)
    pi, ref = (torch.tensor([row[0] for row in rows], dtype=torch.float64).exp() ** beta for rows in (now, reference))
    weights = 2 * pi / (pi + ref)
    expected = torch.stack([w * g for w, (_, g) in zip(weights.float(), now, strict=True)]).mean(0)
    assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-5)
    assert weights.max() - weights.min() > 0.01


def test_npo_lets_go_of_what_is_improbable(losses: Losses) -> None:
    npo = NpoLoss(losses, "forget", 1.0)
    npo._reference = {key: rows - 2000.0 for key, rows in npo._reference.items()}
    value, gradient = npo.loss_and_gradient()
    assert value == 0.0
    assert not gradient.any()


def test_retain_batches_differ_by_step_and_iteration_but_not_by_run(losses: Losses) -> None:
    config = RetainedUnlearnConfig(batch_size=6, steps=4, iterations=2)

    def drawn() -> list[Any]:
        terms = retain_terms(losses, config)
        return [[terms(i, s)[0].objective._rows for s in range(4)] for i in range(2)]

    assert drawn() == drawn()
    assert drawn()[0] != drawn()[1]
    assert retain_terms(losses, replace(config, retain_weight=0.0))(0, 0) == ()


@pytest.fixture
def data(harmful: Any, benign: Any) -> dict[str, Any]:
    return {
        "forget": harmful[:6], "curvature_forget": harmful[6:], "retain_1": benign[:10], "retain_2": benign[10:20],
        "retain_check": benign[20:],
    }  # fmt: skip


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([part.flatten() for _, part in sorted(load_file(folder / "adapter_model.safetensors").items())])


@pytest.mark.parametrize("method", METHODS)
def test_a_method_raises_the_forget_loss_within_epsilon(method: Any, context: Any, adapter: Path, data: Any) -> None:
    given = {name: data[name] for name in method.needs}
    settings = {"epsilon": 0.05, "steps": 3, "max_new_tokens": 6, "micro_batch_size": 64}
    made = [context(data=given, parent=adapter, seed=seed) for seed in (0, 0)]
    ticks: list[Any] = []
    built = [method(**settings).build(replace(one, tick=lambda *news: ticks.append(news))) for one in made]
    details = json.loads(json.dumps(dict(built[0].details)))
    assert details["forget_loss"] > details["forget_loss_before"]
    assert details["retain_loss"] <= details["retain_loss_before"] + 0.05
    first, again = (weights(one.output) for one in made)
    assert torch.equal(first, again)
    assert details["moved_norm"] == pytest.approx(float((first - weights(adapter)).norm()), rel=1e-3)
    assert built[0].safety_examples == 6
    assert ticks[-1] == ("unlearning", 9, 9)
    trace = json.loads((made[0].output / "restoration_trace.json").read_text())
    assert sum(row["accepted"] for row in trace["iterations"]) == details["accepted_steps"] > 0
    per_step = 1 if method is GradientAscent else 2
    assert details["gradient_evaluations"] == per_step * len(trace["iterations"])


def test_grad_diff_without_its_retain_term_is_gradient_ascent(context: Any, adapter: Path, data: Any) -> None:
    made = [context(data=data, parent=adapter) for _ in range(2)]
    settings: dict[str, Any] = {"steps": 2, "iterations": 1, "max_new_tokens": 6, "forget_from": "both"}
    one = GradientAscent(**settings).build(made[0])
    GradDiff(**settings, retain_weight=0.0, constant_length=True).build(made[1])
    assert torch.equal(weights(made[0].output), weights(made[1].output))
    assert one.safety_examples == 12


@pytest.mark.parametrize("method", METHODS)
def test_it_is_registered_and_needs_a_parent(method: Any, context: Any, data: Any) -> None:
    assert load("methods", method.name) is method
    with pytest.raises(InputError, match="none was given"):
        method().build(context(data=data))


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (GradientAscent, {"epsilon": -1.0, "steps": 0, "step_length": 0.0, "halvings": 1.5, "forget_from": "all"}),
        (GradDiff, {"retain_weight": -1.0, "batch_size": 0}),
        (GradDiff, {"forget_weight": 0.0}),
        (Npo, {"beta": 0.0}),
        (Npo, {"beta": float("nan")}),
    ],
)
def test_bad_settings_are_refused(method: Any, wrong: Any) -> None:
    with pytest.raises(InputError) as caught:
        method(**wrong)
    assert all(f"{name}=" in str(caught.value) for name in list(wrong)[:1])
