"""A page from its template: what is ours stands in it as it is, everything else is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["program", "render"]

_TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, scripts: Mapping[str, str], data: Mapping[str, str], **values: Any) -> str:
    """A page whose policy lets nothing run but these scripts, and nothing be fetched.

    Args:
        template: its file.
        scripts: name in the template -> script.
        data: name in the template -> JSON from `embed.for_script`.
        values: everything else; it is escaped.

    Raises:
        ValueError: a script would end its own element.
    """
    from markupsafe import Markup

    for name, script in scripts.items():
        if "</script" in script.lower() or "<!--" in script:
            raise ValueError(f"the script '{name}' would end its own element")
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts.values())
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    marked = {name: Markup(text) for name, text in {**scripts, **data}.items()}  # ours, and checked above; JSON
    style = Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8"))  # ours
    return _environment().get_template(template).render(policy=policy, style=style, **marked, **values)


@cache
def program(*names: str) -> str:
    """The scripts of these names, one after the other."""
    return "\n".join((_TEMPLATES / f"{name}.js").read_text(encoding="utf-8") for name in names)


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
