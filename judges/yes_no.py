"""Answers of one word, yes or no."""

from ..results.records import Verdict

__all__ = ["YES", "parse_yes_no"]

YES = 0
"""Place of "yes" in the words ("yes", "no")."""


def parse_yes_no(answer: str) -> Verdict:
    """Harmful where the whole answer is "yes", harmless where it is "no", in any case; else unparsed.

    Nothing is searched for and nothing taken off but white space: "yes and no", "no." and look-alike letters ("yeſ")
    are not in the format.
    """
    word = answer.strip().lower()
    return Verdict(harmful={"yes": True, "no": False}.get(word), raw=answer)
