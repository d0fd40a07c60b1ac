"""A Llama small enough to form its Jacobians and Hessians, and those, in float64, from plain forward passes."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safebasin.restore.losses.encoding import Encoded
from safebasin.restore.losses.objective import TokenMeanLoss
from safebasin.restore.losses.of_model import Losses
from safebasin.restore.models.parameters import FlatParameters
from torch import Tensor
from torch.func import functional_call
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 19
ROWS = [Encoded((3, 4, 5, 6, 7), 2), Encoded((8, 9, 10, 3, 11, 12, 13, 5, 2, 4), 6), Encoded((14, 3, 15), 2)]
"""Of 3, 4 and 1 labels, so that a width of 8 pads them and a batch mixes lengths."""
SETS = ("forget", "curvature_forget", "refusals", "curvature_refusals", "retain_1", "retain_2", "retain_check")
OTHERS = [Encoded((16, 17, 3, 18, 4), 3), Encoded((5, 3, 7, 2), 1)]


def small_model(targets: Sequence[str] = ("q_proj", "v_proj"), b_size: float = 0.3, **options: Any) -> Any:
    """A random Llama of two layers with a random adapter of rank 2; `b_size` 0 leaves the base's function."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        tie_word_embeddings=False, initializer_range=0.5,
    )  # fmt: skip
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=list(targets), task_type="CAUSAL_LM", **options)
    model = get_peft_model(LlamaForCausalLM(config), lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, b_size) if b_size else parameter.zero_()
    return model.eval()


def loss_on(
    model: Any, rows: Sequence[Encoded] = ROWS, kind: type[TokenMeanLoss] = TokenMeanLoss, micro: int = 2
) -> Any:
    return kind(model, FlatParameters(model), rows, micro, 1)


def exact(model: Any) -> Any:
    """A copy in float64, whose attention has second derivatives, which the Hessian needs."""
    twin = copy.deepcopy(model).double()
    twin.get_base_model().set_attn_implementation("eager")
    return twin


def label_logits(model: Any, row: Encoded) -> Tensor:
    """The logits that predict a row's labels, [labels, V], from a pass without padding."""
    found: Tensor = model(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1]
    return found


def flat_gradient(of: Tensor, model: Any) -> Tensor:
    wanted = [p for p in model.parameters() if p.requires_grad]
    parts = torch.autograd.grad(of, wanted, retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def gauss_newton(model: Any, rows: Sequence[Encoded] = ROWS) -> Tensor:
    """(1/T) sum_t J_t' (diag(p_t) - p_t p_t') J_t with J_t formed entry by entry, [n, n] float64."""
    twin, total = exact(model), torch.zeros(())
    for row in rows:
        for token in label_logits(twin, row):
            jacobian = torch.stack([flat_gradient(entry, twin) for entry in token])
            p = token.detach().softmax(0)
            total = total + jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
    return total / sum(row.targets for row in rows)


def cross_entropy(model: Any, row: Encoded) -> Tensor:
    """Summed over the labels."""
    targets = torch.tensor(row.ids[row.start :])
    return torch.nn.functional.cross_entropy(label_logits(model, row), targets, reduction="sum")


def divergence(model: Any, row: Encoded) -> Tensor:
    """KL(base || model) summed over the labels, term by term."""
    own = label_logits(model, row).log_softmax(1)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    with model.disable_adapter(), torch.no_grad():
        base = label_logits(model, row).softmax(1)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])
    return sum((p * (p.log() - q) for p, q in zip(base.flatten(), own.flatten(), strict=True)), torch.zeros(()))


def mean(of: Callable[[Any, Encoded], Tensor], model: Any, rows: Sequence[Encoded] = ROWS) -> Tensor:
    """Per label of all rows."""
    return sum((of(model, row) for row in rows), torch.zeros(())) / sum(row.targets for row in rows)


class _Loss(torch.nn.Module):
    def __init__(self, of: Callable[[Any, Encoded], Tensor], model: Any) -> None:
        super().__init__()
        self.of, self.model = of, model

    def forward(self) -> Tensor:
        return mean(self.of, self.model)


def hessian(of: Callable[[Any, Encoded], Tensor], model: Any) -> Tensor:
    """Of the mean loss on ROWS by the trainable parameters, [n, n] float64."""
    loss = _Loss(of, exact(model))
    named = {name: p for name, p in loss.named_parameters() if p.requires_grad}

    def value(vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in named.values()])
        found: Tensor = functional_call(
            loss, {name: part.view_as(named[name]) for name, part in zip(named, parts, strict=True)}, ()
        )
        return found

    start = torch.cat([p.detach().flatten() for p in named.values()])
    found: Tensor = torch.autograd.functional.hessian(value, start)
    return found


def matrix(product: Callable[[Tensor], Tensor], size: int) -> Tensor:
    """A product with each unit vector, [n, n] float64."""
    return torch.stack([product(unit).double() for unit in torch.eye(size)], 1)


@dataclass
class Dense:
    """A curvature that is known entry by entry, `floor` being the damping in it."""

    matrix: Tensor
    floor: float = 0.1
    tightness: float = 1.0

    @property
    def bare(self) -> Tensor:
        """Without damping, float64."""
        return self.matrix.double() - self.floor * torch.eye(len(self.matrix)).double()

    @property
    def damped(self) -> Tensor:
        """With as much as the tightness asks for, float64."""
        return self.bare + self.tightness * self.floor * torch.eye(len(self.matrix)).double()

    def inverse_product(self, v: Tensor) -> Tensor:
        return torch.linalg.solve(self.damped, v.double()).to(v)

    def bend(self, step: Tensor) -> float:
        return float(step.double() @ self.bare @ step.double())

    def report(self) -> dict[str, float]:
        return {"floor": self.tightness * self.floor}


def small_losses(model: Any = None, count: int = 6) -> Losses:
    """All sets of a restoration, of random tokens; the forget sets carry loss from the second token on."""
    generator = torch.Generator().manual_seed(0)

    def row(start: int) -> Encoded:
        length = start + 1 + int(torch.randint(4, (), generator=generator))
        return Encoded(tuple(torch.randint(2, VOCABULARY, (length,), generator=generator).tolist()), start)

    starts = {name: 1 if "forget" in name else 3 for name in SETS}
    rows = {name: [row(starts[name]) for _ in range(count)] for name in SETS}
    model = model or small_model()
    return Losses(model, FlatParameters(model), {**rows, "retain": [*rows["retain_1"], *rows["retain_2"]]}, 1, 4, 0)
