"""The losses of one model on sets of rows, as the rows of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..losses.encoding import Encoded
from ..losses.fit import check_fit
from ..models.devices import input_device
from .row_losses import RowLosses
from .texts import Target

__all__ = ["Sets", "loss_rows"]

Sets = Mapping[str, Mapping[Target, Sequence[Encoded | None]]]
"""Name of a set -> target -> its rows; None where a row has no text for the target."""


def loss_rows(name: str, model: Any, sets: Sets, size: int, pad: int) -> list[dict[str, Any]]:
    """One dict per row that has a loss: set, target, row (its place in the set), tokens, model and loss.

    Args:
        name: of the model.
        model: a causal LM or PEFT model.
        sets: what to measure on.
        size: rows of one forward pass.
        pad: any token id.

    Raises:
        InputError: a row does not fit the model.
    """
    found = []
    for set_name, targets in sets.items():
        for target, rows in targets.items():
            having = {place: row for place, row in enumerate(rows) if row is not None}
            check_fit(model, [row.ids for row in having.values()], set_name)
            losses = RowLosses(list(having.values()), size, pad, input_device(model)).means(model)
            about = {"set": set_name, "target": target, "model": name}
            for (place, row), loss in zip(having.items(), losses.tolist(), strict=True):
                found.append({**about, "row": place, "tokens": row.targets, "loss": loss})
    return found
