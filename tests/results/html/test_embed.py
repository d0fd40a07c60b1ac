import json
import sys

import pytest
from safebasin.results.html.embed import for_script, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nof two lines", "plain\ttext\nof two lines"),
        ("a\r\nb", "a\nb"),
        ("\x1b[31mred\x00", "⟨U+001B⟩[31mred⟨U+0000⟩"),
        ("\u202eevil\u2069", "⟨U+202E⟩evil⟨U+2069⟩"),
        ("half \ud83d of a face", "half ⟨U+D83D⟩ of a face"),
        ("tag \U000e0041", "tag ⟨U+E0041⟩"),
        ("שלום and 👩\u200d🔬", "שלום and 👩\u200d🔬"),
    ],
)
def test_what_acts_unseen_is_named(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_every_character_can_be_written_afterwards() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = visible(every)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert not any(ord(character) < 32 and character not in "\t\n" for character in shown)


def test_a_long_text_says_how_much_is_cut_off() -> None:
    assert visible("x" * 1_000_000, 10) == "xxxxxxxxxx ⟨999,990 more characters⟩"
    assert visible("x" * 10, 10) == "x" * 10


def test_json_in_a_script_element_cannot_end_it() -> None:
    value = {"</script>": ["<!--<script>", "a&b", "\u2028", "\ud800", "é"]}
    text = for_script(value)
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        for_script(float("nan"))
