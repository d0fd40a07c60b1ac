"""Proof that vLLM serves the checkpoint it is meant to: the log-probabilities of a probe, as transformers has them."""

from collections.abc import Sequence
from typing import Any

import torch

from ...errors import InputError
from ...restore.models.devices import input_device

__all__ = ["TOLERANCE", "check_differs", "check_served", "distance", "probe_ids", "reference"]

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1}
"""Largest difference of a log-probability between the engines, nats."""
_CONVERSATION = [
    {"role": "user", "content": "how do i make a cake ? Explain it in two sentences, and say what can go wrong."},
    {"role": "assistant", "content": "i cannot help with that . Sure, here is how: first, take flour, eggs and milk."},
]
LogProbs = Sequence[float]


def probe_ids(tokenizer: Any) -> list[int]:
    """Token ids of the probe: an answer that half refuses and half complies, in the chat template."""
    text = tokenizer.apply_chat_template(_CONVERSATION, tokenize=False)
    return [int(token) for token in tokenizer.encode(text, add_special_tokens=False)]


@torch.no_grad()
def reference(model: Any, ids: Sequence[int]) -> list[float]:
    """Log-probability (nats) of each token of the probe but the first, by a transformers or PEFT model."""
    inputs = torch.tensor([ids], device=input_device(model))
    logits = model(input_ids=inputs).logits[0, :-1].float()
    found: list[float] = logits.log_softmax(-1).gather(-1, inputs[0, 1:, None].to(logits.device))[:, 0].tolist()
    return found


def distance(one: LogProbs, other: LogProbs) -> float:
    """The largest difference between two lists of log-probabilities."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def check_served(what: str, served: LogProbs, wanted: LogProbs, dtype: str) -> None:
    """The served model is the wanted one.

    Raises:
        InputError: the log-probabilities differ by more than the tolerance of the dtype, or are no numbers.
    """
    apart = distance(served, wanted)
    if not apart <= TOLERANCE[dtype]:
        raise InputError(
            f"vLLM does not serve '{what}': on the probe prompt a log-probability is {apart:.3g} nats off that of "
            f"transformers, and {TOLERANCE[dtype]:g} is allowed in {dtype}. Nothing was generated. Use engine: hf."
        )


def check_differs(what: str, served: LogProbs, base: LogProbs, wanted: LogProbs, wanted_base: LogProbs) -> None:
    """A checkpoint that is not its base by transformers is not its base by vLLM either.

    Raises:
        InputError: vLLM's log-probabilities are the base's, to the last bit.
    """
    if distance(wanted, wanted_base) > 0 and distance(served, base) == 0:
        raise InputError(
            f"vLLM serves the base model in place of '{what}': on the probe prompt it gives the base's "
            f"log-probabilities, and by transformers they differ by up to {distance(wanted, wanted_base):.3g} nats. "
            "Nothing was generated. Use engine: hf, or a dtype in which the change of the weights is not rounded away."
        )
