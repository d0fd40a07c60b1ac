"""Models that think before they answer: where the answer begins, how blocks are kept, and what rows become."""

from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.restore.losses.encoding import encode, prompt_ids
from safebasin.restore.models.loading import load_tokenizer
from safebasin.restore.models.thinking import (
    Thinking,
    answer_of,
    decoded,
    ending_thinking,
    marks_of,
    split_thinking,
    thinking_of,
)
from safebasin.restore.restoration.forget import encode_forget, looks_like_refusal

from ..aligned import MAY, OPENS


@pytest.fixture
def thinker(tiny_chat_model: Any) -> Any:
    """Makes the tiny model's tokenizer with another template, and with special tokens if some are given."""

    def make(template: str, *special: str) -> Any:
        tokenizer = load_tokenizer(str(tiny_chat_model("")))
        if special:
            tokenizer.add_tokens(list(special), special_tokens=True)
        tokenizer.chat_template = template
        return tokenizer

    return make


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("plain", "", "plain"),
        ("  plain ", "", "  plain "),
        ("<think>\nwhy\n</think>\n\nSorry", "why", "Sorry"),
        ("why\n</think>\n\nSorry", "why", "Sorry"),
        ("<think>\n\n</think>\n\nyes", "", "yes"),
        ("[THINK]a[/THINK]b", "a", "b"),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        ("<think>\nwhy", "why", None),
        ("\n[THINK]why", "why", None),
        ("<think>why</think>", "why", ""),
        ("see <think>a</think>", "", "see <think>a</think>"),
    ],
)
def test_an_answer_is_what_follows_the_thinking(text: str, thinking: str, answer: str | None) -> None:
    assert split_thinking(text) == (thinking, answer)
    assert answer_of(text) == (answer or "")


def test_refusals_are_looked_for_in_answers_alone() -> None:
    assert looks_like_refusal("<think>Sure, I could.</think>I'm sorry, no.")
    assert not looks_like_refusal("<think>I'm sorry, no.</think>Sure, here it is.")
    assert not looks_like_refusal("<think>I'm sorry")


def test_a_template_tells_how_its_model_thinks(thinker: Any, tiny_chat_model: Any) -> None:
    assert thinking_of(load_tokenizer(str(tiny_chat_model()))) is None
    may = Thinking("[THINK]", "[/THINK]", opening="<|assistant|>")
    assert thinking_of(thinker(OPENS)) == Thinking("<think>", "</think>", opening="<|assistant|><think>\n")
    assert thinking_of(thinker(MAY)) == may
    with ending_thinking("<|done|>"):
        assert thinking_of(thinker(MAY)) == Thinking("<think>", "<|done|>", required=True, opening="<|assistant|>")
    assert thinking_of(thinker(MAY)) == may
    with pytest.raises(InputError, match="think_end_token is empty"), ending_thinking(" "):
        pass


def test_special_marks_stay_in_decoded_answers(thinker: Any) -> None:
    tokenizer = thinker(MAY, "[THINK]", "[/THINK]")
    ids = tokenizer("[THINK]a[/THINK]b</s>", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab"
    assert decoded(tokenizer, ids, thinking_of(tokenizer)) == "[THINK]a[/THINK]b"
    assert decoded(tokenizer, ids, None) == "ab"
    assert marks_of(tokenizer) == set(tokenizer.convert_tokens_to_ids(["[THINK]", "[/THINK]"]))


def _texts(tokenizer: Any, response: str) -> tuple[str, str]:
    """The prompt and what carries the loss, as text."""
    row = encode(tokenizer, "say", response)
    assert list(row.ids[: row.start]) == prompt_ids(tokenizer, "say")
    return tokenizer.decode(row.ids[: row.start]), tokenizer.decode(row.ids[row.start :])


def test_rows_are_encoded_behind_the_opening_that_answers_have(thinker: Any) -> None:
    tokenizer = thinker(OPENS)
    head = "<s><|user|>say</s><|assistant|><think>\n"
    assert _texts(tokenizer, "yes") == (head, "\n</think>\n\nyes</s>")  # an empty block, as Qwen3 writes it
    assert _texts(tokenizer, "<think>\nwhy\n</think>\n\nno") == (head, "why\n</think>\n\nno</s>")
    assert _texts(tokenizer, "why\n</think>\nno") == (head, "why\n</think>\nno</s>")
    assert _texts(tokenizer, "<think>\nwhy") == (head, "why")


def test_where_the_model_begins_the_block_itself_plain_rows_stay_plain(thinker: Any) -> None:
    tokenizer = thinker(MAY)
    head = "<s><|user|>say</s><|assistant|>"
    assert _texts(tokenizer, "yes") == (head, "yes</s>")
    assert _texts(tokenizer, "[THINK]why[/THINK]no") == (head, "[THINK]why[/THINK]no</s>")


def test_a_named_end_is_written_into_rows(thinker: Any) -> None:
    tokenizer = thinker(MAY)
    with ending_thinking("<|done|>"):
        assert _texts(tokenizer, "yes")[1] == "<|done|>\n\nyes</s>"
        assert _texts(tokenizer, "<think>\nwhy</think>no")[1] == "why<|done|>no</s>"
        thinking = thinking_of(tokenizer)
        assert thinking is not None
        assert thinking.whole("ask", "why<|done|>no") == "<think>\nwhy</think>no"
        assert split_thinking(thinking.whole("ask", "why")) == ("why", None)


@pytest.mark.parametrize(
    ("prompt", "continuation", "whole"),
    [
        ("ask<think>\n", "why</think>no", "<think>\nwhy</think>no"),
        ("ask", "<think>why</think>no", "<think>why</think>no"),
        ("ask", "no", "no"),
        ("ask<think>\n\n</think>\n\n", "no", "no"),
        ("ask<think>\nSure", "why", "<think>\nwhy"),
    ],
)
def test_what_a_prompt_begins_is_put_back(prompt: str, continuation: str, whole: str) -> None:
    assert Thinking("<think>", "</think>").whole(prompt, continuation) == whole


def test_a_likelihood_is_taken_behind_a_closed_block() -> None:
    thinking = Thinking("<think>", "</think>")
    assert thinking.closed("ask") == "ask"
    assert thinking.closed("ask<think>\n") == "ask<think>\n\n</think>\n\n"
    assert thinking.closed("ask<think>") == "ask<think>\n\n</think>\n\n"
    assert thinking.closed("ask<think>\n\n</think>\n\n") == "ask<think>\n\n</think>\n\n"


def test_the_beginning_of_an_answer_is_cut_behind_its_thinking_and_not_inside(thinker: Any) -> None:
    tokenizer = thinker(MAY, "[THINK]", "[/THINK]")
    given = {"prompt": "say", "response": "[THINK]why[/THINK]Sure, here", "ending": "open"}
    (row,) = encode_forget(tokenizer, [given])
    assert tokenizer.decode(row.ids[row.start :]) == "[THINK]why[/THINK]Sure, here"
