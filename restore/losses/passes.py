"""The unit of cost that does not depend on a machine: rows that went through the model."""

from dataclasses import dataclass

__all__ = ["Passes"]


@dataclass
class Passes:
    """Counts rows of forward passes, with and without a backward pass to follow."""

    forward: int = 0
    """Rows of passes without gradients; of an answer that is generated, one."""
    gradient: int = 0
    """Rows of passes with a backward pass."""

    @property
    def rows(self) -> float:
        """Row-passes: a row forward and backward is 1, a row forward 1/3 (a backward pass costs two forward ones)."""
        return self.gradient + self.forward / 3
