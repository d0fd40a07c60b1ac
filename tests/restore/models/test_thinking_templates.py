"""Shapes of templates of models that think: one opening everywhere, blocks in the model's marks, answers left whole."""

from typing import Any

import pytest
from safebasin.restore.losses.encoding import encode
from safebasin.restore.models.chat import begun
from safebasin.restore.models.loading import load_tokenizer
from safebasin.restore.models.thinking import Answer, split_thinking, thinking_of

from ..aligned import MAY, OPENS
from .chat_templates import CHOSEN, OFF, RESPONSE, SYSTEM, Shape

SHAPES = {
    "opens": Shape(OPENS), "may": Shape(MAY, (), ("[THINK]", "[/THINK]")), "chosen": CHOSEN, "off": OFF,
    "response": RESPONSE, "system": SYSTEM,
}  # fmt: skip
BEGUN = {"opens": "", "response": "<|START_RESPONSE|>"}
"""What stands between a block and the answer."""
EMPTY = {"opens": "\n</think>\n\n", "chosen": "<think>\n\n</think>\n\n", "response": "<|START_RESPONSE|>"}
"""What stands before an answer without a block of its own."""
ENDS = {"response": "<|END_RESPONSE|></s>"}


@pytest.fixture(params=SHAPES)
def name(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def tokenizer(name: str, tiny_chat_model: Any) -> Any:
    found: Any = load_tokenizer(str(tiny_chat_model("")))
    found.add_tokens(list(SHAPES[name].tokens), special_tokens=True)
    found.chat_template = SHAPES[name].template
    return found


def target(tokenizer: Any, response: str, asked: Any = "say") -> str:
    """What carries the loss, as text; the prompt is that of an answer."""
    row = encode(tokenizer, asked, response)
    turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    head = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(row.ids[: row.start]) == head
    return str(tokenizer.decode(row.ids[row.start :]))


def test_the_marks_are_those_of_the_model(name: str, tokenizer: Any) -> None:
    thinking = thinking_of(tokenizer)
    assert thinking is not None
    assert (thinking.begin, thinking.end) == SHAPES[name].marks


@pytest.mark.parametrize("asked", ["say", "what are {0} and {1}?", "what is {0}?", "what is {1}?"])
def test_a_question_may_speak_of_the_marks(name: str, tokenizer: Any, asked: str) -> None:
    prompt = asked.format(*SHAPES[name].marks)
    assert target(tokenizer, "yes", prompt) == EMPTY.get(name, "") + "yes" + ENDS.get(name, "</s>")
    turns = [{"role": "user", "content": prompt}]
    head = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    thinking = thinking_of(tokenizer)
    assert thinking is not None
    assert thinking.opened_by(head) == (name == "opens")
    assert thinking.closed(head) == head + EMPTY.get(name, "")
    assert thinking.closed(thinking.closed(head)) == thinking.closed(head)


@pytest.mark.parametrize("response", ["s", "e", "/", "END"])
def test_a_short_answer_leaves_the_end_of_the_turn_whole(name: str, tokenizer: Any, response: str) -> None:
    assert target(tokenizer, response) == EMPTY.get(name, "") + response + ENDS.get(name, "</s>")


@pytest.mark.parametrize("marks", [None, ("<think>", "</think>"), ("<reasoning>", "</reasoning>")])
def test_blocks_of_rows_are_written_with_the_models_marks(name: str, tokenizer: Any, marks: Any) -> None:
    begin, end = SHAPES[name].marks
    row_begin, row_end = marks or (begin, end)
    block = f"why{end}" if name == "opens" else f"{begin}why{end}"
    wanted = block + BEGUN.get(name, "") + "no" + ENDS.get(name, "</s>")
    assert target(tokenizer, f"{row_begin}why{row_end}no") == wanted


def test_an_answer_may_speak_of_the_marks(name: str, tokenizer: Any) -> None:
    begin, end = SHAPES[name].marks
    block = f"why{end}" if name == "opens" else f"{begin}why{end}"
    said = f"see {begin}x{end} and {end} there"
    wanted = block + BEGUN.get(name, "") + said + ENDS.get(name, "</s>")
    assert target(tokenizer, f"{begin}why{end}{said}") == wanted
    if name != "opens":  # there it is thinking
        assert target(tokenizer, f"use {end}") == EMPTY.get(name, "") + f"use {end}" + ENDS.get(name, "</s>")


def test_turns_before_are_rendered_alike_everywhere(name: str, tokenizer: Any) -> None:
    begin, end = SHAPES[name].marks
    before = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": f"{begin}old{end}two"},
        {"role": "user", "content": "say"},
    ]
    assert target(tokenizer, "yes", before) == EMPTY.get(name, "") + "yes" + ENDS.get(name, "</s>")


def test_an_answer_that_is_begun_has_nothing_but_the_opening(tokenizer: Any) -> None:
    asked = [{"role": "user", "content": "hi"}]
    ready = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert begun(tokenizer, [*asked, {"role": "assistant", "content": "Sure, "}]) == ready + "Sure, "


def test_a_likelihood_of_what_is_begun_is_taken_behind_the_empty_block(name: str, tokenizer: Any) -> None:
    asked = [{"role": "user", "content": "hi"}]
    head = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    thinking = thinking_of(tokenizer)
    assert thinking is not None
    wanted = head + EMPTY.get(name, "") + "The answer is"
    assert thinking.closed(head + "The answer is") == wanted


@pytest.mark.parametrize("shape", [CHOSEN, OFF])
def test_settings_of_the_template_are_seen_in_the_prompt(tiny_chat_model: Any, shape: Shape) -> None:
    tokenizer: Any = load_tokenizer(str(tiny_chat_model("")))
    tokenizer.chat_template = shape.template
    thinking = thinking_of(tokenizer)
    assert thinking is not None
    asked = [{"role": "user", "content": "what is <think>?"}]
    for wish in (True, False):
        head = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, enable_thinking=wish)
        assert thinking.opened_by(head) == (wish and shape is OFF)
        assert thinking.closed(head).count("</think>") == 1
        assert (
            begun(tokenizer, [*asked, {"role": "assistant", "content": "Sure"}], enable_thinking=wish) == head + "Sure"
        )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think>b</think>c", "b</think>c"),
        ("<think>hm</think>use <think>x</think> tags", "use <think>x</think> tags"),
        ("<think>it says <think> and </think> so</think>no", "no"),
        ("<think>it says <think> so</think>no", "no"),
        ("<think>a</think>\n</think>\nno", "no"),
        ("<think>\n\n</think>\n\n<think>hm</think>no", "no"),
        ("<think>a</think><think>b", None),
        (Answer("close with </think> please"), "close with </think> please"),
    ],
)
def test_the_answer_is_all_that_follows_the_block(text: str, answer: str | None) -> None:
    assert split_thinking(text)[1] == answer
