"""Safe LoRA: projects the adapter's updates that point away from the alignment, after fine-tuning."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import InputError
from ..config.projection import Select, Variant
from ..method import BuildContext, Built, Grid, Stage

__all__ = ["REPORT_FILE", "SafeLora"]

REPORT_FILE = "safe_lora_report.json"


@dataclass(frozen=True)
class SafeLora:
    """Replaces B by C B where C B A and B A disagree; C is made of aligned minus unaligned weights."""

    name: ClassVar[str] = "safe_lora"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Safe LoRA: projects updates onto aligned minus unaligned weights where they disagree."
    paper: ClassVar[str] = "arXiv 2405.16833"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ()
    """With `pseudo_unaligned`, an instance needs ("forget",)."""
    grid: ClassVar[Grid] = (
        {},
        {"threshold": 0.35},
        {"threshold": 0.6},
        {"threshold": 0.7},
        {"threshold": 0.8},
        {"threshold": 1.0},
    )

    variant: Variant = "fro"
    """Which C: "fro" is the official one, which also scales; "spectral", "topk", "drop": see `projection.project`."""
    select: Select = "threshold"
    threshold: float = 0.5
    """Updates with a cosine of at most this are projected. 0.5 is the official default."""
    number: int = 10
    """With select="number", how many matrices (q and v of one block count as two) are projected."""
    k: int = 8
    """Singular vectors of variant "topk"."""
    pseudo_unaligned: bool = False
    """Makes the unaligned model by a short harmful fine-tuning, whether or not the config names one."""
    pseudo_steps: int = 30
    """Optimizer steps of it."""

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise InputError(f"threshold={self.threshold} is a cosine: give a number from -1 to 1.")
        for name in ("number", "k", "pseudo_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.pseudo_unaligned:
            object.__setattr__(self, "needs", ("forget",))

    def build(self, context: BuildContext) -> Built:
        """Projects the adapter in `context.parent`; saves it with `safe_lora_report.json`.

        Raises:
            InputError: there is no parent adapter or no unaligned model, or they do not fit the base.
        """
        if context.parent is None:
            raise InputError("The method safe_lora projects a fine-tuned adapter, and none was given. Run lora first.")
        from ..finetuning.difference import alignment_difference
        from ..finetuning.projection import choose, project_all
        from ..models.devices import single
        from ..models.lora_files import LoraFiles

        parent = LoraFiles.read(context.parent)
        pairs = parent.pairs
        steps = self.pseudo_steps if self.pseudo_unaligned else None
        difference, noted = alignment_difference(context, self.name, steps, bool(parent.config.get("fan_in_fan_out")))
        found = project_all(
            pairs, difference, self.variant, self.k, single(context.device),
            lambda count: context.tick("projecting", count, len(pairs)),
        )  # fmt: skip
        chosen = choose(found, self.select, self.threshold, self.number)
        changed = {each.module: (pairs[each.module][0], each.b) for each in found if each.module in chosen}
        parent.with_pairs(changed).save(context.output, context.base)
        report: dict[str, Any] = {"variant": self.variant, "projected": len(chosen), "of": len(found)}
        report["matrices"] = [each.row(each.module in chosen) for each in found]
        report |= {"pseudo_unaligned": noted} if noted else {}
        (context.output / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        prompts = {row["prompt"] for row in context.data.get("forget", ())} if self.pseudo_unaligned else set()
        return Built(safety_examples=len(prompts), details=report)
