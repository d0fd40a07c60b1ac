"""Safe Delta: keeps the columns of the update that cost least safety, and makes up for those on the others."""

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal

from ...errors import InputError
from ..method import BuildContext, Built, Grid, Stage
from ..unlearning.config import check_settings

__all__ = ["SafeDelta"]


@dataclass(frozen=True, kw_only=True)
class SafeDelta:
    """Keeps whole columns of the update within a budget of safety loss, and compensates on the others: A <- A T."""

    name: ClassVar[str] = "safe_delta"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Safe Delta: keeps the update's columns that cost least on refusals, and compensates."
    paper: ClassVar[str] = "arXiv 2505.12038"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("safety",)
    grid: ClassVar[Grid] = ({}, {"keep": 0.99}, {"keep": 0.95}, {"keep": 0.9}, {"keep": 0.8}, {"keep": 0.65})

    s: float | None = 0.1
    """The paper's budget, in units of weights: needs a sweep for each size of model and update. `keep` takes its
    place."""
    keep: float | None = None
    """The budget as a share of what all columns of a module cost: 0 is the aligned model, 1 the fine-tuned one."""
    compensation: Literal["joint", "sum", "none"] = "joint"
    """`joint`: the optimum of the safety loss given the kept columns; `sum`: the paper's."""
    damping: float = 0.01
    """Share of the mean diagonal of H that is added to its diagonal."""
    rows: int = 128
    """Safety rows, at most."""
    max_new_tokens: int = 64
    """Length of the refusals that are generated for safety rows without a response."""

    def __post_init__(self) -> None:
        check_settings(
            self, counts=("rows", "max_new_tokens"), positive=("damping",),
            not_negative=[name for name in ("s", "keep") if getattr(self, name) not in (None, inf)],
            choices={"compensation": ("joint", "sum", "none")},
        )  # fmt: skip
        if self.keep is not None and not self.keep <= 1:
            raise InputError(f"Bad settings of safe_delta: keep={self.keep!r} is a share: give a number from 0 to 1.")
        if self.s is None and self.keep is None:
            raise InputError("Bad settings of safe_delta: s and keep are both null; give one of them a number.")

    def build(self, context: BuildContext) -> Built:
        """Repairs the adapter in `context.parent`; saves it.

        Raises:
            InputError: there is no parent adapter, it does not fit the base, or there are no refusals.
        """
        from ..repairs.columns import keep_columns
        from ..repairs.parent import open_parent
        from ..repairs.refusals import Refusals

        parent = open_parent(context, self.name)
        factors, refusals = parent.factors, Refusals(context, self.rows, self.max_new_tokens)
        s = self.s if self.keep is None else None
        found = {}
        for name, moment in refusals.moments(factors):
            found[name] = keep_columns(factors[name], 2 * moment, s, self.keep, self.compensation, self.damping)
        parent.with_pairs({name: (kept.a, factors[name].b) for name, kept in found.items()}).save(
            context.output, context.base
        )
        total = {each: sum(kept.losses[each] for kept in found.values()) for each in ("tuned", "none", "sum", "joint")}
        details: dict[str, Any] = {
            "refusals": len(refusals.rows), "safety_loss": total,
            "columns": sum(kept.columns for kept in found.values()),
            "of": sum(factors[name].a.shape[1] for name in found),
            "modules": [
                {"module": name, "columns": kept.columns, "predicted_cost": kept.cost,
                 "predicted_cost_of_all": kept.total, "safety_loss": kept.losses}
                for name, kept in found.items()
            ],
        }  # fmt: skip
        return Built(safety_examples=len(refusals.prompts), details=details)
