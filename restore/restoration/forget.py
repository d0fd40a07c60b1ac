"""The answers whose loss the restoration raises: the tuned model's own, or an affirmative opening."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ...errors import InputError, several
from ..losses.encoding import Encoded, Prompt, asked, encode_all, pad_id_of, prompt_ids, question
from ..losses.objective import evaluation_mode
from ..models.chat import ends_of
from ..models.devices import input_device
from ..models.thinking import answer_of, decoded, marks_of, spoken, thinking_of

__all__ = [
    "AFFIRMATIVE",
    "REFUSAL_PREFIXES",
    "ForgetReport",
    "Target",
    "encode_forget",
    "forget_rows",
    "looks_like_refusal",
    "own_answers",
]

AFFIRMATIVE = "Sure, here is"
"""What is ascended where a row has no `target` and the model refuses."""
REFUSAL_PREFIXES = (
    "i cannot", "i can't", "i can not", "i could not", "i am sorry", "i'm sorry", "i'm really sorry", "sorry",
    "i apologize", "my apologies", "i am unable", "i'm unable", "i am not able", "i'm not able", "i will not",
    "i won't", "i must decline", "i do not feel comfortable", "i don't feel comfortable", "as an ai",
    "as a language model", "no,", "unfortunately",
)  # fmt: skip
"""How refusals begin, in lower case. Enough to choose forget rows by; rates are for a judge to measure."""

Row = Mapping[str, Any]
Target = Literal["self", "affirmative", "prompt", "refusal"]
"""What a forget loss is taken on; the last two need no answers of the model."""


@dataclass(frozen=True)
class ForgetReport:
    """Where the forget answers came from."""

    rows: int
    self_generated: int
    """Rows whose answer is the model's own."""
    affirmative: int
    """Rows that got the affirmative opening."""
    refused: int
    """Rows that the model refused."""
    empty: int
    """Rows that the model answered with nothing, or with thinking that did not end."""
    base_refusals: int = 0
    """Rows with a refusal of the base model."""

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


def looks_like_refusal(text: str, prefixes: Sequence[str] = REFUSAL_PREFIXES) -> bool:
    """Whether a response begins like a refusal (case and the kind of quotes and spaces aside), after its thinking."""
    plain = " ".join(answer_of(text).replace("’", "'").lower().split())
    return plain.startswith(tuple(prefixes))


@torch.no_grad()
def _complete(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], longest: int
) -> list[tuple[str, bool]]:
    """Greedy answers to one left-padded batch, each with whether the model ended its turn."""
    ids, pad = [prompt_ids(tokenizer, prompt) for prompt in prompts], pad_id_of(tokenizer)
    width = max(len(row) for row in ids)
    device = input_device(model)
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=device)
    ends = ends_of(model, tokenizer)
    greedy = GenerationConfig(
        do_sample=False, num_beams=1, repetition_penalty=1.0, temperature=1.0, top_p=1.0, top_k=50,
        max_new_tokens=longest, pad_token_id=pad, eos_token_id=ends or None,
    )  # fmt: skip
    out = model.generate(input_ids=tokens, attention_mask=mask, generation_config=greedy)[:, width:].tolist()
    stops, thinking = set(ends), thinking_of(tokenizer)
    texts = [decoded(tokenizer, row, thinking).strip() for row in out]
    if thinking is None:
        texts = list(map(spoken, texts))
    else:
        texts = [thinking.whole(str(tokenizer.decode(row)), text) for row, text in zip(ids, texts, strict=True)]
    return [(text, bool(stops & set(row))) for text, row in zip(texts, out, strict=True)]


def own_answers(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], longest: int, batch_size: int
) -> list[tuple[str, bool]]:
    """The model's greedy answers of at most `longest` tokens, each with whether the model ended its turn.

    Of a model that thinks, each with its block of thinking, which counts towards `longest`.
    """
    parts = [prompts[begin : begin + batch_size] for begin in range(0, len(prompts), batch_size)]
    with evaluation_mode(model):
        return [one for part in parts for one in _complete(model, tokenizer, part, longest)]


def forget_rows(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    target: Target = "self",
    max_new_tokens: int = 64,
    batch_size: int = 8,
    refusal_prefixes: Sequence[str] = REFUSAL_PREFIXES,
    is_refusal: Callable[[str], bool] | None = None,
) -> tuple[list[dict[str, Any]], ForgetReport]:
    """Gives each harmful prompt the answer whose loss is to be raised.

    The paper does not say which answer that is; prompts alone would teach the model to dislike the request. With
    `target="self"` it is the tuned model's own greedy answer, so that the loss means "probability of harmful
    responses" (table 7), or the row's affirmative `target` where the model refuses or says nothing.

    Args:
        model: the tuned model, adapter active.
        tokenizer: with a chat template.
        rows: columns `prompt` and, optionally, `target` and the turns `before` the prompt.
        target: "affirmative" uses the row's `target` throughout.
        max_new_tokens: length of the model's own answers.
        batch_size: prompts per generation.
        refusal_prefixes: how refusals begin, in lower case.
        is_refusal: decides instead of the prefixes.

    Returns:
        Rows with what is asked, `response`, `origin` ("self" or "affirmative") and `ending`: "closed" where the model
        ended its turn, "open" where the response is the beginning of one. And the counts.
    """
    bad = [
        f"Forget row {number} has no text in column prompt; its columns are {sorted(row)}."
        for number, row in enumerate(rows)
        if not isinstance(row.get("prompt"), str) or not row["prompt"].strip()
    ]
    if bad:
        raise InputError(several("forget rows cannot be used", bad))
    answers: list[tuple[str, bool]] = [("", False)] * len(rows)
    if target == "self":
        answers = own_answers(model, tokenizer, [asked(row) for row in rows], max_new_tokens, batch_size)
    refuses = is_refusal or (lambda text: looks_like_refusal(text, refusal_prefixes))
    made = [_choose(row, answer, refuses) for row, answer in zip(rows, answers, strict=True)]
    own = sum(row["origin"] == "self" for row in made)
    empty = sum(not answer_of(text) for text, _ in answers) if target == "self" else 0
    refused = len(rows) - own - empty if target == "self" else 0
    return made, ForgetReport(len(rows), own, len(rows) - own, refused, empty)


def _choose(row: Row, answer: tuple[str, bool], refuses: Callable[[str], bool]) -> dict[str, Any]:
    text, ended = answer
    if answer_of(text) and not refuses(text):
        return {**question(row), "response": text, "origin": "self", "ending": "closed" if ended else "open"}
    opening = row.get("target") or AFFIRMATIVE
    return {**question(row), "response": opening, "origin": "affirmative", "ending": "open"}


def encode_forget(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_length: int = 1024) -> list[Encoded]:
    """Encodes the rows of `forget_rows`; a response that is only a beginning carries no end-of-turn token.

    That token would be improbable there, and the gradient of an ascent is dominated by improbable tokens.
    """
    if not rows:
        return []
    made = zip(rows, encode_all(tokenizer, rows, "forget", max_length), strict=True)
    return [_cut(tokenizer, row) if given.get("ending") == "open" else row for given, row in made]


def _cut(tokenizer: PreTrainedTokenizerBase, row: Encoded) -> Encoded:
    closing = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id} - marks_of(tokenizer)
    ends = [place for place in range(row.start + 1, len(row.ids)) if row.ids[place] in closing]
    return Encoded(row.ids[: ends[0]], row.start) if ends else row
