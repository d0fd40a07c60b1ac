"""Pairs of a harmful prompt and a safe response: given, or the aligned model's own."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from ...errors import InputError
from ..losses.encoding import Encoded, encode_all, question
from .forget import encode_forget, forget_rows, looks_like_refusal

__all__ = ["NothingRefused", "safe_rows"]


class NothingRefused(InputError):
    """The model refuses none of the prompts.

    Args:
        message: for whoever named them safety prompts.
        remark: how many answers are empty or thinking that did not end, if any, and what to do; begins with a space.
    """

    def __init__(self, message: str, remark: str = "") -> None:
        super().__init__(message + remark)
        self.remark = remark


def safe_rows(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    max_new_tokens: int,
    batch_size: int,
    max_length: int,
) -> tuple[list[Encoded], set[str]]:
    """Encodes safety rows; those without `response` get the model's own greedy answer, and stay if it is a refusal.

    Args:
        model: the aligned model.
        tokenizer: with a chat template.
        rows: column `prompt` and, optionally, `response` and the turns `before` the prompt.
        max_new_tokens: length of the model's answers.
        batch_size: prompts per generation.
        max_length: of a row with its response.

    Returns:
        The encoded rows, and the distinct prompts among them.

    Raises:
        NothingRefused: the model refuses none of the prompts.
        InputError: there are no rows, or some cannot be encoded.
    """
    if not rows:
        raise InputError("The safety set is empty. Give it rows with the column prompt and, optionally, response.")
    given = [row for row in rows if row.get("response")]
    asked = [question(row) for row in rows if not row.get("response")]

    def complies(text: str) -> bool:
        return not looks_like_refusal(text)

    # Its check inverted, forget_rows keeps the model's own answer exactly where that is a refusal.
    answered, report = forget_rows(model, tokenizer, asked, "self", max_new_tokens, batch_size, is_refusal=complies)
    refused = [row for row in answered if row["origin"] == "self"]
    if not given and not refused:
        raise NothingRefused(
            f"The model refuses none of the {len(rows)} safety prompts, so nothing is known of its refusals. "
            "Give harmful prompts that the aligned model refuses, or a column response.",
            f" {report.empty} answers were empty, or thinking that had not ended after {max_new_tokens} tokens: raise "
            "max_new_tokens."
            if report.empty
            else "",
        )
    encoded = encode_all(tokenizer, given, "safety", max_length) if given else []
    encoded += encode_forget(tokenizer, refused, max_length + max_new_tokens)
    return encoded, {str(row["prompt"]) for row in (*given, *refused)}
