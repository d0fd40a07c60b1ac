"""A restoration as a problem in the parameters of one model: rows become losses, and the losses are solved for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from ..errors import InputError
from .config import RestoreConfig
from .curvature import Source
from .data import RestorationData
from .encoding import Encoded, encode_all, pad_id_of
from .forget import ForgetReport, encode_forget, forget_rows
from .loading import save_adapter
from .objective import TokenMeanLoss, probe_batches
from .parameters import FlatParameters
from .prepare import copy_with_shared_base, trainable_adapter
from .restoration import Tick, Trace, restore_parameters

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TRACE_FILE", "RestoreResult", "restore_on"]

TRACE_FILE = "restoration_trace.json"
ROUNDING = 4
"""Gradient changes below this many machine epsilons (of the gradient's length) are mostly rounding.

Sandbox model, bfloat16 against fp32: the change's cosine fell to -0.85 at 0.011, and was above 0.98 from 0.035 on.
"""


@dataclass(frozen=True)
class RestoreResult:
    """A restored model and how it came about."""

    model: Any
    """The PEFT model."""
    record: Trace
    """All iterations and probe steps."""
    forget_report: ForgetReport
    """Where the answers came from whose loss was raised (forget and curvature rows together)."""
    safety_examples: int
    """Number of distinct harmful prompts used."""

    @property
    def trace(self) -> "pd.DataFrame":
        """One row per iteration: losses, norms, step size, curvature pairs."""
        return self.record.frame()

    def save_pretrained(self, folder: str | Path, base: str | None = None) -> None:
        """Saves a standard PEFT adapter folder, with the trace in `restoration_trace.json`."""
        save_adapter(self.model, folder, base)
        (Path(folder) / TRACE_FILE).write_text(self.record.to_json() + "\n", encoding="utf-8")


def restore_on(
    peft_model: Any,
    tokenizer: PreTrainedTokenizerBase,
    data: RestorationData,
    config: RestoreConfig,
    *,
    inplace: bool = True,
    on_progress: Tick | None = None,
) -> RestoreResult:
    """`restore` on sets that are already split."""
    retained = {
        name: encode_all(tokenizer, getattr(data, name), name, config.max_length)
        for name in ("retain_1", "retain_2", "retain_check")
    }
    model = peft_model if inplace else copy_with_shared_base(peft_model)
    tick = on_progress or (lambda what, done, total: None)
    with trainable_adapter(model) as parameters:
        both = (*data.forget, *data.curvature_forget)
        tick("answering the forget prompts", 0, 1)
        answered, report = forget_rows(
            model, tokenizer, both, config.forget_target, config.max_new_tokens, config.micro_batch_size
        )
        tick("answering the forget prompts", 1, 1)
        rows = encode_forget(tokenizer, answered, config.max_length + config.max_new_tokens)
        retained["forget"], retained["curvature_forget"] = rows[: len(data.forget)], rows[len(data.forget) :]
        trace = _Problem(model, parameters, retained, pad_id_of(tokenizer), config).solve(tick)
    return RestoreResult(model, trace, report, data.safety_examples)


@dataclass(frozen=True)
class _Problem:
    """The losses of a restoration, over encoded rows."""

    model: Any
    parameters: FlatParameters
    rows: dict[str, list[Encoded]]
    pad: int
    config: RestoreConfig

    def solve(self, tick: Tick) -> Trace:
        """Runs the restoration; the parameters are as they were where the input turns out to be bad."""
        snapshot = self.parameters.snapshot()
        try:
            return restore_parameters(
                self.parameters, self.loss("forget"), self.sources, self.loss("retain_check"), self.config, tick
            )
        except InputError:
            self.parameters.restore(snapshot)
            raise

    def loss(self, name: str) -> TokenMeanLoss:
        """The loss on a whole set."""
        size = self.config.micro_batch_size
        return TokenMeanLoss(self.model, self.parameters, self.rows[name], size, self.pad, name)

    def sources(self, iteration: int) -> Sequence[Source]:
        """The sets that probe curvature, in the order of their turns, shuffled anew in each iteration."""
        noise = ROUNDING * torch.finfo(self.model.dtype).eps if self.model.dtype.is_floating_point else 0.0
        return [
            Source(name, self.probes(name, iteration), retain=name != "curvature_forget", noise=noise)
            for name in ("curvature_forget", "retain_1", "retain_2")
        ]

    def probes(self, name: str, iteration: int) -> list[TokenMeanLoss]:
        """Probe batches of a set."""
        return probe_batches(
            self.model, self.parameters, self.rows[name], size=self.config.batch_size, name=name, pad_id=self.pad,
            micro_batch_size=self.config.micro_batch_size, limit=self.config.max_attempts,
            seed=f"{self.config.seed + iteration} {name}",
        )  # fmt: skip
