"""Second moments of what a model's modules take in, over the tokens of given rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..losses.encoding import Encoded, batches
from ..models.devices import input_device

__all__ = ["input_moments"]

ROOM = 4 << 30
"""Bytes of moments held at a time. Where all modules need more, the rows go through the model once for each part."""


def input_moments(
    model: Any,
    modules: Mapping[str, nn.Module],
    rows: Sequence[Encoded],
    size: int,
    pad: int,
    through: Mapping[str, Tensor] | None = None,
    done: Callable[[int], None] = lambda count: None,
) -> Iterator[tuple[str, Tensor]]:
    """The mean over all tokens, prompts' and responses', of x x' for the inputs x of each module.

    Modules that take in the same tensor (queries, keys and values) share one moment, computed once.

    Args:
        model: a causal LM or PEFT model, as it stands; its output head is not run.
        modules: modules of it by any name.
        rows: encoded rows.
        size: rows per forward pass.
        pad: any token id; padding is left out.
        through: module -> A [r, d_in]; if given, the moments are of A x and [r, r].
        done: told how many modules are finished.

    Yields:
        Name and moment [d_in, d_in], float64, in the order of `modules`.

    Raises:
        InputError: a module takes in nothing, or no hidden state for each token, or such that are not finite.
    """
    finished = 0
    for names in _parts(modules, through):
        found = _moments(model, {name: modules[name] for name in names}, rows, size, pad, through)
        for name in names:
            finished += 1
            yield name, found[name]
            done(finished)


def _parts(modules: Mapping[str, nn.Module], through: Mapping[str, Tensor] | None) -> Iterator[list[str]]:
    part: list[str] = []
    room = ROOM
    for name, module in modules.items():
        width = len(through[name]) if through else max(module.get_parameter("weight").shape)
        if part and room < 8 * width**2:
            yield part
            part, room = [], ROOM
        part, room = [*part, name], room - 8 * width**2
    yield part


@torch.no_grad()
def _moments(
    model: Any,
    modules: Mapping[str, nn.Module],
    rows: Sequence[Encoded],
    size: int,
    pad: int,
    through: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    leaders: dict[str, str] = {}
    seen: list[tuple[Tensor, str]] = []
    mask = torch.empty(0)

    def watch(name: str) -> Any:
        def see(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0]
            same = next((other for tensor, other in seen if tensor is x), None) if through is None else None
            if same is not None:
                leaders[name] = same
                return
            seen[:] = [(x, name)]
            if x.shape[:2] != mask.shape:
                raise InputError(f"'{name}' takes in {tuple(x.shape)}, no hidden state for each token of the rows.")
            z = x[mask.to(x.device)].float()
            z = z if through is None else z @ through[name].to(z).T
            sums[name] = sums.get(name, 0) + (z.T @ z).double()

        return see

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    handles = [module.register_forward_pre_hook(watch(name)) for name, module in modules.items()]
    tokens = 0
    try:
        for batch in batches(rows, size, pad, input_device(model)):
            mask = batch["attention_mask"].bool()
            tokens += int(mask.sum())
            inner.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
            seen.clear()
    finally:
        for handle in handles:
            handle.remove()
    means = {name: total / tokens for name, total in sums.items()}
    for name in modules:
        if leaders.get(name, name) not in means:
            raise InputError(
                f"'{name}' took in nothing, as an output head does not here. Train the adapter without it."
            )
        if not means[leaders.get(name, name)].isfinite().all():
            raise InputError(f"The inputs of '{name}' are not finite. Load the model as bfloat16 or float32.")
    return {name: means[leaders.get(name, name)] for name in modules}
