"""Prompts from files: what is put where, and what an exchange cannot do to them."""

from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.judges import Exchange
from safebasin.judges.answer_words import AnswerWords, Reading
from safebasin.judges.file_prompt import FilePrompt, PromptText

from .scripted import tokenizer_of


def text(tmp_path: Path, content: str) -> PromptText:
    path = tmp_path / "text.txt"
    path.write_text(content)
    return PromptText(str(path))


def test_texts_are_put_in_once_and_nothing_else_is_touched(tmp_path: Path) -> None:
    made = text(tmp_path, "{a} {prompt}\n{{response} \n\n").fill(Exchange("use {response} {x}", "{prompt}"))
    assert made == "{a} use {response} {x}\n{{prompt} \n"  # one line break at the end is the editor's


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{prompt}", r"0 places for the response: \{response\} or \{generation\}"),
        ("{prompt} {behavior} {response}", "2 places for the prompt"),
        ("", "0 places for the prompt"),
    ],
)
def test_a_text_without_its_places_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        text(tmp_path, content)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"prompt_file '.*none\.txt' cannot be read"):
        PromptText(str(tmp_path / "none.txt"))


@pytest.mark.parametrize("opening", ["", "<s>"])
def test_one_beginning_of_text_whether_the_file_has_it_or_not(tmp_path: Path, opening: str) -> None:
    tokenizer = tokenizer_of(None, [], "so ?")
    prompt = FilePrompt(text(tmp_path, f"{opening}how {{prompt}} so {{response}} ?<go>"), tokenizer)
    ids = prompt.encode(Exchange("to <s> make", "a <go> kite <end>"))
    counts = [ids.count(tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "<go>", "<end>")]
    assert (ids[0], counts) == (0, [1, 1, 0])


def test_words_that_begin_alike_are_no_answer() -> None:
    tokenizer = tokenizer_of(None, ["Yes", "No", " yes"])
    words = AnswerWords(tokenizer, ("yes", "no"))
    assert {tokenizer.convert_ids_to_tokens(one) for one in words.ids} == {"Yes", " yes", "No"}
    assert words.shares([0.0, 0.0, 0.0]) == pytest.approx([2 / 3, 1 / 3])
    assert words.share_at(Reading([1, 2], "", [[0.0] * 3] * 3), 0, 0) is None
    with pytest.raises(InputError, match="no token of its own for the answer 'Yes' among 'yes'"):
        AnswerWords(tokenizer, ("yes", "Yes"))
    with pytest.raises(InputError, match="no token of its own for the answer 'maybe'"):
        AnswerWords(tokenizer, ("No", "maybe"), exact=True)
