"""What things are called: rows of the leaderboard, builds and their folders."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["build_id", "row_labels", "slug"]

_LONGEST = 60
"""Characters of settings in a build id: it is a folder's name, and those may have 255 bytes."""

_LONGEST_MODEL = 100
"""The same of a model's id."""


def row_labels(entries: Sequence[tuple[str, Mapping[str, Any], str | None]]) -> tuple[str, ...]:
    """The leaderboard's name of each (method, settings, explicit label).

    It is the explicit label, else the method's name; where a method is listed more than once, the settings that
    differ between its entries are added: `curvature[epsilon=0.2]`.
    """
    return tuple(label or _label(name, settings, entries) for name, settings, label in entries)


def _label(name: str, settings: Mapping[str, Any], entries: Sequence[tuple[str, Mapping[str, Any], str | None]]) -> str:
    same = [others for other, others, _ in entries if other == name]
    texts = {key: {_text(others[key]) if key in others else None for others in same} for key in settings}
    differing = {key: value for key, value in settings.items() if len(texts[key]) > 1}
    return f"{name}[{_joined(differing)}]" if differing else name


def slug(model: str) -> str:
    """A model's id as a part of a file name: `Qwen/Qwen2.5-7B` is `Qwen--Qwen2.5-7B`.

    One that is long, or of dots alone, is cut and told apart by a digest.
    """
    safe = _safe(model.strip("/").replace("/", "--"))
    if len(safe) <= _LONGEST_MODEL and safe.strip("."):
        return safe
    return f"{safe[-_LONGEST_MODEL:].strip('.')}~{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def build_id(model: str, method: str, settings: Mapping[str, Any], seed: int) -> str:
    """`sandbox-curvature-epsilon=0.2-seed0`: unique among the builds of a run, and fit to be a folder's name.

    Settings that are long, or hold other characters than a name may, are cut and told apart by a digest.
    """
    joined = _joined(settings)
    safe = _safe(joined)[:_LONGEST]
    if safe != joined:
        safe = f"{safe}~{hashlib.sha256(joined.encode()).hexdigest()[:8]}"
    return "-".join(filter(None, (slug(model), _safe(method), safe, f"seed{seed}")))


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=,+-]+", "-", text)


def _joined(settings: Mapping[str, Any]) -> str:
    return ",".join(f"{key}={_text(value)}" for key, value in sorted(settings.items()))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
