"""No request may be trained on and measured on: what each use of harmful requests may share with the others."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations

from ..errors import InputError

__all__ = ["MAY_SHARE", "ROLES", "check_overlap", "normal", "request_digest"]

ROLES = ("forget", "curvature", "salora", "validation", "relapse", "benign", "visage", "evaluation")
"""Two parts of the safety rows, all of them (for methods that train on them whole), prompts that settings are chosen
on, harmful rows that finished checkpoints are fine-tuned on again, the harmless prompts of an alignment, and two ways
of measuring."""
MAY_SHARE = frozenset(
    {
        *(frozenset({"salora", "forget"}), frozenset({"salora", "curvature"}), frozenset({"visage", "evaluation"})),
        *(frozenset({"relapse", other}) for other in ("forget", "curvature", "salora", "validation")),
    }
)
"""SaLoRA is another method and draws on the same 138 rows; VISAGE's first 80 rows are evaluation rows too (A-24). Who
attacks a repaired model may know what it was repaired with."""


def check_overlap(prompts: Mapping[str, Sequence[str]]) -> None:
    """Compares the requests of every two roles, whatever their case and spacing.

    Args:
        prompts: role -> its requests; roles that play no part are left out.

    Raises:
        InputError: two roles that must not share requests do; all such pairs, one per line.
        ValueError: unknown role.
    """
    if unknown := set(prompts) - set(ROLES):
        raise ValueError(f"unknown roles {sorted(unknown)}; the roles are {', '.join(ROLES)}")
    rows = {role: {normal(text): row for row, text in enumerate(prompts[role])} for role in ROLES if role in prompts}
    faults = [
        _fault(one, other, rows) for one, other in combinations(rows, 2) if frozenset({one, other}) not in MAY_SHARE
    ]
    if found := [fault for fault in faults if fault]:
        raise InputError("\n".join(found))


def _fault(one: str, other: str, rows: Mapping[str, Mapping[str, int]]) -> str | None:
    shared = sorted(rows[one].keys() & rows[other].keys(), key=rows[one].__getitem__)
    if not shared:
        return None
    where = f"row {rows[one][shared[0]]} of {one} is row {rows[other][shared[0]]} of {other}"
    return (
        f"{len(shared)} requests are in both the {one} and the {other} rows (first: {where}), so what is measured "
        "would be what was trained on. Take them out of one of the two."
    )


def normal(text: str) -> str:
    """A request as it is compared with others: in lower case, with single spaces."""
    return " ".join(text.lower().split())


def request_digest(text: str) -> str:
    """16 hex digits that tell a request from others without saying it; its case and spacing do not count."""
    return hashlib.sha256(normal(text).encode()).hexdigest()[:16]
