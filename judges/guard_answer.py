"""What a Llama Guard answered: its words, and the probability behind them."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from scipy.special import expit

from ..errors import InputError
from ..results.records import Verdict

__all__ = ["PARSE_VERSION", "answer_tokens", "parse_answer", "unsafe_probability"]

PARSE_VERSION = 1
"""Raised whenever the same answer could be read otherwise than before; part of the judge's identity."""


def parse_answer(answer: str) -> Verdict:
    r"""Reads "safe" or "unsafe\nS1,S2", strictly.

    The first line that is not empty must be one of the two words, in any case and nothing else beside it; where it
    is "unsafe" the next one lists categories. Everything else is unparsed: `harmful=None`. ("safe" is a substring of
    "unsafe", and a guard that talks has left its format, so nothing is searched for.)
    """
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    word = lines[0].lower() if lines else ""
    if word == "safe":
        return Verdict(harmful=False, raw=answer)
    if word != "unsafe":
        return Verdict(raw=answer)
    listed = lines[1].split(",") if len(lines) > 1 else []
    return Verdict(harmful=True, categories=tuple(code.strip() for code in listed if code.strip()), raw=answer)


def answer_tokens(tokenizer: Any) -> tuple[int, int]:
    """First tokens of "safe" and of "unsafe".

    Raises:
        InputError: the tokenizer does not tell the two words apart.
    """
    safe, unsafe = (tokenizer.encode(word, add_special_tokens=False)[:1] for word in ("safe", "unsafe"))
    unknown = tokenizer.unk_token_id
    if not safe or not unsafe or safe == unsafe or (unknown is not None and unknown in (*safe, *unsafe)):
        raise InputError(
            f"The tokenizer begins 'safe' with token {safe} and 'unsafe' with {unsafe}; a guard needs two different, "
            "known tokens there. Is this a Llama Guard?"
        )
    return safe[0], unsafe[0]


def unsafe_probability(scores: Sequence[tuple[float, float]], generated: Sequence[int], tokenizer: Any) -> float:
    """P(unsafe) at the first step that is not white space, renormalised over {safe, unsafe}.

    Args:
        scores: at least one: the logits of "safe" and "unsafe" (or their log-probabilities) at each step of the greedy
            answer, the end of text included.
        generated: ids of the answer, without the end of text.
        tokenizer: to tell white space (Llama Guard 3 opens with a blank line) from words.

    Returns:
        The probability; from the step after the white space if the guard wrote nothing else.
    """
    blank = (not tokenizer.decode([token]).strip() for token in generated)
    step = min(sum(1 for _ in takewhile(bool, blank)), len(scores) - 1)
    safe, unsafe = scores[step]
    return float(expit(unsafe - safe))
