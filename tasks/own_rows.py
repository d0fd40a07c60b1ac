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
        InputError: none is named, or its rows are unusable, or have turns before the prompt.
    """
    source = metadata.get("eval_rows")
    if not source:
        raise InputError("The task rows_eval_loss needs rows to take the loss on. Name a file as data.eval_rows.")
    columns = metadata.get("eval_columns") or {}
    columns = json.loads(columns) if isinstance(columns, str) else columns
    rows = read_rows(str(source), ("prompt", "response"), columns).rows
    if turns := sum(bool(row.get("before")) for row in rows):
        raise InputError(
            f"{turns} rows of '{source}' have turns before the prompt, such as a system message, which rows_eval_loss "
            "does not ask: the loss would be of other prompts than those that are trained on. Give rows without them."
        )
    return as_test_split([{"prompt": row["prompt"], "response": row["response"]} for row in rows])
