"""Are the names in a config known, and do its parts fit together? Each check reads some sections and lists faults."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ... import registry
from ...errors import InputError
from ...registry import suggest
from ...tasks.rows.reader import is_hub
from ...tasks.sandbox.location import MODELS, is_sandbox, sandbox_problem
from ...vllm_setup import vllm_problem
from .data import SAFETY_SETS, TASK_SETS, own_rows_of, own_sources, rows_for
from .faults import Fault, twice
from .model import BASE, SANDBOX_SETS, MethodSpec, RunConfig
from .naming import slug
from .published_checks import check_published
from .resources import executor_problem
from .settings import check_settings
from .task_checks import check_judges, check_tasks, check_what_is_judged, hrr_task

__all__ = ["CHECKS"]


def check_models(config: RunConfig) -> Iterator[Fault]:
    """Folders that are there, sandbox models that exist, none twice."""
    slugs = [slug(model.id) for model in config.models]
    for i, model in enumerate(config.models):
        at = f"models.{i}"
        if slugs[i] in slugs[:i]:
            yield Fault(at, f"'{model.id}' is listed twice")
        for name in filter(None, (model.id, model.unaligned)):
            if problem := _model_problem(name):
                yield Fault(at, problem)
        if model.align:
            yield from _batch_faults(f"{at}.align", model.align.batch_size, model.align.micro_batch_size)


def _model_problem(name: str) -> str | None:
    if is_sandbox(name):
        return sandbox_problem(name)
    path = Path(name)
    if (path / "config.json").is_file() or any(path.glob("*.gguf")):
        return None
    if path.suffix.lower() == ".gguf":
        return None if path.is_file() else f"there is no file '{name}'"
    if name.startswith((".", "/")) or name.count("/") > 1:
        return f"'{name}' is no model folder (it has no config.json), and no hub id"
    close = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.8)
    return f"unknown model '{name}'. Did you mean '{close[0]}'?" if close else None


def check_methods(config: RunConfig) -> Iterator[Fault]:
    """Known methods with settings that they accept; labels that are all different and say what they seem to."""
    known = registry.available("methods")
    for i, (spec, label) in enumerate(zip(config.methods, config.labels, strict=True)):
        at, place = f"methods.{i}", f"methods.{i}.{spec.name}"
        if spec.label in (BASE, "lora") and spec.label != spec.name:
            yield Fault(f"{place}.label", f"'{spec.label}' is the name of another row; choose another label")
        if spec.name == BASE:
            if spec.settings:
                yield Fault(place, f"the base model takes no settings, got {spec.settings}")
        elif spec.name not in known:
            yield Fault(at, f"unknown method '{spec.name}'. {suggest(spec.name, [BASE, *known])}")
        else:
            yield from _setting_faults(place, spec.name, spec.settings)
            yield from _given_faults(place, spec)
        if spec.start and spec.name in known:
            yield from _start_faults(f"{place}.start", spec, config, known)
        if label in config.labels[:i]:
            yield Fault(
                at, f"the row '{label}' is there already; take one out, or tell them apart by a `label` setting"
            )


def _given_faults(place: str, spec: MethodSpec) -> Iterator[Fault]:
    """Weights that are taken over are there."""
    for name, key, file, what in (
        ("lora", "adapter", "adapter_config.json", "PEFT adapter folder"),
        ("full", "model", "config.json", "folder of a whole model"),
    ):
        folder = spec.settings.get(key) if spec.name == name else None
        if isinstance(folder, str) and not (Path(folder) / file).is_file():
            yield Fault(f"{place}.{key}", f"'{folder}' is no {what}")


def _start_faults(at: str, spec: MethodSpec, config: RunConfig, known: Iterable[str]) -> Iterator[Fault]:
    if registry.load("methods", spec.name).stage != "post-hoc":
        yield Fault(at, f"{spec.name} starts from the base model; only post-hoc methods have a start")
        return
    tuned = [name for name in known if registry.load("methods", name).stage in ("alignment", "fine-tuning")]
    rows = [label for other, label in zip(config.methods, config.labels, strict=True) if other.name in tuned]
    if spec.start not in (*tuned, *rows):
        yield Fault(at, f"unknown start '{spec.start}'. {suggest(str(spec.start), [*rows, *tuned])}")


def _setting_faults(at: str, name: str, settings: dict[str, Any]) -> list[Fault]:
    try:
        return check_settings(at, registry.load("methods", name), settings)[1]
    except InputError as error:
        return [Fault(at, str(error))]


def check_data(config: RunConfig) -> Iterator[Fault]:
    """Data sets and files that are there; own rows that are sound (those on the hub are not loaded for that)."""
    known = {"finetune.dataset": TASK_SETS, "data.safety": SAFETY_SETS}
    for at, (source, needs, columns) in own_sources(config).items():
        if not is_hub(source):
            try:
                own_rows_of(source, needs, columns)
            except InputError as error:
                near = difflib.get_close_matches(source, known.get(at, ()), n=1, cutoff=0.5)
                yield Fault(at, f"{error}{f' Did you mean {near[0]!r}?' if near else ''}")
    yield from _idle_columns(config)
    for key, path in config.data.files.items():
        if key == "eval_rows":  # read above, with what it holds
            continue
        if path and key.endswith("_dir") and not Path(path).is_dir():
            yield Fault(f"data.{key}", f"there is no folder '{path}'")
        elif path and not key.endswith("_dir") and not Path(path).is_file():
            yield Fault(f"data.{key}", f"there is no file '{path}'")


def check_eval_rows(config: RunConfig) -> Iterator[Fault]:
    """The loss on own rows has rows."""
    if "rows_eval_loss" in config.tasks.utility and not config.data.eval_rows:
        yield Fault("data.eval_rows", "rows_eval_loss takes the loss on the rows of this file; name one")


def _idle_columns(config: RunConfig) -> Iterator[Fault]:
    """A map of columns without own rows that it could be of."""
    own, data = own_sources(config), config.data
    maps = (
        ("finetune.columns", "finetune.dataset", config.finetune.columns),
        ("data.safety_columns", "data.safety", data.safety_columns),
        ("data.retain_columns", "data.retain", data.retain_columns),
        ("data.validation_columns", "data.validation", data.validation_columns),
        ("data.eval_columns", "data.eval_rows", data.eval_columns),
        ("data.relapse_columns", "data.relapse", data.relapse_columns),
    )
    for at, of, columns in maps:
        if columns and of not in own:
            yield Fault(at, f"{of} names no rows of your own, whose columns these could be; take it out")


def check_finetune(config: RunConfig) -> Iterator[Fault]:
    """A batch that divides into micro-batches; no module twice."""
    yield from _batch_faults("finetune", config.finetune.batch_size, config.finetune.micro_batch_size)
    yield from twice("finetune.target_modules", config.finetune.target_modules)
    yield from _dose_faults(config)


def _batch_faults(at: str, batch: int, micro: int) -> Iterator[Fault]:
    if batch > micro and batch % micro:
        seen = batch - batch % micro
        text = f"must be a multiple of micro_batch_size={micro}, got {batch}; a step would see {seen} rows"
        yield Fault(f"{at}.batch_size", text)


def _dose_faults(config: RunConfig) -> Iterator[Fault]:
    """A dose is found by one long fine-tuning: the shorter ones must be its beginnings."""
    if all(config.target_hrr(model.id) is None for model in config.models):
        return
    finetune, at = config.finetune, "finetune.target_hrr"
    if finetune.dataset not in SANDBOX_SETS:
        known = " and ".join(SANDBOX_SETS)
        text = f"only {known} have the validation requests that this is measured on, not '{finetune.dataset}'"
        yield Fault(at, f"{text}; take it out and set epochs or max_steps")
    if finetune.schedule != "constant" or finetune.warmup_ratio:
        text = f"needs schedule=constant and warmup_ratio=0, got {finetune.schedule} and {finetune.warmup_ratio:g}"
        yield Fault(at, f"{text}; else a shorter training is not the beginning of a longer one")


def check_sandbox_data(config: RunConfig) -> Iterator[Fault]:
    """The sandbox's models know 250 words: English data are noise to them."""
    sandbox = [model.id for model in config.models if is_sandbox(model.id)]
    if sandbox and config.finetune.dataset in ("dolly", "alpaca"):
        name = config.finetune.dataset
        text = f"the model '{sandbox[0]}' knows the sandbox's words only and cannot learn '{name}'; use sandbox_task"
        yield Fault("finetune.dataset", text)


def check_relapse(config: RunConfig) -> Iterator[Fault]:
    """Rows enough to fine-tune again on, harm to measure, and the two methods that half the drift lies between."""
    relapse, at = config.tasks.relapse, "tasks.relapse"
    if relapse is None:
        return
    if not relapse.attacks:
        yield Fault(at, "nothing is fine-tuned on: benign is false and harmful is empty")
    yield from twice(f"{at}.harmful", relapse.harmful)
    batch = relapse.batch_size or config.finetune.batch_size
    yield from _batch_faults(at, batch, relapse.micro_batch_size or config.finetune.micro_batch_size)
    for row in {BASE, "lora"} - {*config.labels}:
        yield Fault(at, f"half the drift lies between the rows base and lora, and there is no row '{row}'; add it")
    if not hrr_task(config):
        yield Fault(at, "harm is measured by the run's task with role hrr; name one under tasks.safety")
    if relapse.harmful and not is_hub(config.data.relapse or ""):
        try:
            given = len(rows_for("relapse", config))
        except InputError as error:
            if not config.data.relapse:  # else check_data says so
                yield Fault(f"{at}.harmful", str(error))
        else:
            if max(relapse.harmful) > given:
                yield Fault(f"{at}.harmful", f"{max(relapse.harmful)} rows are asked for, and there are {given}")


def check_seeds(config: RunConfig) -> Iterator[Fault]:
    """No seed twice."""
    yield from twice("seeds", config.seeds)


def check_engine(config: RunConfig) -> Iterator[Fault]:
    """An engine that is installed, for the device asked for."""
    problem = vllm_problem(config.device) if config.engine == "vllm" else None
    if problem:
        yield Fault("engine", problem)


def check_parallel(config: RunConfig) -> Iterator[Fault]:
    """A batch that the processes can share; a file of settings that is there, and the package that reads it."""
    tuning, parallel = config.finetune, config.parallel
    micro = min(tuning.micro_batch_size, tuning.batch_size)
    if parallel.processes > 1 and tuning.batch_size % (micro * parallel.processes):
        text = f"batch_size={tuning.batch_size} is no multiple of micro_batch_size={micro} times as many"
        yield Fault("parallel.processes", f"{text}, got {parallel.processes}; a step would see other rows")
    if parallel.deepspeed and not Path(parallel.deepspeed).is_file():
        yield Fault("parallel.deepspeed", f"there is no file '{parallel.deepspeed}'")
    elif parallel.deepspeed and find_spec("deepspeed") is None:
        yield Fault("parallel.deepspeed", "the package deepspeed is not installed here; install it, or use fsdp")


def check_executor(config: RunConfig) -> Iterator[Fault]:
    """An executor whose library is installed, and GPUs that it can give."""
    if problem := executor_problem(config.executor):
        yield Fault("executor", problem)
    if config.executor != "local" and config.parallel.gpus > max(1, config.resources.gpus):
        text = f"parallel takes {config.parallel.gpus} GPUs of one worker, and it gets {config.resources.gpus:g}"
        yield Fault("resources.gpus", f"{text}; raise it")
    if config.executor == "slurm" and config.resources.gpus % 1:
        yield Fault("resources.gpus", f"Slurm gives whole GPUs, got {config.resources.gpus:g}")


CHECKS: tuple[tuple[tuple[str, ...], Callable[[RunConfig], Iterator[Fault]]], ...] = (
    (("models",), check_models),
    (("methods",), check_methods),
    (("finetune",), check_finetune),
    (("models", "finetune", "data"), check_data),
    (("data", "tasks"), check_eval_rows),
    (("models", "finetune"), check_sandbox_data),
    (("tasks",), check_tasks),
    (("judges",), check_judges),
    (("tasks", "judges"), check_what_is_judged),
    (("models", "methods", "finetune", "data", "tasks"), check_relapse),
    (("models", "methods", "tasks", "published"), check_published),
    (("seeds",), check_seeds),
    (("engine", "device"), check_engine),
    (("executor", "resources", "parallel"), check_executor),
    (("finetune", "parallel"), check_parallel),
)
"""Each check with the sections it reads; it is left out while one of them is malformed."""
