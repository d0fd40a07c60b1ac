"""What an alignment trains on: refusals, the same refusals behind a compliant opening, and answers to keep."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from ...errors import InputError
from ..losses.encoding import Encoded, asked, encode, encode_all, prompt_ids, question
from ..method import Tick
from ..models.thinking import answer_of
from ..restoration.forget import encode_forget, own_answers
from .refusals import opening_for, question_first, question_of, refusal_for

__all__ = ["deep_refusal", "kept_answers", "refusals"]

Row = Mapping[str, Any]


def refusals(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], deep: bool, max_length: int, questions: bool = False
) -> list[Encoded]:
    """A refusal to each harmful prompt, and with `deep` a second row that begins to comply and then refuses.

    Args:
        tokenizer: with a chat template.
        rows: column `prompt` and, optionally, `refusal` and the turns `before` the prompt.
        deep: whether refusals behind an opening are made too.
        max_length: of a row, in tokens.
        questions: whether one of a prompt's two rows asks for the same as a question (without `deep`: every second
            prompt's only row).

    Raises:
        InputError: there are no rows, or some cannot be encoded.
    """
    told = [{**question(row), "response": row.get("refusal") or refusal_for(row["prompt"])} for row in rows]

    def put(row: dict[str, Any], first: bool) -> dict[str, Any]:
        asks = questions and question_first(row["prompt"]) == first
        return {**row, "prompt": question_of(row["prompt"])} if asks else row

    made = encode_all(tokenizer, [put(row, True) for row in told], "safety", max_length)
    return made + [deep_refusal(tokenizer, put(row, False), max_length) for row in told if deep]


def deep_refusal(tokenizer: PreTrainedTokenizerBase, row: Row, max_length: int) -> Encoded:
    """A refusal behind the opening of a compliant answer; the opening carries no loss (Qi et al., arXiv 2406.05946).

    Args:
        tokenizer: with a chat template.
        row: `prompt`, a refusal as `response`, and perhaps the turns `before` the prompt.
        max_length: of the row, in tokens.
    """
    prompt, opening = asked(row), opening_for(row["prompt"])
    whole = encode(tokenizer, prompt, f"{opening} {row['response']}", max_length)
    begun = encode(tokenizer, prompt, opening, max_length)
    pairs = zip(whole.ids, begun.ids, strict=False)
    same = next((place for place, (one, other) in enumerate(pairs) if one != other), len(begun.ids))
    return Encoded(whole.ids, max(same, len(prompt_ids(tokenizer, prompt))))


def kept_answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    own: bool,
    longest: int,
    batch_size: int,
    max_length: int,
    tick: Tick,
) -> list[Encoded]:
    """Answers to harmless prompts: the model's own greedy ones as they are now, or those that the rows bring.

    An answer that was cut off at `longest` tokens carries no end of turn, so that nothing is learnt about its end.

    Args:
        model: the base before its alignment.
        tokenizer: with a chat template.
        rows: column `prompt`, without `own` also `response`.
        own: whether the model answers; its answers that are empty, or thinking that did not end, are left out.
        longest: of its answers, in tokens.
        batch_size: prompts per generation.
        max_length: of a row, in tokens.
        tick: progress.

    Raises:
        InputError: there are no rows, none got an answer, or some cannot be encoded.
    """
    if not own:
        return encode_all(tokenizer, rows, "benign", max_length)
    made: list[dict[str, Any]] = []
    ordered = sorted(rows, key=lambda row: len(row["prompt"]))
    for begin in range(0, len(ordered), batch_size):
        tick("own answers", begin, len(ordered))
        part = ordered[begin : begin + batch_size]
        answers = own_answers(model, tokenizer, [asked(row) for row in part], longest, batch_size)
        made += [
            {**question(row), "response": text, "ending": "closed" if ended else "open"}
            for row, (text, ended) in zip(part, answers, strict=True)
            if answer_of(text)
        ]
    if not made:
        raise InputError(
            f"The model answers none of {len(rows)} benign prompts with any text. Set answers: given, with rows that "
            "have responses."
        )
    return encode_forget(tokenizer, made, max_length)
