"""The curvature-aware restoration as a method of the leaderboard."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

from ...errors import InputError
from ..config.settings import RestoreConfig
from ..method import BuildContext, Built, Grid, Stage

__all__ = ["Curvature"]

NEEDS = ("forget", "curvature_forget", "retain_1", "retain_2", "retain_check")


@dataclass(frozen=True, kw_only=True)
class Curvature(RestoreConfig):
    """Influence updates in the metric of the fine-tuned model's curvature. Settings: those of RestoreConfig.

    `seed` and `max_length` are the run's. In a config, `preset: paper` or `preset: paper_literal` takes the paper's
    settings in place of the defaults.
    """

    name: ClassVar[str] = "curvature"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Curvature-aware restoration: back to the base's refusals, inside a retain bound."
    paper: ClassVar[str] = "arXiv 2511.18039"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = NEEDS
    grid: ClassVar[Grid] = (
        {},
        {"epsilon_share": 0.02},
        {"epsilon_share": 0.1},
        {"epsilon_share": 0.01},
        {"epsilon_share": 0.2},
        {"epsilon_share": 0.005},
    )

    def build(self, context: BuildContext) -> Built:
        """Restores the adapter or whole model in `context.parent`; saves it with `restoration_trace.json`.

        Raises:
            InputError: there is no parent, or the restoration refuses its input.
        """
        if context.parent is None:
            raise InputError("The method curvature restores a fine-tuned model, and none was given. Run lora first.")
        from ..models.checkpoint import load_start, save_start
        from ..restoration.data import RestorationData
        from ..restoration.problem import restore_on

        config = replace(self, seed=context.seed, max_length=context.max_length)
        sets = {name: context.data[name] for name in NEEDS}
        data = RestorationData(**{**sets, "forget": sets["forget"][: config.forget_size]})
        model, tokenizer = load_start(
            context.base, context.parent, context.lora, context.seed, context.revision, context.dtype, context.device
        )
        result = restore_on(model, tokenizer, data, config, on_progress=context.tick)
        result.record.save(context.output)
        save_start(result.model, tokenizer, context.output, context.base, context.parent)
        trace = json.loads(result.record.to_json())
        details = {"forget_rows": result.forget_report.to_dict(), "last_iteration": (trace["iterations"] or [None])[-1]}
        details |= {name: trace[name] for name in ("ended", "state", "epsilon", "row_passes")}
        return Built(safety_examples=result.safety_examples, details=details)
