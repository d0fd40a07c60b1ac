"""Loss on the user's own rows, given by `--metadata '{"eval_rows": "/path"}'` or `data.eval_rows` of a config."""

import json
from typing import Any

from ..errors import InputError
from .rows.reader import read_rows
from .sources import as_test_split

__all__ = ["load"]


def load(**metadata: Any) -> dict[str, Any]:
    """lm-eval `custom_dataset` of `rows_eval_loss`.

    Metadata read: `eval_rows`, a file (`FILE[first:end]` is a part), and `eval_columns`, a mapping from role to column
    where their names do not tell, or the same as JSON.

    Raises:
        InputError: none is named, or its rows are unusable.
    """
    source = metadata.get("eval_rows")
    if not source:
        raise InputError("The task rows_eval_loss needs rows to take the loss on. Name a file as data.eval_rows.")
    columns = metadata.get("eval_columns") or {}
    columns = json.loads(columns) if isinstance(columns, str) else columns
    rows = read_rows(str(source), ("prompt", "response"), columns).rows
    return as_test_split([{"prompt": row["prompt"], "response": row["response"]} for row in rows])
