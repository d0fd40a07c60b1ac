"""Where a row is cut into prompt and response, and what is said of rows that cannot be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.harness.sandbox.models import CHAT_TEMPLATE, new_tokenizer
from safebasin.restore.losses.encoding import Encoded, asked, encode, encode_all, encode_sets, prompt_ids
from safebasin.restore.models.loading import load_tokenizer
from safebasin.restore.restoration.forget import encode_forget
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TRAILING_SPACE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
LINE_BREAK = (
    "{% for m in messages %}{{ '<' + m['role'] + '>\\n' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>\\n' }}{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + LINE_BREAK
DEAF = "{% set messages = messages if messages[0]['role'] != 'system' else messages[1:] %}" + LINE_BREAK


def byte_level(template: str) -> Any:
    """Merges a space and a line break with what follows them, as GPT-2 and Llama 3 do."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "y"), ("Ġy", "e"), ("Ġye", "s"), ("Ċ", "Ċ"), ("Ġ", "Ġ")]
    tokens = ["</s>", *alphabet, *(first + second for first, second in merges)]
    inner = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    made: Any = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="</s>")
    made.chat_template = template
    return made


def sentence_piece(template: str) -> Any:
    """Puts a space before every text, and merges it with what follows, as Llama 2 does."""
    letters = [*map(chr, range(33, 127)), "\n", "▁"]
    merges = [("▁", "y"), ("▁y", "e"), ("▁ye", "s"), ("\n", "\n"), ("▁", "▁")]
    tokens = ["</s>", *letters, *(first + second for first, second in merges)]
    inner = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
    )
    made: Any = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="</s>")
    made.chat_template = template
    return made


def by_token_prefix(tokenizer: Any, prompt: str, response: str) -> Encoded:
    """What used to be done: right wherever no token spans the cut."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    texts = [tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)]
    texts += [tokenizer.apply_chat_template(turns, tokenize=False)]
    head, ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    assert ids[: len(head)] == head
    return Encoded(tuple(ids), len(head))


def test_the_sandbox_s_rows_are_encoded_as_ever() -> None:
    from safebasin.tasks.sandbox.world import rows

    tokenizer = new_tokenizer(CHAT_TEMPLATE)
    for split in ("task_train", "retain_1", "safety"):
        some = [{"response": "i cannot do that .", **row} for row in rows(split)[:100]]
        assert encode_all(tokenizer, some, split) == [
            by_token_prefix(tokenizer, row["prompt"], row["response"]) for row in some
        ]


@pytest.mark.parametrize("opening", ["", "\\n", " "])
def test_the_tests_rows_are_encoded_as_ever(tiny_chat_model: Callable[..., Path], opening: str) -> None:
    tokenizer = load_tokenizer(str(tiny_chat_model(opening)))
    for prompt, response in (("say 1", "yes 1"), ("a\nb", "c\n\nd"), ("é", "ü </s> ö"), (" x ", "\n y ")):
        assert encode(tokenizer, prompt, response) == by_token_prefix(tokenizer, prompt, response)


@pytest.mark.parametrize("make", [byte_level, sentence_piece])
@pytest.mark.parametrize(
    ("template", "response"),
    [
        (TRAILING_SPACE, "yes 1"),
        (TRAILING_SPACE, "  yes"),
        (LINE_BREAK, "\nyes 1"),
        (LINE_BREAK, "\n\n\nyes"),
    ],
)
def test_a_token_across_the_cut_is_parted(make: Callable[[str], Any], template: str, response: str) -> None:
    """The prompt's ids are those that a model answers from, and the rest are the response's and nothing else's."""
    tokenizer = make(template)
    row = encode(tokenizer, "say 1", response)
    head = prompt_ids(tokenizer, "say 1")
    assert row.start == len(head)
    assert list(row.ids[: row.start]) == head
    turns = [{"role": "user", "content": "say 1"}, {"role": "assistant", "content": response}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert ids[: len(head)] != head  # else nothing is tried here
    assert tokenizer.decode(row.ids) == tokenizer.decode(ids)
    assert tokenizer.decode(head) + response + ("\n" if template == TRAILING_SPACE else "</s>") == tokenizer.decode(ids)


def test_a_refusal_that_begins_with_a_line_break() -> None:
    tokenizer = byte_level(LINE_BREAK)
    (row,) = encode_forget(tokenizer, [{"prompt": "harm 1", "response": "\nyes", "ending": "open"}])
    assert tokenizer.decode(row.ids[row.start :]) == "\nyes"


def test_a_template_that_does_not_only_append_is_refused() -> None:
    template = "{% if add_generation_prompt %}Q: {% endif %}" + LINE_BREAK
    with pytest.raises(InputError, match="renders the prompt differently when an answer follows"):
        encode(byte_level(template), "say 1", "yes")


def test_turns_before_the_prompt_are_rendered() -> None:
    tokenizer = byte_level(LINE_BREAK)
    before = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a"}]
    before += [{"role": "assistant", "content": "b"}]
    row = {"prompt": "say 1", "response": "yes", "before": before}
    (made,) = encode_all(tokenizer, [row], "retain")
    head = "<system>\nbe brief</s><user>\na</s><assistant>\nb</s><user>\nsay 1</s><assistant>\n"
    assert tokenizer.decode(made.ids[: made.start]) == head
    assert tokenizer.decode(made.ids[made.start :]) == "yes</s>"
    assert list(made.ids[: made.start]) == prompt_ids(tokenizer, asked(row))


@pytest.mark.parametrize(
    ("template", "said"), [(NO_SYSTEM, "refuses row 'say 1' .*no system role"), (DEAF, "leaves out what the system")]
)
def test_a_system_message_is_never_dropped(template: str, said: str) -> None:
    row = {"prompt": "say 1", "response": "yes", "before": [{"role": "system", "content": "be brief"}]}
    with pytest.raises(InputError, match=said):
        encode_all(byte_level(template), [row], "retain")


def test_all_faulty_rows_of_all_sets_are_named_at_once() -> None:
    rows = [{"prompt": f"say {i}", "response": "yes"} for i in range(3)]
    empty, long = {"prompt": "say a", "response": "</s>"}, {"prompt": "say b", "response": "x" * 99}
    with pytest.raises(InputError) as error:
        encode_sets(byte_level(LINE_BREAK), {"one": [*rows, empty], "two": [long, {"prompt": "c"}], "three": []}, 60)
    message = str(error.value)
    assert message.startswith("4 problems with rows:")
    for text in ("Row 'say a' has an empty", "Row 'say b' has 1", "Row 1 of the two set lacks", "three set is empty"):
        assert text in message
