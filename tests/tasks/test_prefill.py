"""Prefixes of k tokens: what the model reads is what was meant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.tasks.prefill import load_tokenizer, with_prefix
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

ROWS = [{"row": 7, "prompt": "ask", "target": "Sure, here is"}]


@pytest.fixture
def words() -> PreTrainedTokenizerFast:
    vocab = {word: i for i, word in enumerate(["<unk>", "sure", ",", "here", "is", "ask"])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    return tokenizer  # type: ignore[no-any-return]


def test_bytes(tiny_chat_model: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer({"pretrained": str(tiny_chat_model())})
    (row,) = with_prefix(ROWS, tokenizer, 6)
    assert (row["prefix"], row["prefix_join"], len(row["prefix_ids"])) == ("Sure, ", "", 6)
    assert with_prefix(ROWS, tokenizer, 0)[0]["prefix"] == ""
    assert with_prefix(ROWS, tokenizer, 99)[0]["prefix"] == "Sure, here is"


def test_word_level_tokenizers_lose_a_space_that_is_put_back(words: PreTrainedTokenizerFast) -> None:
    rows = [{"prompt": "ask", "target": "sure , here is"}]
    for k, prefix in ((2, "sure ,"), (4, "sure , here is"), (9, "sure , here is")):
        (row,) = with_prefix(rows, words, k)
        assert (row["prefix"], row["prefix_join"]) == (prefix, " ")


def test_a_prefix_read_differently_is_refused(tiny_chat_model: Callable[..., Path]) -> None:
    tokenizer: Any = load_tokenizer({"tokenizer": str(tiny_chat_model(seed=1))})
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "m['content'] | trim")
    with pytest.raises(InputError, match=r"Row 7: the first 6 target tokens"):
        with_prefix(ROWS, tokenizer, 6)
    with pytest.raises(InputError, match="cannot be negative"):
        with_prefix(ROWS, tokenizer, -1)


def test_a_tokenizer_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        load_tokenizer({"tokenizer": str(tmp_path / "none")})
    with pytest.raises(InputError, match="--metadata"):
        load_tokenizer({"pretrained": object()})
