"""Seconds of each stage of a run, by the model of `costs`."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ...errors import InputError
from ..config.data import rows_for
from ..engines.choice import choose
from ..plan import Plan
from .costs import Rows, Size, Speed, Work, answering_seconds, judging_seconds, size_of, training_seconds
from .generate import JUDGED, task_infos
from .known import known_size
from .memory import PROMPT, device_of, judges_at_hand
from .models import ModelSource

__all__ = ["Estimate", "estimate", "relapse_work", "rough"]

AT_ONCE = 256
"""Requests that vLLM answers side by side, about."""
DOCUMENTS = 200
"""Of a task, where nobody has counted them."""
TYPICAL = {"cpu": Speed(4e10, 6e9, 2e-5), "gpu": Speed(2e14, 2e12, 1e-5)}
"""For `rough`, of which the ratios count."""


class Estimate(NamedTuple):
    """Seconds of each stage; None where that cannot be told."""

    build: float | None
    answer: float | None
    relapse: float | None
    """Fine-tunings of finished checkpoints, and their answers."""
    judge: float | None


def estimate(
    plan: Plan,
    sizes: Mapping[str, Size | None],
    work: Mapping[str, Work],
    rows: Rows | None,
    speed: Speed,
    engine: str | None = None,
) -> Estimate:
    """The seconds of each stage.

    Args:
        plan: of the run.
        sizes: of each model.
        work: of each task; those that are missing are not counted.
        rows: to fine-tune on; None where they are not known.
        speed: of the device.
        engine: that answers; None for the one that this machine would take.
    """
    batch = plan.config.batch_size if (engine or choose(plan.config)) == "hf" else AT_ONCE
    answers = [_answering(plan, name, size, work, speed, batch) for name, size in sizes.items()]
    again = _relapsing(plan, sizes, work, rows, speed, batch)
    return Estimate(_building(plan, sizes, rows, speed), _sum(answers), again, _judging(plan, work, speed))


def rough(plan: Plan, models: Mapping[str, ModelSource]) -> Estimate:
    """The same with typical figures in place of measured and counted ones: how the stages compare."""
    from pathlib import Path

    config = plan.config
    sizes = {name: size_of(Path(source.location), config.dtype) for name, source in models.items()}
    count = min(config.limit or DOCUMENTS, DOCUMENTS)
    work = {
        name: Work(count, PROMPT, (config.max_gen_toks or info.new_tokens) if info.new_tokens else 0)
        for name, info in task_infos(config).items()
    }
    rows = None
    if plan.builds or plan.relapses:
        try:
            rows = Rows(len(rows_for("task_train", config)), PROMPT)
        except InputError:  # the builds will say so
            rows = None
    return estimate(plan, sizes, work, rows, TYPICAL["cpu" if device_of(config) == "cpu" else "gpu"])


def _answering(
    plan: Plan, name: str, size: Size | None, work: Mapping[str, Work], speed: Speed, batch: int
) -> float | None:
    cells = [work[cell.task] for cell in plan.cells if cell.model == name and cell.task in work]
    return None if size is None or not cells else answering_seconds(cells, size, speed, batch)


def _building(plan: Plan, sizes: Mapping[str, Size | None], rows: Rows | None, speed: Speed) -> float | None:
    tuning = plan.config.finetune
    if rows is None:
        return None if plan.builds else 0.0
    seen = tuning.max_steps * tuning.batch_size if tuning.max_steps else tuning.epochs * rows.number
    micro = min(tuning.micro_batch_size, tuning.batch_size)
    known = [sizes.get(step.model) for step in plan.builds]
    return _sum(None if size is None else training_seconds(seen, rows.tokens, micro, size, speed) for size in known)


def _relapsing(
    plan: Plan, sizes: Mapping[str, Size | None], work: Mapping[str, Work], rows: Rows | None, speed: Speed, batch: int
) -> float | None:
    settings = plan.config.tasks.relapse
    if settings is None:
        return 0.0
    if rows is None:
        return None
    tuning = settings.training(plan.config.finetune.training())
    seen, micro = settings.steps[-1] * tuning.batch_size, min(tuning.micro_batch_size, tuning.batch_size)
    sized = {name: size for name, size in sizes.items() if size is not None}
    trained = {(cell.model, cell.build, cell.attack) for cell in plan.relapses}
    if len(sized) < len(sizes):
        return None
    training = sum(training_seconds(seen, rows.tokens, micro, sized[model], speed) for model, _, _ in trained)
    asked = {name: relapse_work(plan, name, work) for name in sizes}
    answers = [answering_seconds(asked[name], size, speed, batch) for name, size in sized.items()]
    return training + sum(answers)


def relapse_work(plan: Plan, model: str, work: Mapping[str, Work]) -> list[Work]:
    """What is asked of a model's fine-tuned checkpoints; before the first step they are as they were.

    Args:
        plan: of the run.
        model: which one.
        work: of each task; those that are missing are not counted.
    """
    settings = plan.config.tasks.relapse
    asked = {(c.build, c.attack, c.steps): work[c.task] for c in plan.relapses if c.model == model and c.task in work}
    most = settings.prompts if settings else None
    return [each._replace(requests=min(each.requests, most or each.requests)) for (_, _, s), each in asked.items() if s]


def _judging(plan: Plan, work: Mapping[str, Work], speed: Speed) -> float | None:
    """Of the judges that are models; the others take none to speak of."""
    cells = [work[cell.task] for cell in plan.cells if cell.role in JUDGED and cell.task in work]
    cells += [each for spec in plan.config.models for each in relapse_work(plan, spec.id, work)]
    if not any(cell.role in JUDGED for cell in plan.cells):
        return 0.0
    named = [arguments["model"] for judge in plan.config.judges for arguments in judge.values() if "model" in arguments]
    sizes = [size_of(folder, "auto") for _, folder in judges_at_hand(plan.config)]
    sizes += [size for name in named if (size := known_size(str(name)))]
    if len(sizes) < len(named) or not cells:
        return None
    return _sum(None if size is None else judging_seconds(cells, size, speed) for size in sizes)


def _sum(values: Iterable[float | None]) -> float | None:
    """Their sum; None where one is not known."""
    found = list(values)
    return None if any(value is None for value in found) else float(sum(value or 0 for value in found))
