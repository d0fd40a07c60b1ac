"""The charts' library, Vega-Lite with Vega and Vega-Embed, as one script.

Why this one: vl-convert carries the three in one maintained package and bundles them into 0.9 MB, which leaves room for
responses in a page of 5 MB; plotly.js alone is 4.8 MB. Vega draws SVG with labels for screen readers, and its
interpreter evaluates no strings, so that the page's policy can forbid that.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from ...errors import InputError
from ..export import make_folder, replace_text

__all__ = ["chart_library"]

_EXPORTS = "window.vegaEmbed = vegaEmbed;"


def chart_library(cache: Path) -> str:
    """The script that defines ``vegaEmbed``. Bundling takes seconds, so that the result is kept where that is possible.

    Args:
        cache: folder to keep it in, under the version of the package; made where it does not exist.
    """
    kept = cache / f"vega-{version('vl-convert-python')}.js"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    from vl_convert import javascript_bundle

    script: str = javascript_bundle(_EXPORTS)
    with suppress(InputError):  # a cache that cannot be written costs the next report seconds, and none its charts
        replace_text(make_folder(cache) / kept.name, script)
    return script
