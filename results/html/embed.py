"""Text and data made fit for a page: whatever a model wrote, a browser only shows it."""

import json
from typing import Any

from ..text import visible

__all__ = ["for_script", "visible"]


def for_script(value: Any) -> str:
    """The value as JSON that cannot end the script element that it stands in: ASCII, without < > and &.

    Raises:
        ValueError: it holds a NaN or an infinity, which are not JSON.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
