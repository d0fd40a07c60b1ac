"""What a restoration would take, told before it is done: rows, lengths, passes, seconds, and how the base answers."""

import time
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from ...errors import InputError
from ..config.settings import RestoreConfig
from ..losses.encoding import asked, encode_sets, pad_id_of, prompt_ids
from ..losses.fit import check_fit
from ..losses.of_model import Losses
from ..models.adapters import check_exact_gradients
from ..models.gate import admit
from ..models.prepare import trainable_adapter
from ..models.reference import as_base
from .data import RestorationData
from .forget import looks_like_refusal, own_answers

__all__ = ["Lengths", "Rehearsal", "passes_of_iteration", "rehearse"]

SHOWN = 3
"""Forget prompts that the base answers."""


class Lengths(NamedTuple):
    """Tokens in the rows of a set; of harmful prompts, without an answer."""

    rows: int
    shortest: int
    middle: float
    longest: int


@dataclass(frozen=True)
class Rehearsal:
    """What a restoration would take."""

    lengths: dict[str, Lengths]
    passes: float
    """Row-passes of an iteration, about (`losses.passes`)."""
    seconds: float
    """Of a row-pass, measured on one micro-batch of the longest retain rows."""
    answers: list[tuple[str, str, bool]]
    """Of the base model to the first forget prompts: prompt, answer, whether it is taken for a refusal."""


def rehearse(
    peft_model: Any, tokenizer: PreTrainedTokenizerBase, data: RestorationData, config: RestoreConfig
) -> Rehearsal:
    """Encodes all rows, runs one micro-batch forward and backward, and lets the base answer a few forget prompts.

    The model is left as it was.

    Raises:
        InputError: whatever `restore` would raise before its first update for rows, model and tokenizer.
    """
    check_exact_gradients(peft_model)
    tokenizer = admit(peft_model, tokenizer)
    retained = {name: getattr(data, name) for name in ("retain_1", "retain_2", "retain_check")}
    rows = encode_sets(tokenizer, retained, config.max_length)
    for name, encoded in rows.items():
        check_fit(peft_model, [row.ids for row in encoded], name)
    prompts = {
        name: [prompt_ids(tokenizer, asked(row)) for row in getattr(data, name)]
        for name in ("forget", "curvature_forget")
    }
    for name, ids in prompts.items():
        check_fit(peft_model, ids, name, config.max_new_tokens, config.max_length)
    with trainable_adapter(peft_model) as parameters:
        longest = sorted(rows["retain_1"], key=lambda row: -len(row.ids))[: config.micro_batch_size]
        losses = Losses(
            peft_model, parameters, {"longest": longest}, pad_id_of(tokenizer), config.micro_batch_size, config.seed
        )
        began = time.perf_counter()
        loss, _ = losses.on("longest").loss_and_gradient()
        seconds = (time.perf_counter() - began) / len(longest)
        if loss != loss:
            raise InputError("The loss on retain rows is not a number (NaN). Load the model in another dtype.")
        shown = data.forget[:SHOWN]
        with as_base(peft_model):
            said = own_answers(peft_model, tokenizer, [asked(row) for row in shown], config.max_new_tokens, SHOWN)
    counts = {name: [len(row.ids) for row in encoded] for name, encoded in rows.items()}
    counts = {name: list(map(len, ids)) for name, ids in prompts.items()} | counts
    return Rehearsal(
        {name: Lengths(len(each), min(each), median(each), max(each)) for name, each in counts.items()},
        passes_of_iteration(data, config),
        seconds,
        [(row["prompt"], text, looks_like_refusal(text)) for row, (text, _) in zip(shown, said, strict=True)],
    )


def passes_of_iteration(data: RestorationData, config: RestoreConfig) -> float:
    """Row-passes of one iteration whose first update is accepted, about; undone and halved updates come on top.

    The gradient of what is descended, the curvature, the loss on the retain check rows, and the held-out prompts.
    """
    harmful = len(data.forget)
    descended = harmful * ((config.refusals > 0) + (config.ascend > 0))
    kept = 0 if config.retain == 0 else min(config.retain_rows, len(data.retain_1) + len(data.retain_2))
    if config.estimator == "lbfgs":
        batch = min(config.batch_size, max(1, len(data.retain_1) // 4))
        curvature = 2.0 * config.pairs * batch
    elif config.estimator == "fisher":
        curvature = float(config.curvature_rows)
    else:
        curvature = config.products * config.curvature_rows * 4 / 3
    asked_again = min(config.held_out, len(data.curvature_forget)) if config.stop == "refused" else 0
    looked_at = descended + kept + len(data.retain_check) + 2 * asked_again
    return descended + kept + curvature + looked_at / 3
