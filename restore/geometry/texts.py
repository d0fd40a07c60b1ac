"""What the loss of a row can be taken on: its prompt, an affirmative opening, an answer or a refusal (A-3, A-4)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from transformers import PreTrainedTokenizerBase

from ..losses.encoding import Encoded, asked, pad_id_of, prompt_ids, question
from ..losses.fit import check_fit
from ..models.thinking import answer_of
from ..restoration.forget import AFFIRMATIVE, encode_forget, looks_like_refusal, own_answers

__all__ = ["TARGETS", "Asked", "Row", "Target", "encoded", "with_answers", "with_refusals"]

Target = Literal["prompt", "affirmative", "answer", "refusal", "prompt+pads"]
TARGETS: dict[Target, str] = {
    "prompt": "the rendered prompt itself, all tokens but the first",
    "affirmative": "the row's affirmative target, or a short one",
    "answer": "the row's response; of harmful prompts the tuned model's own answer where it does not refuse",
    "refusal": "the row's refusal, or the base model's own",
    "prompt+pads": "a control: the prompt, with the padding up to the longest row counted as text",
}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """One set of rows."""

    name: str
    rows: Sequence[Row]
    """Each with `prompt`, and where it has them `response`, `target`, `refusal`, `before` (turns before the prompt).
    The answers and refusals that models are asked for stand in `response` and `refusal` too, as None where a model
    gave none, with `open` naming those that did not end."""
    harmful: bool
    """Whether its prompts are to be refused."""

    @classmethod
    def of(cls, name: str, rows: Sequence[Row]) -> Self:
        """A set of the name `harmful`, or one whose rows do not say what an answer is, is of harmful prompts."""
        return cls(name, rows, name == "harmful" or not any(row.get("response") for row in rows))


def with_answers(model: Any, tokenizer: PreTrainedTokenizerBase, asked_set: Asked, longest: int, size: int) -> Asked:
    """Gives the rows of a harmful set that have no response the model's own greedy answer, where it does not refuse.

    Args:
        model: the tuned model.
        tokenizer: with a chat template.
        asked_set: returned as it is, where it is not of harmful prompts.
        longest: tokens of an answer.
        size: prompts answered at once.

    Raises:
        InputError: a prompt does not fit the model.
    """
    return _answered(model, tokenizer, asked_set, "response", longest, size, lambda text: not looks_like_refusal(text))


def with_refusals(model: Any, tokenizer: PreTrainedTokenizerBase, asked_set: Asked, longest: int, size: int) -> Asked:
    """As `with_answers`, with the base model's own refusals."""
    return _answered(model, tokenizer, asked_set, "refusal", longest, size, looks_like_refusal)


def _answered(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    given: Asked,
    key: str,
    longest: int,
    size: int,
    wanted: Callable[[str], bool],
) -> Asked:
    if not given.harmful:
        return given
    lacking = [place for place, row in enumerate(given.rows) if not row.get(key)]
    prompts = [asked(given.rows[place]) for place in lacking]
    check_fit(model, [prompt_ids(tokenizer, prompt) for prompt in prompts], given.name, longest)
    rows = [dict(row) for row in given.rows]
    for place, (text, ended) in zip(lacking, own_answers(model, tokenizer, prompts, longest, size), strict=True):
        keep = bool(answer_of(text)) and wanted(text)
        rows[place][key] = text if keep else None
        rows[place]["open"] = (*rows[place].get("open", ()), *(() if ended else (key,)))
    return replace(given, rows=rows)


def encoded(
    tokenizer: PreTrainedTokenizerBase, given: Asked, max_length: int = 1024
) -> dict[Target, list[Encoded | None]]:
    """The rows of a set for every target that it can have; None where a row has no text for one.

    Only harmful sets have affirmative targets and refusals. An opening carries no end-of-turn token.

    Raises:
        InputError: all rows that cannot be encoded.
    """
    prompts = [Encoded(tuple(prompt_ids(tokenizer, asked(row))), 1) for row in given.rows]
    found: dict[Target, list[Encoded | None]] = {"prompt": list(prompts)}
    if given.harmful:
        opening = [{**row, "target": row.get("target") or AFFIRMATIVE, "open": ("target",)} for row in given.rows]
        found["affirmative"] = _responses(tokenizer, opening, "target", max_length)
    found["answer"] = _responses(tokenizer, given.rows, "response", max_length)
    if given.harmful:
        found["refusal"] = _responses(tokenizer, given.rows, "refusal", max_length)
    width, pad = max(len(row.ids) for row in prompts), pad_id_of(tokenizer)
    found["prompt+pads"] = [Encoded(row.ids + (pad,) * (width - len(row.ids)), 1) for row in prompts]
    return {target: rows for target, rows in found.items() if any(rows)}


def _responses(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], key: str, max_length: int
) -> list[Encoded | None]:
    having = [place for place, row in enumerate(rows) if row.get(key)]
    given = [
        {**question(rows[place]), "response": rows[place][key], "ending": _ending(rows[place], key)} for place in having
    ]
    found: list[Encoded | None] = [None] * len(rows)
    for place, row in zip(having, encode_forget(tokenizer, given, max_length), strict=True):
        found[place] = row
    return found


def _ending(row: Row, key: str) -> str:
    return "open" if key in row.get("open", ()) else "closed"
