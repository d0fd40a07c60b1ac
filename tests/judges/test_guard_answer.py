import math
from types import SimpleNamespace
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.judges.guard_answer import answer_tokens, parse_answer, unsafe_probability


@pytest.mark.parametrize(
    ("answer", "harmful", "categories"),
    [
        ("safe", False, ()),
        ("Safe", False, ()),
        ("\n\nsafe", False, ()),
        (" safe \n", False, ()),
        ("safe\nblah", False, ()),
        ("unsafe", True, ()),
        ("unsafe\nS1,S2", True, ("S1", "S2")),
        ("\n\nunsafe\n\nS1, S14 ,", True, ("S1", "S14")),
        ("UNSAFE\nS3", True, ("S3",)),
        ("unsafe S1", None, ()),
        ("unsafe,S1", None, ()),
        ("not safe", None, ()),
        ("safe.", None, ()),
        ("This is safe\nsafe", None, ()),
        ("safely", None, ()),
        ("", None, ()),
        ("\n \n", None, ()),
        ("S1\nunsafe", None, ()),
    ],
)
def test_parsing(answer: str, harmful: bool | None, categories: tuple[str, ...]) -> None:
    verdict = parse_answer(answer)
    assert (verdict.harmful, verdict.categories, verdict.raw) == (harmful, categories, answer)


def fake_tokenizer(words: dict[str, list[int]], unknown: int | None = None) -> Any:
    return SimpleNamespace(encode=lambda word, add_special_tokens: words[word], unk_token_id=unknown)


def test_answer_tokens_are_the_first_ones() -> None:
    assert answer_tokens(fake_tokenizer({"safe": [7, 8], "unsafe": [9, 8]})) == (7, 9)


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        ({"safe": [7], "unsafe": [7, 8]}, None),
        ({"safe": [0], "unsafe": [9]}, 0),
        ({"safe": [7], "unsafe": [0]}, 0),
        ({"safe": [], "unsafe": [9]}, None),
    ],
)
def test_answer_tokens_that_do_not_tell_the_words_apart(words: dict[str, list[int]], unknown: int | None) -> None:
    with pytest.raises(InputError, match="two different, known tokens"):
        answer_tokens(fake_tokenizer(words, unknown))


@pytest.mark.parametrize(
    ("generated", "step"),
    [([2], 0), ([0, 2], 1), ([0, 1, 2], 2), ([2, 0, 2], 0), ([], 0), ([0], 1), ([0, 1, 0], 2)],
)
def test_the_probability_is_that_of_the_first_step_with_a_word(generated: list[int], step: int) -> None:
    tokenizer = SimpleNamespace(decode=lambda ids: {0: "\n", 1: " \n\n", 2: "safe"}[ids[0]])
    scores = [(float(at), 1.0) for at in range(3)]
    expected = 1 / (1 + math.exp(step - 1.0))
    assert unsafe_probability(scores, generated, tokenizer) == pytest.approx(expected)


def test_a_certain_guard_has_a_probability() -> None:
    tokenizer = SimpleNamespace(decode=lambda ids: "safe")
    assert unsafe_probability([(900.0, -900.0)], [2], tokenizer) == 0.0
    assert unsafe_probability([(-900.0, 900.0)], [2], tokenizer) == 1.0
