"""RESTA: adds the difference between the aligned model and an unaligned one to the fine-tuned weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import InputError
from ..method import BuildContext, Built, Grid, Stage
from ..unlearning.config import ControlConfig, check_settings

if TYPE_CHECKING:
    from ..models.lora_files import Factors, LoraFiles

__all__ = ["Resta"]


@dataclass(frozen=True, kw_only=True)
class Resta(ControlConfig):
    """W <- W_tuned + gamma (W_aligned - W_unaligned), W_unaligned being the aligned model after a harmful fine-tuning.

    Both differences are LoRA adapters, so the result is one too, of the sum of their ranks. The settings of the search
    count with `gamma: null` alone.
    """

    name: ClassVar[str] = "resta"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "RESTA: adds gamma times aligned minus (pseudo-)unaligned weights to the tuned ones."
    paper: ClassVar[str] = "arXiv 2402.11746"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("forget",)
    """With `gamma: null`, an instance needs `retain_check` too."""
    grid: ClassVar[Grid] = ({}, {"gamma": 0.75}, {"gamma": 0.5}, {"gamma": 0.35}, {"gamma": 0.2}, {"gamma": 0.1})

    gamma: float | None = 1.0
    """1 is the paper's; null takes the largest up to `gamma_most` within the retain bound."""
    gamma_most: float = 2.0
    """Twice the paper's: the end of that search."""
    pseudo_steps: int = 30
    """Optimizer steps of the harmful fine-tuning, as in safe_lora."""
    drop: float = 0.0
    """DARE: each entry of the fine-tuning's update is dropped with this probability, the others grow accordingly. Any
    value above 0 makes the update dense: a whole model is saved, no adapter."""

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = () if self.gamma is None else ("gamma",)
        check_settings(self, counts=("pseudo_steps",), positive=("gamma_most",), not_negative=(*numbers, "drop"))
        if not self.drop < 1:
            raise InputError(f"Bad settings of resta: drop={self.drop!r} must be below 1.")
        if self.drop and self.gamma is None:
            raise InputError(
                "Bad settings of resta: drop makes a whole model, whose gamma is not searched: give gamma."
            )
        if self.gamma is None:
            object.__setattr__(self, "needs", ("forget", "retain_check"))

    @property
    def bounded(self) -> bool:
        """Whether `epsilon` decides the result."""
        return self.gamma is None

    def build(self, context: BuildContext) -> Built:
        """Adds gamma V to the adapter in `context.parent`; saves the sum.

        Raises:
            InputError: there is no parent adapter, it or the rows are unusable, or the harmful fine-tuning diverges.
        """
        from ..finetuning.pseudo_unaligned import harmful_adapter
        from ..repairs.merging import check_same_modules, concatenated, padded
        from ..repairs.parent import open_parent
        from ..repairs.strength import strongest

        parent = open_parent(context, self.name)
        tuned = parent.factors
        harmful, noted = harmful_adapter(context, self.pseudo_steps)
        check_same_modules(tuned, harmful, "pseudo-unaligned adapter")

        def added(gamma: float) -> "LoraFiles":
            return parent.of_scale_one(
                padded({name: concatenated([(1.0, tuned[name]), (-gamma, harmful[name])]) for name in tuned})
            )

        details: dict[str, Any] = {"pseudo_unaligned": noted, "gamma": self.gamma}
        if self.gamma is None:
            found = strongest(context, self.name, self, added, min(0.25, self.gamma_most), self.gamma_most).details
            details |= {**found, "gamma": found["multiple"]}
        elif self.drop:
            self._save_whole(context, tuned, harmful, bool(parent.config.get("fan_in_fan_out")))
        else:
            (added(self.gamma) if self.gamma else parent).save(context.output, context.base)
        return Built(safety_examples=len({row["prompt"] for row in context.data["forget"]}), details=details)

    def _save_whole(
        self, context: BuildContext, tuned: "dict[str, Factors]", harmful: "dict[str, Factors]", transposed: bool
    ) -> None:
        """Writes the base with the thinned update and gamma V in its weights."""
        import torch

        from ..models.checkpoint import save_full
        from ..models.loading import load_base, load_tokenizer
        from ..repairs.merging import thinned

        model: Any = load_base(context.base, context.revision, context.dtype, context.device)
        generator = torch.Generator().manual_seed(context.seed)
        for name in tuned:
            weight = model.get_submodule(name).weight
            change = thinned(tuned[name].dense, self.drop, generator) - (self.gamma or 0.0) * harmful[name].dense
            change = change.T if transposed else change
            weight.data.copy_(weight.data.double().cpu() + change)
        save_full(model, load_tokenizer(context.base, context.revision), context.output)
