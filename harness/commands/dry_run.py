"""`safebasin run --dry-run`: what a run would do, ask, hold, take and show; nothing is built or generated."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import InputError
from ...restore.models.chat import writing_date
from ...restore.models.files import local_folder
from ...restore.models.thinking import ending_thinking
from ...tasks.catalog import TaskInfo
from ...tasks.sandbox.location import is_sandbox, model_folder, world_of
from ..config.data import rows_for, said
from ..config.model import RunConfig
from ..engines.choice import choose
from ..plan import Plan, make_plan
from ..stages.asking import Asker, asker_for, requests_of
from ..stages.costs import Size, Speed, Work, answering_seconds, judging_seconds, size_of, speed_of, training_seconds
from ..stages.generate import JUDGED, task_infos
from ..stages.gguf import gguf_in
from ..stages.memory import device_of, judges_at_hand, memory_plan
from ..stages.models import ModelSource
from ..stages.presets import PRESETS
from ..stages.replicas import preset_of
from ..terminal.plan_view import plan_table
from ..terminal.quiet import quiet
from .precision import precision

__all__ = ["at_hand", "rehearse_run"]

SHOWN, IDS = 2000, 256
"""Characters of a prompt, and token ids, that are printed."""
AT_ONCE = 256
"""Requests that vLLM answers side by side, about."""
SAMPLED = 64
"""Task rows whose tokens are counted."""


def rehearse_run(config: RunConfig, console: Console) -> None:
    """Prints the plan, each task's first prompt, memory, responses and hours per stage, and what n can show.

    Args:
        config: a validated config.
        console: where to.
    """
    quiet()
    plan, infos = make_plan(config), task_infos(config)
    console.print(plan_table(plan))
    for line in said(config):
        console.print(Text(line))
    found = {spec.id: at_hand(spec.id, spec.revision) for spec in config.models}
    with writing_date(config.date), ending_thinking(config.think_end_token):
        asked = _first_prompts(config, infos, found, console)
        tokens = _row_tokens(config, found)
    sources = {name: ModelSource(name, str(folder), None, "") for name, folder in found.items() if folder}
    for line in memory_plan(sources, config, infos.values(), choose(config)):
        console.print(line, highlight=False, soft_wrap=True)
    _stages(plan, infos, found, asked, tokens, console)
    for line in precision(config):
        console.print(Text(line))


def at_hand(name: str, revision: str | None = None) -> Path | None:
    """The folder of a model where it lies on this machine, ready to be read; nothing is fetched or built."""
    try:
        if is_sandbox(name):
            return model_folder(name)
        if name in PRESETS or gguf_in(name) is not None:
            return None  # dequantised as the run begins
    except InputError:
        return None
    return local_folder(name, revision)


def _first_prompts(
    config: RunConfig, infos: Mapping[str, TaskInfo], found: Mapping[str, Path | None], console: Console
) -> dict[str, Work]:
    """Prints the first prompt of each task to each model; of replicas the first alone. Returns what is asked."""
    asked: dict[str, Work] = {}
    names = list(found)[:1] if preset_of(list(found)) else list(found)
    for name in names:
        asker, reason = _asker(found[name], name)
        console.print(Text(f"first prompts, as '{name}' is asked them:", style="bold"))
        if asker is None:
            console.print(Text(f"  not known: {reason}"))
            continue
        for task, info in infos.items():
            try:
                requests = requests_of(asker, info, config, 1)
                first = requests.asked[0]
            except (InputError, OSError, ValueError, IndexError) as error:  # data that cannot be had make all of these
                line = " ".join(str(error).split()) or type(error).__name__
                console.print(Text(f"  {task}: not known: {line[:SHOWN]}"))
                continue
            text, ids = str(first.arguments[0][0]), asker.ids(str(first.arguments[0][0]))
            count = requests.documents * len(first.arguments)
            asked.setdefault(task, Work(count, len(ids), _new(info, config)))
            about = f"{requests.documents} documents, {count} requests; the first has {len(ids)} tokens"
            console.print(Text.assemble(f"  {task}: ", (about, "dim")))
            console.print(Text(f"    {text[:SHOWN]!r}{_more(len(text) - SHOWN, 'characters')}"), soft_wrap=True)
            console.print(Text(f"    {ids[:IDS]}{_more(len(ids) - IDS, 'ids')}"), soft_wrap=True)
    return asked


def _asker(folder: Path | None, name: str) -> tuple[Asker | None, str]:
    if folder is None:
        build = " (`safebasin sandbox` builds it)" if is_sandbox(name) else ""
        return None, f"no tokenizer of it is on this machine{build}"
    try:
        return asker_for(folder), ""
    except InputError as error:
        return None, str(error)


def _more(rest: int, what: str) -> str:
    return f" … and {rest} more {what}" if rest > 0 else ""


def _new(info: TaskInfo, config: RunConfig) -> int:
    return (config.max_gen_toks or info.new_tokens) if info.new_tokens else 0


def _row_tokens(config: RunConfig, found: Mapping[str, Path | None]) -> tuple[int, int] | None:
    """Rows to fine-tune on, and the mean of their tokens; None where they or every tokenizer are not at hand."""
    for name, folder in found.items():
        asker, _ = _asker(folder, name)
        if asker is None:
            continue
        try:
            rows = rows_for("task_train", config, world_of(str(folder)))
        except (InputError, OSError, ValueError):  # data that cannot be had, as above
            return None
        counts = [len(asker.ids(row["prompt"])) + len(asker.ids(row["response"])) for row in rows[:SAMPLED]]
        return len(rows), round(sum(counts) / len(counts))
    return None


def _stages(
    plan: Plan,
    infos: Mapping[str, TaskInfo],
    found: Mapping[str, Path | None],
    asked: Mapping[str, Work],
    tokens: tuple[int, int] | None,
    console: Console,
) -> None:
    """The table of stages, and what its hours rest on."""
    config, device = plan.config, device_of(plan.config)
    dtype = "float32" if config.dtype == "auto" and device == "cpu" else config.dtype
    sizes = {name: size_of(folder, dtype) if folder else None for name, folder in found.items()}
    speed = speed_of(device, dtype)
    work = {task: asked.get(task) for task in infos}
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head in ("stage", "of", "responses", "hours, about"):
        table.add_column(head, justify="left" if head in ("stage", "of") else "right")
    judged = [cell for cell in plan.cells if cell.role in JUDGED]
    known = {task: each.requests for task, each in work.items() if each}
    table.add_row("build", f"{len(plan.builds)} checkpoints", "", _hours(_building(plan, sizes, tokens, speed)))
    total = _sum(known.get(cell.task) for cell in plan.cells)
    answers = _sum(_answering(plan, name, size, work, speed) for name, size in sizes.items())
    table.add_row("answer", f"{len(plan.cells)} cells", _count(total), _hours(answers))
    verdicts = _sum(known.get(cell.task) for cell in judged)
    judges = f"{len(config.judges)} judge{'s' if len(config.judges) != 1 else ''}, each"
    table.add_row("judge", judges, _count(verdicts), _hours(_judging(plan, work, speed)))
    console.print(table)
    for line in _basis(asked, infos, speed, device):
        console.print(Text(line, style="dim"))


def _basis(asked: Mapping[str, Work], infos: Mapping[str, TaskInfo], speed: Speed, device: str) -> Iterator[str]:
    yield (
        f"Hours: a model of the work (harness/stages/costs.py) at what {device} did just now: {speed.text}. Every "
        "answer is taken to be as long as its task allows, a post-hoc method to cost what a fine-tuning does; nothing "
        "that a store has is taken off (--explain-key tells that)."
    )
    if missing := [task for task in infos if task not in asked]:
        yield f"Not counted, as their requests are not known: {', '.join(missing)}."


def _answering(plan: Plan, name: str, size: Size | None, work: Mapping[str, Work | None], speed: Speed) -> float | None:
    """Seconds of all checkpoints of a model."""
    batch = plan.config.batch_size if choose(plan.config) == "hf" else AT_ONCE
    cells = [each for cell in plan.cells if cell.model == name and (each := work[cell.task])]
    return None if size is None or not cells else answering_seconds(cells, size, speed, batch)


def _building(
    plan: Plan, sizes: Mapping[str, Size | None], tokens: tuple[int, int] | None, speed: Speed
) -> float | None:
    tuning = plan.config.finetune
    if tokens is None:
        return None if plan.builds else 0.0
    rows = tuning.max_steps * tuning.batch_size if tuning.max_steps else tuning.epochs * tokens[0]
    each = [
        None if (size := sizes[step.model]) is None
        else training_seconds(rows, tokens[1], min(tuning.micro_batch_size, tuning.batch_size), size, speed)
        for step in plan.builds
    ]  # fmt: skip
    return _sum(each)


def _judging(plan: Plan, work: Mapping[str, Work | None], speed: Speed) -> float | None:
    """Seconds of the judges that are models; the others take none to speak of."""
    cells = [each for cell in plan.cells if cell.role in JUDGED and (each := work[cell.task])]
    if any("model" in arguments and "url" in arguments for judge in plan.config.judges for arguments in judge.values()):
        return None
    folders = list(judges_at_hand(plan.config))
    wanted = sum("model" in arguments for judge in plan.config.judges for arguments in judge.values())
    sizes = [size_of(folder, "auto") for _, folder in folders]
    if len(folders) < wanted or not cells:
        return None
    return _sum(None if size is None else judging_seconds(cells, size, speed) for size in sizes)


def _sum(values: Iterator[float | None] | list[float | None]) -> float | None:
    """Their sum; None where one is not known or there are none of them."""
    found = list(values)
    return None if any(value is None for value in found) else float(sum(value or 0 for value in found))


def _count(number: float | None) -> str:
    return "not known" if number is None else f"{number:,.0f}"


def _hours(seconds: float | None) -> str:
    return "not known" if seconds is None else f"{seconds / 3600:.2f}" if seconds >= 36 else "< 0.01"
