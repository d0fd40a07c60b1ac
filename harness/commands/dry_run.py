"""`safebasin run --dry-run`: what a run would do, ask, hold, take and show; nothing is built or generated."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ...errors import InputError
from ...registry import suggest
from ...restore.models.chat import writing_date
from ...restore.models.files import local_folder
from ...restore.models.thinking import ending_thinking
from ...tasks.catalog import TaskInfo
from ...tasks.sandbox.location import is_sandbox, model_folder, world_of
from ..config.data import rows_for, said
from ..config.model import RunConfig
from ..config.parallel import ParallelConfig
from ..engines.choice import choose
from ..plan import Plan, make_plan
from ..stages.asking import Asker, asker_for, requests_of
from ..stages.costs import Rows, Speed, Work, size_of, speed_of
from ..stages.estimates import estimate, relapse_work
from ..stages.generate import JUDGED, task_infos
from ..stages.gguf import dequantised_before, gguf_in
from ..stages.known import CAPACITY, DEVICES, ROWS, known_requests, known_size
from ..stages.leaks import left_out
from ..stages.memory import PROMPT, device_of, memory_plan
from ..stages.models import ModelSource
from ..stages.presets import PRESETS, preset_file
from ..stages.replicas import preset_of
from ..stages.spreading import spread_lines
from ..terminal.plan_view import plan_table
from ..terminal.quiet import quiet
from .precision import precision

__all__ = ["at_hand", "rehearse_run"]

SHOWN, IDS = 2000, 256
"""Characters of a prompt, and token ids, that are printed."""
SAMPLED = 64
"""Task rows whose tokens are counted."""


def rehearse_run(config: RunConfig, console: Console, device: str | None = None) -> None:
    """Prints the plan, each task's first prompt, memory, responses and hours per stage, and what n can show.

    Args:
        config: a validated config.
        console: where to.
        device: one of `known.DEVICES` that the hours are told for; None measures this machine's.

    Raises:
        InputError: no such device is known.
    """
    if device is not None and device not in DEVICES:
        raise InputError(f"No device '{device}' is known. {suggest(device, DEVICES)}")
    quiet()
    plan, infos = make_plan(config), task_infos(config)
    console.print(plan_table(plan))
    for line in (*said(config), *left_out(config)):
        console.print(Text(line))
    found = {spec.id: at_hand(spec.id, spec.revision) for spec in config.models}
    with writing_date(config.date), ending_thinking(config.think_end_token):
        asked = _first_prompts(config, infos, found, console)
        rows = _row_tokens(config, found) or ROWS.get(config.finetune.dataset)
    sources = {name: ModelSource(name, str(folder), None, "") for name, folder in found.items() if folder}
    for line in memory_plan(sources, config, infos.values(), choose(config)):
        console.print(line, highlight=False, soft_wrap=True)
    for name in (name for name, folder in found.items() if folder is None):
        if size := known_size(name):
            line = f"  target {name}: weights {size.weights / 1e9:.1f} GB, as it is known by its name"
            console.print(line, highlight=False, soft_wrap=True)
    _spread(config, found, device, console)
    _stages(plan, infos, found, asked, rows, device, console)
    for line in precision(config):
        console.print(Text(line))


def _spread(config: RunConfig, found: Mapping[str, Path | None], known: str | None, console: Console) -> None:
    """What each device holds, of a run elsewhere or of models that are spread over several."""
    if known is None and config.parallel == ParallelConfig():
        return
    engine = config.engine if config.engine != "auto" else "vllm" if known else choose(config)
    for name, folder in found.items():
        dtype = config.dtype if config.dtype != "auto" or known else _dtype(config)
        size = size_of(folder, dtype) if folder else known_size(name)
        if size is not None:
            for line in spread_lines(escape(name), size, config, engine, CAPACITY.get(known or "")):
                console.print(line, highlight=False, soft_wrap=True)


def _dtype(config: RunConfig) -> str:
    return "float32" if device_of(config) == "cpu" else "auto"


def at_hand(name: str, revision: str | None = None) -> Path | None:
    """The folder of a model where it lies on this machine, ready to be read; nothing is fetched or built."""
    try:
        if is_sandbox(name):
            return model_folder(name)
        file = preset_file(name) if name in PRESETS else gguf_in(name)
        if file is not None:
            return dequantised_before(file)
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


def _row_tokens(config: RunConfig, found: Mapping[str, Path | None]) -> Rows | None:
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
        return Rows(len(rows), round(sum(counts) / len(counts)))
    return None


def _stages(
    plan: Plan,
    infos: Mapping[str, TaskInfo],
    found: Mapping[str, Path | None],
    asked: Mapping[str, Work],
    rows: Rows | None,
    known: str | None,
    console: Console,
) -> None:
    """The table of stages, and what its hours rest on."""
    config, device = plan.config, device_of(plan.config)
    dtype = "float32" if config.dtype == "auto" and device == "cpu" and not known else config.dtype
    sizes = {name: size_of(folder, dtype) if folder else known_size(name) for name, folder in found.items()}
    speed = DEVICES[known] if known else speed_of(device, dtype)
    typical = {
        task: Work(number, PROMPT, _new(info, config))
        for task, info in infos.items()
        if task not in asked and any(sizes.values()) and (number := known_requests(task, config.limit))
    }
    counted = {**asked, **typical}
    engine = ("hf" if config.engine == "hf" else "vllm") if known else None
    seconds = estimate(plan, sizes, counted, rows, speed, engine)
    requests = {task: each.requests for task, each in counted.items()}
    answers = _sum(requests.get(cell.task) for cell in plan.cells)
    again = sum(each.requests for name in found for each in relapse_work(plan, name, counted))
    verdicts = _sum([again, *(requests.get(cell.task) for cell in plan.cells if cell.role in JUDGED)])
    judges = f"{len(config.judges)} judge{'s' if len(config.judges) != 1 else ''}, each"
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head in ("stage", "of", "responses", "hours, about"):
        table.add_column(head, justify="left" if head in ("stage", "of") else "right")
    table.add_row("build", f"{len(plan.builds)} checkpoints", "", _hours(seconds.build))
    table.add_row("answer", f"{len(plan.cells)} cells", _count(answers), _hours(seconds.answer))
    if plan.relapses:
        table.add_row("relapse", f"{plan.attacks} fine-tunings", _count(again), _hours(seconds.relapse))
    table.add_row("judge", judges, _count(verdicts), _hours(seconds.judge))
    console.print(table)
    for line in _basis(config, asked, typical, infos, speed, known or device):
        console.print(Text(line, style="dim"))


def _basis(
    config: RunConfig,
    asked: Mapping[str, Work],
    typical: Mapping[str, Work],
    infos: Mapping[str, TaskInfo],
    speed: Speed,
    device: str,
) -> Iterator[str]:
    when = "" if device in DEVICES else " just now"
    yield (
        f"Hours: a model of the work (harness/stages/costs.py) at what {device} did{when}: {speed.text}. Every "
        "answer is taken to be as long as its task allows, a post-hoc method to cost what a fine-tuning does; nothing "
        "that a store has is taken off (--explain-key tells that)."
    )
    if aligned := [spec.id for spec in config.models if spec.align]:
        yield f"Not counted: the alignment of {', '.join(aligned)}, once for all runs that align alike."
    if typical:
        yield (
            f"As they are known, {PROMPT} tokens each, since data or tokenizer are not here: the requests of "
            f"{', '.join(typical)}."
        )
    if missing := [task for task in infos if task not in asked and task not in typical]:
        yield f"Not counted, as their requests are not known: {', '.join(missing)}."


def _sum(values: Iterable[int | None]) -> int | None:
    """Their sum; None where one is not known."""
    found = list(values)
    return None if None in found else sum(value or 0 for value in found)


def _count(number: int | None) -> str:
    return "not known" if number is None else f"{number:,.0f}"


def _hours(seconds: float | None) -> str:
    return "not known" if seconds is None else f"{seconds / 3600:.2f}" if seconds >= 36 else "< 0.01"
