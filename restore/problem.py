"""A restoration as a problem in the parameters of one model: rows become losses, and the losses are solved for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from transformers import PreTrainedTokenizerBase

from ..errors import InputError
from .adapters import check_exact_gradients
from .config import RestoreConfig
from .curvature import Source
from .data import RestorationData, Rows
from .encoding import Encoded, encode_all, pad_id_of, prompt_ids
from .fit import check_fit
from .forget import ForgetReport, encode_forget, forget_rows
from .loading import save_adapter
from .objective import TokenMeanLoss, probe_batches
from .parameters import FlatParameters
from .prepare import copy_with_shared_base, trainable_adapter
from .quantised import forward_epsilon
from .restoration import TRACE_FILE, Tick, Trace, restore_parameters

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TRACE_FILE", "Losses", "RestoreResult", "answer_forget", "restore_on"]

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
        self.record.save(folder)


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
    check_exact_gradients(peft_model)
    retained = {
        name: encode_all(tokenizer, getattr(data, name), name, config.max_length)
        for name in ("retain_1", "retain_2", "retain_check")
    }
    for name, encoded in retained.items():
        check_fit(peft_model, [row.ids for row in encoded], name)
    model = peft_model if inplace else copy_with_shared_base(peft_model)
    tick = on_progress or (lambda what, done, total: None)
    with trainable_adapter(model) as parameters:
        both = (*data.forget, *data.curvature_forget)
        rows, report = answer_forget(model, tokenizer, both, config, tick)
        retained["forget"], retained["curvature_forget"] = rows[: len(data.forget)], rows[len(data.forget) :]
        losses = Losses(model, parameters, retained, pad_id_of(tokenizer), config.micro_batch_size, config.seed)
        trace = _solve(losses, config, tick)
    return RestoreResult(model, trace, report, data.safety_examples)


class AnswerSettings(Protocol):
    """What `answer_forget` reads of a method's settings."""

    @property
    def forget_target(self) -> Literal["self", "affirmative"]: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def micro_batch_size(self) -> int: ...
    @property
    def max_length(self) -> int: ...


def answer_forget(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Rows, settings: AnswerSettings, tick: Tick
) -> tuple[list[Encoded], ForgetReport]:
    """The forget rows with the answers whose loss is raised, encoded, and where the answers came from."""
    prompts = [prompt_ids(tokenizer, row["prompt"]) for row in rows]
    check_fit(model, prompts, "forget", settings.max_new_tokens, settings.max_length)
    tick("answering the forget prompts", 0, 1)
    answered, report = forget_rows(
        model, tokenizer, rows, settings.forget_target, settings.max_new_tokens, settings.micro_batch_size
    )
    tick("answering the forget prompts", 1, 1)
    return encode_forget(tokenizer, answered, settings.max_length + settings.max_new_tokens), report


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

    def on(self, name: str) -> TokenMeanLoss:
        """The loss on a whole set."""
        return TokenMeanLoss(self.model, self.parameters, self.rows[name], self.micro_batch_size, self.pad, name)

    def batches(self, name: str, iteration: int, size: int, limit: int) -> list[TokenMeanLoss]:
        """At most `limit` batches of a set, shuffled anew in each iteration."""
        return probe_batches(
            self.model, self.parameters, self.rows[name], size=size, name=name, pad_id=self.pad,
            micro_batch_size=self.micro_batch_size, limit=limit, seed=f"{self.seed + iteration} {name}",
        )  # fmt: skip


def _solve(losses: Losses, config: RestoreConfig, tick: Tick) -> Trace:
    """Runs the restoration; the parameters are as they were where the input turns out to be bad."""
    noise = ROUNDING * forward_epsilon(losses.model)

    def sources(iteration: int) -> Sequence[Source]:
        """The sets that probe curvature, in the order of their turns."""
        return [
            Source(
                name,
                losses.batches(name, iteration, config.batch_size, config.max_attempts),
                retain=name != "curvature_forget",
                noise=noise,
            )
            for name in ("curvature_forget", "retain_1", "retain_2")
        ]

    snapshot = losses.parameters.snapshot()
    try:
        return restore_parameters(
            losses.parameters, losses.on("forget"), sources, losses.on("retain_check"), config, tick
        )
    except InputError:
        losses.parameters.restore(snapshot)
        raise
