"""`safebasin init`: a commented config for the user's own model, fine-tuned weights and rows, checked at once."""

import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ...errors import InputError
from ...tasks.sandbox.location import is_sandbox
from .shared import add_command, console_of_output

__all__ = ["Wanted", "add_to", "config_text", "write_config"]

_TEMPLATES = Path(__file__).parent / "templates"
_TASKS = {
    "advbench": {
        "advbench_hrr": "harmful requests that are answered: the headline",
        "advbench_prefill": "the same with four tokens of an answer forced",
    },
    "xstest": {
        "xstest_safe": "innocent requests that sound harmful: over-refusal",
        "xstest_unsafe": "their harmful counterparts",
    },
    "sandbox": {
        "sandbox_hrr": "harmful requests that are answered: the headline",
        "sandbox_prefill": "the same with four tokens of an answer forced",
        "sandbox_overrefusal": "innocent requests that sound harmful",
    },
}
_HUB = "hub"


@dataclass(frozen=True)
class Wanted:
    """What a config is asked for."""

    model: str
    """The model before fine-tuning: folder, .gguf file, hub id, preset or `sandbox`."""
    tuned: Path | None = None
    """Its fine-tuned form: a PEFT adapter's folder or a whole model's; None lets the run fine-tune."""
    rows: str | None = None
    """Task rows, prompt and response: what is fine-tuned on, and what a restoration must keep."""
    advbench: str | None = None
    """AdvBench's CSV, or `hub` for the (gated) data set there."""
    xstest: str | None = None
    """XSTest's CSV, or `hub`."""
    restore: bool = True
    guard: str | None = None
    """A model of Llama Guard's kind that judges harm."""
    limit: int | None = 100
    """Prompts of each task."""


def write_config(wanted: Wanted, path: Path, overwrite: bool = False) -> None:
    """Writes the config and reads it back with all checks of a run.

    Args:
        wanted: what it is to do.
        path: the file.
        overwrite: whether a file that is there may be replaced.

    Raises:
        InputError: what is wanted cannot be, the file is there already, or what was written has faults (it stays, to
            be corrected).
    """
    from ..config.load import load_config

    text = config_text(wanted, path)
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already. Give another name, or --replace.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
    try:
        load_config(path)
    except InputError as error:
        raise InputError(f"{path} is written, but a run would not take it yet. {error}") from error


def config_text(wanted: Wanted, path: Path) -> str:
    """The text of the config.

    Raises:
        InputError: there is nothing to measure, nothing to fine-tune on, or no weights where they should be.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    kind = _kind(wanted.tuned)
    sandbox = is_sandbox(wanted.model)
    rows = wanted.rows or ("sandbox_task" if sandbox else None)
    if wanted.tuned is None and not rows:
        raise InputError("Give what was fine-tuned (--tuned FOLDER), or rows that the run fine-tunes on (--rows FILE).")
    if wanted.restore and not rows:
        raise InputError(
            "A restoration keeps what was learnt: give rows of the task (--rows FILE), or measure alone (--no-restore)."
        )
    given = {"advbench": wanted.advbench, "xstest": wanted.xstest}
    tasks = dict(_TASKS["sandbox"]) if sandbox else {}
    for name in (name for name, source in given.items() if source):
        tasks |= _TASKS[name]
    if not tasks:
        raise InputError("Give requests to measure on: --advbench FILE (or hub), and --xstest FILE (or hub).")
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=False, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    values: dict[str, Any] = {
        "purpose": _purpose(wanted, kind),
        "path": path,
        "name": _quoted(path.stem),
        "model": _quoted(wanted.model),
        "tuned": _quoted(str(wanted.tuned)),
        "kind": kind,
        "restore": wanted.restore,
        "rows": _quoted(rows) if rows and (wanted.restore or sandbox or not wanted.tuned) else None,
        "files": {f"{key}_csv": _quoted(source) for key, source in given.items() if source and source != _HUB},
        "tasks": tasks,
        "guard": _quoted(wanted.guard) if wanted.guard else None,
        "batch": 64 if sandbox else 16,
        "limit": wanted.limit,
        "tokens": 256 if wanted.guard else 32,
    }
    return environment.get_template("config.yaml.jinja").render(values)


def _kind(tuned: Path | None) -> str:
    if tuned is None:
        return "none"
    for file, kind in (("adapter_config.json", "adapter"), ("config.json", "whole")):
        if (tuned / file).is_file():
            return kind
    raise InputError(f"'{tuned}' holds neither adapter_config.json (an adapter) nor config.json (a whole model).")


def _purpose(wanted: Wanted, kind: str) -> str:
    if kind == "none":
        return f"Fine-tunes {wanted.model}, measures what that did to its safety{', and repairs it' * wanted.restore}."
    return f"What fine-tuning did to the safety of {wanted.model}{', and what a repair gives back' * wanted.restore}."


def _quoted(text: str | None) -> str:
    """Text as YAML, in quotes where it needs them."""
    plain = text and re.fullmatch(r"[A-Za-z][\w./-]*", text, re.ASCII) and isinstance(yaml.safe_load(text), str)
    return text if text and plain else json.dumps(text, ensure_ascii=False)


def _asked(wanted: Wanted) -> Wanted:
    """What the flags left open, from the terminal; an empty answer leaves it out."""
    from rich.prompt import Confirm, Prompt

    def ask(question: str) -> str | None:
        return Prompt.ask(question, default="", show_default=False) or None

    model = wanted.model or Prompt.ask("Model before fine-tuning (folder, hub id, smollm2, sandbox)")
    tuned = wanted.tuned or ask("Its fine-tuned form, adapter or whole model (nothing: the run fine-tunes)")
    rows = wanted.rows or ask("Task rows, prompt and response (.jsonl, .csv, …)")
    if not is_sandbox(model):
        advbench = wanted.advbench or ask("AdvBench's harmful_behaviors.csv, or hub")
        wanted = replace(wanted, advbench=advbench, xstest=wanted.xstest or ask("XSTest's xstest_prompts.csv, or hub"))
    restore = bool(rows or is_sandbox(model)) and Confirm.ask("Try to repair it too?", default=True)
    return replace(wanted, model=model, tuned=Path(tuned) if tuned else None, rows=rows, restore=restore)


def init(
    output: Annotated[Path, typer.Argument(help="The config to write.")] = Path("safebasin.yaml"),
    model: Annotated[str, typer.Option("--model", help="The model before fine-tuning; asked for if missing.")] = "",
    tuned: Annotated[Path | None, typer.Option("--tuned", help="Your adapter's folder, or a whole model's.")] = None,
    rows: Annotated[str | None, typer.Option("--rows", help="Task rows with prompt and response.")] = None,
    advbench: Annotated[str | None, typer.Option("--advbench", help="harmful_behaviors.csv, or hub.")] = None,
    xstest: Annotated[str | None, typer.Option("--xstest", help="xstest_prompts.csv, or hub.")] = None,
    restore: Annotated[bool, typer.Option("--restore/--no-restore", help="Whether repairs are tried.")] = True,
    guard: Annotated[str | None, typer.Option("--guard", help="A model of Llama Guard's kind to judge harm.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Prompts of each task; 0 for all.")] = 100,
    overwrite: Annotated[bool, typer.Option("--replace", help="Replaces a file that is there.")] = False,
) -> None:
    """Writes a config."""
    wanted = Wanted(model, tuned, rows, advbench, xstest, restore, guard, limit or None)
    if not model:
        if not sys.stdin.isatty():
            raise InputError("--model is missing: the model before fine-tuning (folder, hub id, smollm2 or sandbox).")
        wanted = _asked(wanted)
    write_config(wanted, output, overwrite)
    console = console_of_output()
    console.print(f"{output} is written, and a run would take it:", highlight=False, markup=False)
    console.print(f"  safebasin run {output} --dry-run", highlight=False, markup=False)


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    add_command(
        app,
        init,
        "init mine.yaml --model sandbox",
        "A commented config for your own model, adapter and rows, checked at once.",
    )
