"""The losses of one model over encoded rows, as functions of its parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..models.parameters import FlatParameters
from .encoding import Encoded
from .objective import FEWEST_BATCHES, TokenMeanLoss, probe_batches
from .passes import Passes

__all__ = ["Losses"]


@dataclass(frozen=True)
class Losses:
    """The losses of one model over encoded rows, as functions of its parameters."""

    model: Any
    parameters: FlatParameters
    rows: Mapping[str, Sequence[Encoded]]
    """Name of the set -> its rows."""
    pad: int
    micro_batch_size: int
    seed: int
    passes: Passes = field(default_factory=Passes)
    """Counts what all of them run."""

    def on(self, name: str, kind: type[TokenMeanLoss] = TokenMeanLoss) -> TokenMeanLoss:
        """The loss on a whole set."""
        return self.on_rows(self.rows[name], name, kind)

    def on_rows(self, rows: Sequence[Encoded], name: str, kind: type[TokenMeanLoss] = TokenMeanLoss) -> TokenMeanLoss:
        """The loss on rows that are in no set; `name` is for errors."""
        return kind(self.model, self.parameters, rows, self.micro_batch_size, self.pad, name, self.passes)

    def batches(
        self,
        name: str,
        iteration: int,
        size: int,
        limit: int,
        *,
        fewest: int = FEWEST_BATCHES,
        kind: type[TokenMeanLoss] = TokenMeanLoss,
    ) -> list[TokenMeanLoss]:
        """At most `limit` batches of a set, shuffled anew in each iteration.

        They have `size` rows, or fewer where that would leave fewer than `fewest` batches.
        """
        return probe_batches(
            self.model, self.parameters, self.rows[name], size=size, name=name, pad_id=self.pad, kind=kind,
            micro_batch_size=self.micro_batch_size, limit=limit, seed=f"{self.seed + iteration} {name}", fewest=fewest,
            passes=self.passes,
        )  # fmt: skip
