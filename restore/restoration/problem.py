"""A restoration as a problem in the parameters of one model: rows become losses, and the losses are solved for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from ...errors import InputError
from ..config.settings import RestoreConfig
from ..losses.encoding import Encoded, encode_sets, pad_id_of
from ..losses.fit import check_fit
from ..losses.of_model import Losses
from ..models.adapters import check_exact_gradients
from ..models.gate import admit
from ..models.loading import save_adapter
from ..models.prepare import copy_with_shared_base, trainable_adapter
from .aim import make_aim
from .data import RestorationData
from .forget import ForgetReport
from .harmful import harmful_rows
from .loop import TRACE_FILE, Tick, Trace, restore_parameters
from .stopping import Enough, stop_rule

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TRACE_FILE", "Posed", "RestoreResult", "posed", "restore_on"]


@dataclass(frozen=True)
class RestoreResult:
    """A restored model and how it came about."""

    model: Any
    """The PEFT model."""
    record: Trace
    """All iterations and probe steps."""
    forget_report: ForgetReport
    """Where the texts came from that the harmful prompts were given (forget and curvature rows together)."""
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


@dataclass(frozen=True)
class Posed:
    """A restoration's rows as losses of the model, ready to be solved."""

    losses: Losses
    """Of `forget`, `curvature_forget`, `refusals`, `curvature_refusals` as far as the settings need them, `retain_1`,
    `retain_2`, `retain` (both) and `retain_check`."""
    tokenizer: PreTrainedTokenizerBase
    """As the model takes it."""
    report: ForgetReport


def restore_on(
    peft_model: Any,
    tokenizer: PreTrainedTokenizerBase,
    data: RestorationData,
    config: RestoreConfig,
    *,
    inplace: bool = True,
    on_progress: Tick | None = None,
    on_update: Callable[[int], None] | None = None,
) -> RestoreResult:
    """`restore` on sets that are already split; `on_update` is told of each accepted update (`restore_parameters`)."""
    tick = on_progress or (lambda what, done, total: None)
    with posed(peft_model, tokenizer, data, config, inplace=inplace, on_progress=tick) as found:
        enough = stop_rule(found.losses, found.tokenizer, data.curvature_forget, config)
        trace = _solve(found.losses, config, enough, tick, on_update)
    held_out = config.estimator == "lbfgs" or config.stop == "refused"
    used = data if held_out else replace(data, curvature_forget=data.forget)
    return RestoreResult(found.losses.model, trace, found.report, used.safety_examples)


@contextmanager
def posed(
    peft_model: Any,
    tokenizer: PreTrainedTokenizerBase,
    data: RestorationData,
    config: RestoreConfig,
    *,
    inplace: bool = True,
    on_progress: Tick = lambda what, done, total: None,
) -> Iterator[Posed]:
    """The losses of a restoration; within the block, the adapter's parameters are fp32 and trainable.

    Args:
        peft_model: as for `restore`, like `tokenizer`, `config`, `inplace` and `on_progress`.
        tokenizer: see there.
        data: rows by role.
        config: see there.
        inplace: see there.
        on_progress: see there.

    Raises:
        InputError: the model, its tokenizer or a row is unusable.
    """
    check_exact_gradients(peft_model)
    tokenizer = admit(peft_model, tokenizer)
    retained = {name: getattr(data, name) for name in ("retain_1", "retain_2", "retain_check")}
    rows: dict[str, Sequence[Encoded]] = {**encode_sets(tokenizer, retained, config.max_length)}
    for name, encoded in rows.items():
        check_fit(peft_model, [row.ids for row in encoded], name)
    rows["retain"] = [*rows["retain_1"], *rows["retain_2"]]
    model = peft_model if inplace else copy_with_shared_base(peft_model)
    with trainable_adapter(model) as parameters:
        harmful, report = harmful_rows(model, tokenizer, data, config, on_progress)
        pad = pad_id_of(tokenizer)
        losses = Losses(model, parameters, {**rows, **harmful}, pad, config.micro_batch_size, config.seed)
        yield Posed(losses, tokenizer, report)


def _solve(
    losses: Losses,
    config: RestoreConfig,
    enough: Enough,
    tick: Tick,
    on_update: Callable[[int], None] | None,
) -> Trace:
    """Runs the restoration; the parameters are as they were where the input turns out to be bad."""
    snapshot = losses.parameters.snapshot()
    try:
        aim = make_aim(losses, config, enough)
        retain_check = losses.on("retain_check")
        return restore_parameters(
            losses.parameters, aim, retain_check, config, tick, on_update or (lambda iteration: None)
        )
    except InputError:
        losses.parameters.restore(snapshot)
        raise
