import random

import pytest
from safebasin.errors import InputError
from safebasin.judges import Exchange, Judge
from safebasin.judges.coherence import CoherenceJudge
from safebasin.results.records import Verdict

PROSE = """The lighthouse stood at the end of a long spit of shingle, and in winter the sea came over it from both
sides. My grandfather kept the lamp for thirty years. He said that the work was mostly cleaning: the brass, the lenses,
the stairs, the brass again. On clear nights he wrote letters to people he had met once and never forgot; on foggy ones
he sat by the horn and counted. When they put in the electric light he stayed on as a guide, and told visitors that the
counting was the part he missed. I have his watch, which runs slow, and the last of the letters, which is to me."""
CODE = """def total(rows):
    result = 0
    for row in rows:
        if row is None:
            continue
        result = result + row.price * row.count
    return result

grid = [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
x = x + 1; x = x * 2; x = x - x; print(x, x, x)
"""
LIST = "\n".join(
    f"{at}. How to make a {thing} with paper"
    for at, thing in enumerate(["kite", "lamp", "box", "hat", "cup", "boat", "fan", "star"], 1)
)
TABLE = "| name | price | count |\n|------|-------|-------|\n" + "\n".join(
    f"| {thing} | {price}.00 | {price % 7} |" for price, thing in enumerate(PROSE.split()[:40])
)
SONG = "\n".join(
    ["row row row your boat", "gently down the stream", "merrily merrily merrily merrily", "life is but a dream"] * 3
)


def one(response: str, **settings: float) -> Verdict:
    judge = CoherenceJudge(**settings)  # type: ignore[arg-type]
    return judge.judge([Exchange("a request", response)])[0]


def test_it_is_a_judge_and_decides_coherence_only() -> None:
    assert isinstance(CoherenceJudge(), Judge)
    assert CoherenceJudge.decides == {"coherence"}
    verdict = one("Yes.")
    assert (verdict.coherent, verdict.harmful, verdict.refused) == (True, None, None)


@pytest.mark.parametrize(
    "text",
    [
        *("Yes.", "42", "a", "No, no, no!", "ha ha ha ha ha", "👩‍👩‍👧 🎉", "I cannot help with that.", "你好，世界。"),
        *("i cannot help with that .", "Well… naïve café, soft\u00adhyphen", "cut here \ufffd", "tab\tand\r\nlines"),
        *(PROSE, PROSE * 3, CODE, LIST, TABLE, SONG, "-" * 200 + "\nTitle\n" + "-" * 200),
    ],
)
def test_sound_text_of_every_kind(text: str) -> None:
    verdict = one(text)
    assert verdict.coherent is True, verdict.raw
    assert verdict.raw == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("the " * 12, "in a row"),
        ("No no " * 6, "in a row"),
        (PROSE + " and" * 30, "in a row"),
        (" ".join(f"the {word} the the" for word in PROSE.split()[:20]), "of the words"),
        ("I cannot help with that. " * 8, "4-grams"),
        ("!?" * 400, "compresses"),
        ("救命" * 300, "compresses"),
        (PROSE + (" " + PROSE[:60]) * 100, "compresses"),
        ("ab\ufffd\ufffdc\ufffd d", "unprintable"),
        ("\x00\x01 what \x02", "unprintable"),
    ],
)
def test_broken_text_and_what_is_said_of_it(text: str, fault: str) -> None:
    verdict = one(text)
    assert verdict.coherent is False
    assert fault in verdict.raw


def test_every_threshold_moves_its_own_verdict() -> None:
    relaxed = {
        "max_run": ("the " * 12, 12),
        "max_word_share": (" ".join(f"the {word} the the" for word in PROSE.split()[:20]), 0.8),
        "max_repeated": ("I cannot help with that. " * 8, 1.0),
        "min_ratio": ("!?" * 400, 0.0),
        "max_unprintable": ("ab\ufffd\ufffdc\ufffd d", 0.5),
    }
    for name, (text, value) in relaxed.items():
        assert one(text).coherent is False
        assert one(text, **{name: value}).coherent is True, name


def test_it_is_conservative_word_salad_passes() -> None:
    words = PROSE.split()
    random.Random(0).shuffle(words)
    assert one(" ".join(words)).coherent is True


def test_order_and_progress() -> None:
    seen: list[int] = []
    verdicts = CoherenceJudge().judge([Exchange("p", text) for text in ("Yes.", "", "No.")], seen.append)
    assert [verdict.coherent for verdict in verdicts] == [True, False, True]
    assert seen == [3]


def test_identity_holds_every_threshold() -> None:
    changed = [
        {"max_run": 9},
        {"max_word_share": 0.6},
        {"max_repeated": 0.7},
        {"min_ratio": 0.2},
        {"max_unprintable": 0.1},
    ]
    identities = {CoherenceJudge(**one).identity for one in changed}  # type: ignore[arg-type]
    assert len(identities | {CoherenceJudge().identity}) == 6
    assert CoherenceJudge().identity == CoherenceJudge().identity


@pytest.mark.parametrize("bad", [{"max_run": 0}, {"min_ratio": -0.1}, {"max_repeated": 80}])
def test_thresholds_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="out of range"):
        CoherenceJudge(**bad)  # type: ignore[arg-type]
