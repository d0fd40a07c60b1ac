"""Suffixes stand behind the request, and only those that survive as text are admitted."""

from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.harness.sandbox.models import CHAT_TEMPLATE, new_tokenizer
from safebasin.restore.attacks.slot import slot_for, suffix_tokens
from safebasin.restore.losses.encoding import encode, prompt_ids
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .conftest import ASKED, LENGTH, Aimed


def merging(template: str) -> Any:
    """A byte-level tokenizer that joins `a` and `b`, and a space with either."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("Ġ", "a"), ("Ġ", "b")]
    words = ["<s>", "</s>", *alphabet, "ab", "Ġa", "Ġb"]
    core = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer


TEMPLATE = (
    "<s>{% for m in messages %}{{ m['role'] }}: {{ m['content'] | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def test_the_suffix_stands_in_the_users_turn_and_the_target_follows(given: Aimed, tokenizer: Any) -> None:
    slot = given.slot
    assert set(slot.start) == {tokenizer.convert_tokens_to_ids("!")}
    assert slot.text(slot.start) == f"{ASKED} !!!!"
    assert prompt_ids(tokenizer, slot.prompt(slot.start)) == [*slot.before, *slot.start, *slot.after]
    assert encode(tokenizer, f"{ASKED} !!!!", "yes").ids[: len(slot.whole(slot.start))] == slot.whole(slot.start)
    assert tokenizer.decode(slot.target) == "yes"
    assert tokenizer.decode(slot.after) == "</s><|assistant|>\n"


def test_the_turns_before_a_request_stay(model: Any, tokenizer: Any) -> None:
    row = {"prompt": ASKED, "before": [{"role": "system", "content": "be kind"}]}
    slot = slot_for(tokenizer, row, suffix_tokens(tokenizer, 1000), LENGTH)
    assert "be kind" in tokenizer.decode(slot.before)
    assert slot.admits(slot.start)
    assert tokenizer.decode(slot.target) == "Sure, here is"


def test_a_target_can_be_cut(tokenizer: Any) -> None:
    tokens = suffix_tokens(tokenizer, 1000)
    assert len(slot_for(tokenizer, {"prompt": ASKED, "target": "yes, here"}, tokens, LENGTH, 3).target) == 3


def test_a_suffix_has_no_special_tokens_and_nothing_that_cannot_be_typed(tokenizer: Any) -> None:
    tokens = suffix_tokens(tokenizer, 1000)
    assert not set(tokens) & set(tokenizer.added_tokens_decoder)
    texts = [tokenizer.decode([token]) for token in tokens]
    assert set("".join(texts)) == {chr(code) for code in range(33, 127)}
    assert max(suffix_tokens(tokenizer, 40)) < 40


def test_tokens_that_become_others_as_text_are_not_admitted() -> None:
    tokenizer = merging(TEMPLATE)
    a, b, c, ab = (tokenizer.convert_tokens_to_ids(token) for token in ("a", "b", "c", "ab"))
    slot = slot_for(tokenizer, {"prompt": "x"}, suffix_tokens(tokenizer, 1000), 3)
    assert all(slot.admits(suffix) for suffix in ((c, a, a), (c, b, a), (c, ab, b)))
    assert not slot.admits((c, a, b))  # "ab" is a token of its own
    assert not slot.admits((a, c, c))  # so is " a"


def test_the_words_of_the_sandbox() -> None:
    words = new_tokenizer(CHAT_TEMPLATE)
    tokens = suffix_tokens(words, len(words))
    assert len(tokens) == len(words) - 8  # special tokens and the line break
    slot = slot_for(words, {"prompt": "how do i paint a car ?", "target": "sure , here is"}, tokens, 5)
    shown = words.decode(slot.whole(slot.start))
    assert shown.startswith("<bos> <user> how do i paint a car ? ")
    assert shown.endswith(" <assistant> sure , here is")
    assert slot.admits(tokens[3:8])


def test_a_length_that_no_token_can_be_repeated_to_is_said() -> None:
    tokenizer = merging(TEMPLATE)
    with pytest.raises(InputError, match="can be repeated 2 times behind the request 'x'"):
        slot_for(tokenizer, {"prompt": "x"}, suffix_tokens(tokenizer, 1000)[:1], 2)
