"""What unlearning methods and controls do around their numbers: open the parent, encode the rows, save, report."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from ...errors import InputError
from ..curvature.lbfgs import dot
from ..losses.encoding import encode_all, pad_id_of
from ..losses.of_model import Losses
from ..method import BuildContext, Built
from ..models.checkpoint import kind_of, load_start, save_start
from ..models.parameters import FlatParameters
from ..models.prepare import trainable_adapter
from ..restoration.data import RestorationData, Rows
from ..restoration.harmful import answer_forget
from ..restoration.loop import Trace
from .config import ControlConfig, UnlearnConfig
from .steps import Terms, unlearn_parameters
from .walk import Path, follow

__all__ = ["control", "unlearn"]


def unlearn(context: BuildContext, method: str, settings: UnlearnConfig, terms: Callable[[Losses], Terms]) -> Built:
    """Unlearns the forget rows from the adapter or whole model in `context.parent`; saves it with its trace.

    Args:
        context: model, data and output folder.
        method: its name, for errors.
        settings: the method's; `seed` and `max_length` become the context's.
        terms: makes the method's loss, while the model is still the tuned one.

    Raises:
        InputError: there is no parent, rows or settings are unusable, or a gradient vanishes.
    """
    config = replace(settings, seed=context.seed, max_length=context.max_length)
    data = _data(context, config)
    model, tokenizer = _opened(context, method)
    with trainable_adapter(model) as parameters:
        answers, report = answer_forget(model, tokenizer, data.forget, config, context.tick)
        rows = {
            "forget": answers,
            "retain": encode_all(tokenizer, [*data.retain_1, *data.retain_2], "retain", config.max_length),
            "retain_check": encode_all(tokenizer, data.retain_check, "retain_check", config.max_length),
        }
        losses = Losses(model, parameters, rows, pad_id_of(tokenizer), config.micro_batch_size, config.seed)
        forget, start = losses.on("forget"), parameters.get()
        before = forget.loss()
        trace = unlearn_parameters(parameters, terms(losses), losses.on("retain_check"), config, context.tick)
        after, moved = forget.loss(), parameters.get() - start
    _save(model, tokenizer, trace, context)
    details = {
        "forget_rows": report.to_dict(),
        "forget_loss_before": before,
        "forget_loss": after,
        "retain_loss_before": trace.retain_reference,
        "retain_loss": trace.iterations[-1]["retain_loss"],
        "moved_norm": dot(moved, moved) ** 0.5,
        "accepted_steps": sum(row["accepted"] for row in trace.iterations),
        "gradient_evaluations": sum(row["gradient_evaluations"] for row in trace.iterations),
    }
    return Built(safety_examples=data.safety_examples, details=details)


def control(
    context: BuildContext, method: str, settings: ControlConfig, path: Callable[[FlatParameters], Path]
) -> Built:
    """Moves the adapter in `context.parent` along a path, as far as the bound allows; saves it with its trace.

    Args:
        context: model, data and output folder; of the data, `retain_check`.
        method: its name, for errors.
        settings: the method's.
        path: makes the path, from the parameters of the tuned model.

    Raises:
        InputError: there is no parent adapter, or it or the rows are unusable.
    """
    if context.parent is not None and kind_of(context.parent) == "full":
        raise InputError(
            f"The method {method} walks along an adapter, and its start is a whole model. Start from lora."
        )
    model, tokenizer = _opened(context, method)
    rows = encode_all(tokenizer, context.data["retain_check"], "retain_check", context.max_length)
    with trainable_adapter(model) as parameters:
        losses = Losses(
            model, parameters, {"retain_check": rows}, pad_id_of(tokenizer), settings.micro_batch_size, context.seed
        )
        trace = follow(parameters, path(parameters), losses.on("retain_check"), settings, context.tick)
    _save(model, tokenizer, trace, context)
    accepted = [row for row in trace.iterations if row["accepted"]]
    last = accepted[-1] if accepted else {"multiple": 0.0, "retain_loss": trace.retain_reference, "moved_norm": 0.0}
    details = {
        "retain_loss_before": trace.retain_reference,
        "retain_loss": last["retain_loss"],
        "moved_norm": last["moved_norm"],
        "multiple": last["multiple"],
        "bound_reached": len(accepted) < len(trace.iterations),
        "accepted_steps": len(accepted),
        "trials": len(trace.iterations),
        "gradient_evaluations": 0,
    }
    return Built(details=details)


def _opened(context: BuildContext, method: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """The fine-tuned model that a post-hoc method starts from, trainable, and its tokenizer."""
    if context.parent is None:
        raise InputError(f"The method {method} changes a fine-tuned model, and none was given. Run lora first.")
    return load_start(
        context.base, context.parent, context.lora, context.seed, context.revision, context.dtype, context.device
    )


def _data(context: BuildContext, config: UnlearnConfig) -> RestorationData:
    """The sets, checked. A method without a retain term is given no rows for it: the check set stands in."""
    forget: Rows = context.data["forget"]
    if config.forget_from == "both":
        forget = [*forget, *context.data["curvature_forget"]]
    check = context.data["retain_check"]
    first, second = (context.data.get(name, check) for name in ("retain_1", "retain_2"))
    return RestorationData(forget, forget, first, second, check)


def _save(model: Any, tokenizer: PreTrainedTokenizerBase, trace: Trace, context: BuildContext) -> None:
    trace.save(context.output)
    save_start(model, tokenizer, context.output, context.base, str(context.parent))
