"""The harmful prompts with the texts that a restoration works on: the model's answers, and the base's refusals."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from ...errors import InputError
from ..config.settings import RestoreConfig
from ..losses.encoding import Encoded, asked, encode_all, prompt_ids, question
from ..losses.fit import check_fit
from ..models.reference import as_base
from .data import RestorationData, Rows
from .forget import ForgetReport, Target, encode_forget, forget_rows
from .loop import Tick
from .refusals import NothingRefused, safe_rows

__all__ = ["answer_forget", "base_refusals", "harmful_rows"]

Sets = dict[str, Sequence[Encoded]]


class _AnswerSettings(Protocol):
    @property
    def forget_target(self) -> Target: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def micro_batch_size(self) -> int: ...
    @property
    def max_length(self) -> int: ...


def harmful_rows(
    model: Any, tokenizer: PreTrainedTokenizerBase, data: RestorationData, config: RestoreConfig, tick: Tick
) -> tuple[Sets, ForgetReport]:
    """Encodes what the settings need: `forget` and `curvature_forget`, `refusals` and `curvature_refusals`.

    Returns:
        The sets by name, and where their texts came from.

    Raises:
        InputError: a prompt does not fit the model, or the base model refuses none.
    """
    sets: Sets = {}
    report = ForgetReport(len(data.forget), 0, 0, 0, 0)
    if config.ascend or config.stop == "base_loss":
        sets, report = _forget_sets(model, tokenizer, data, config, tick)
    if config.refusals:
        sets["refusals"] = base_refusals(model, tokenizer, data.forget, config, tick)
        report = replace(report, base_refusals=len(sets["refusals"]))
        if config.estimator == "lbfgs":
            sets["curvature_refusals"] = base_refusals(model, tokenizer, data.curvature_forget, config, tick)
    return sets, report


def _forget_sets(
    model: Any, tokenizer: PreTrainedTokenizerBase, data: RestorationData, config: RestoreConfig, tick: Tick
) -> tuple[Sets, ForgetReport]:
    names = ("forget", "curvature_forget") if config.estimator == "lbfgs" else ("forget",)
    both = [row for name in names for row in getattr(data, name)]
    if config.forget_target == "refusal" and not all(row.get("refusal") for row in both):
        rows = {name: base_refusals(model, tokenizer, getattr(data, name), config, tick) for name in names}
        return dict(rows), ForgetReport(len(both), 0, 0, 0, 0, sum(map(len, rows.values())))
    encoded, report = answer_forget(model, tokenizer, both, config, tick)
    parts = (encoded[: len(data.forget)], encoded[len(data.forget) :])
    return dict(zip(names, parts, strict=False)), report


def base_refusals(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Rows, config: RestoreConfig, tick: Tick
) -> list[Encoded]:
    """The harmful prompts that the base model refuses, with its refusals; the row's own `refusal` where it has one.

    Raises:
        InputError: a prompt does not fit the model, or the base model refuses none.
    """
    prompts = [prompt_ids(tokenizer, asked(row)) for row in rows]
    check_fit(model, prompts, "forget", config.max_new_tokens, config.max_length)
    tick("answering as the base model", 0, 1)
    given = [{**question(row), "response": row.get("refusal")} for row in rows]
    try:
        with as_base(model):
            found, _ = safe_rows(
                model, tokenizer, given, config.max_new_tokens, config.micro_batch_size, config.max_length
            )
    except NothingRefused as error:
        raise InputError(
            f"The base model refuses none of the {len(rows)} harmful prompts, so it cannot show "
            "where to go back to. Give prompts that it refuses, a column `refusal`, or refusals=0 and ascend=1."
            f"{error.remark}"
        ) from error
    tick("answering as the base model", 1, 1)
    if len(found) < len(rows) / 2:
        warnings.warn(
            f"The base model refuses only {len(found)} of {len(rows)} harmful prompts; the others are left out.",
            stacklevel=7,
        )
    return found


def answer_forget(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Rows, settings: _AnswerSettings, tick: Tick
) -> tuple[list[Encoded], ForgetReport]:
    """The forget rows with the texts whose loss is raised, encoded, and where the texts came from."""
    prompts = [prompt_ids(tokenizer, asked(row)) for row in rows]
    check_fit(model, prompts, "forget", settings.max_new_tokens, settings.max_length)
    if settings.forget_target == "prompt":
        return [Encoded(tuple(ids), 1) for ids in prompts], ForgetReport(len(rows), 0, 0, 0, 0)
    if settings.forget_target == "refusal":
        given = [{**question(row), "response": row["refusal"]} for row in rows]
        return encode_all(tokenizer, given, "forget", settings.max_length), ForgetReport(len(rows), 0, 0, 0, 0)
    tick("answering the forget prompts", 0, 1)
    answered, report = forget_rows(
        model, tokenizer, rows, settings.forget_target, settings.max_new_tokens, settings.micro_batch_size
    )
    tick("answering the forget prompts", 1, 1)
    return encode_forget(tokenizer, answered, settings.max_length + settings.max_new_tokens), report
