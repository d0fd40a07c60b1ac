"""Safe LoRA: projects the adapter's updates that point away from the alignment, after fine-tuning."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import InputError
from ..config.projection import Select, Variant
from ..method import BuildContext, Built, Stage

if TYPE_CHECKING:
    from ..finetuning.projection import Difference, Projected

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
        from ..finetuning.projection import choose, project_all

        tensors, config = _read_adapter(context.parent)
        pairs = _pairs(tensors, config, context.parent)
        difference, noted = self._difference(context, bool(config.get("fan_in_fan_out")))
        found = project_all(
            pairs, difference, self.variant, self.k, context.device or _default_device(),
            lambda count: context.tick("projecting", count, len(pairs)),
        )  # fmt: skip
        chosen = choose(found, self.select, self.threshold, self.number)
        _save(context, tensors, config, [each for each in found if each.module in chosen])
        report: dict[str, Any] = {"variant": self.variant, "projected": len(chosen), "of": len(found)}
        report["matrices"] = [each.row(each.module in chosen) for each in found]
        report |= {"pseudo_unaligned": noted} if noted else {}
        (context.output / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        prompts = {row["prompt"] for row in context.data.get("forget", ())} if self.pseudo_unaligned else set()
        return Built(safety_examples=len(prompts), details=report)

    def _difference(self, context: BuildContext, transposed: bool) -> tuple["Difference", dict[str, Any]]:
        """V by module name, and what to report of how it was made."""
        if self.pseudo_unaligned:
            from ..finetuning.pseudo_unaligned import harmful_difference

            return harmful_difference(context, self.pseudo_steps)
        if context.unaligned is None:
            raise InputError(
                f"The method safe_lora needs the model '{context.base}' before its alignment. Name it as `unaligned` "
                "beside the model in the config, or set pseudo_unaligned: true (a stand-in by harmful fine-tuning)."
            )
        from ..models.weight_files import WeightFiles

        aligned, unaligned = WeightFiles(context.base, context.revision), WeightFiles(context.unaligned)

        def difference(module: str) -> Any:
            one, other = aligned.read(f"{module}.weight"), unaligned.read(f"{module}.weight")
            if one.shape != other.shape:
                raise InputError(
                    f"'{module}.weight' is {tuple(one.shape)} in '{context.base}' and {tuple(other.shape)} in "
                    f"'{context.unaligned}'. Name the same model before its alignment."
                )
            one -= other
            return one.T if transposed else one

        return difference, {}


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The adapter's tensors on the CPU and its config as saved."""
    from ..models.adapter_files import adapter_tensors, check_adapter

    check_adapter(folder)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return adapter_tensors(folder), config


def _pairs(tensors: dict[str, Any], config: dict[str, Any], folder: Path) -> dict[str, Any]:
    from ..finetuning.projection import lora_pairs

    pairs = lora_pairs(tensors)
    if config.get("peft_type") != "LORA" or config.get("use_dora") or not pairs:
        raise InputError(f"The adapter '{folder}' is no plain LoRA of linear modules. Only such can be projected.")
    return pairs


def _save(context: BuildContext, tensors: dict[str, Any], config: dict[str, Any], projected: list["Projected"]) -> None:
    """Writes the adapter as it was, with C B in place of B where projected."""
    from safetensors.torch import save_file

    from ..finetuning.projection import END, PREFIX
    from ..models.adapter_files import carry_tokenizer

    changed = tensors | {f"{PREFIX}{each.module}{END}": each.b.contiguous() for each in projected}
    save_file(changed, str(context.output / "adapter_model.safetensors"), metadata={"format": "pt"})
    config = config | {"base_model_name_or_path": context.base, "inference_mode": True}
    (context.output / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if context.parent is not None:
        carry_tokenizer(context.parent, context.output)
