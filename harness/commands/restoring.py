"""`safebasin restore`: the restoration alone, from files to a restored adapter."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from ...errors import InputError
from ...registry import suggest
from ...results.model_card import Card, Figure, write_card
from ...tasks.rows.reader import read_columns, read_rows
from ..config.file import read_value
from ..stages.iterations import iterations_kept
from ..stages.models import resolve
from ..terminal.progress import bars
from ..terminal.quiet import quiet
from .restored import Harm, harm_of, summary, tell_rehearsal, trace_table

if TYPE_CHECKING:
    from ...restore.api import RestoreResult
    from ...restore.config.settings import RestoreConfig

__all__ = ["Wanted", "columns_of_both", "read_settings", "restore_adapter"]


@dataclass(frozen=True)
class Wanted:
    """What is to be restored, and how, as the command line gives it."""

    base: str
    adapter: Path
    forget: str
    retain: str
    output: Path | None
    columns: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, Any]
    """Of `RestoreConfig`, and `preset`."""
    seed: int = 0
    tokenizer: str | None = None
    dtype: str = "auto"
    device: str | None = None
    merge: bool = False
    keep_iterations: bool = False
    """Whether the adapter after each update is kept too."""


def restore_adapter(wanted: Wanted, console: Console, rehearsed: bool = False) -> None:
    """Restores the adapter in a folder, and prints how the rows were read and what came of it.

    Args:
        wanted: what to restore.
        console: where to print.
        rehearsed: nothing is restored: what it would take is printed.

    Raises:
        InputError: a file, the model, the adapter or a setting is unusable.
    """
    forget_rows = read_rows(wanted.forget, ("prompt",), wanted.columns["forget"])
    retain_rows = read_rows(wanted.retain, ("prompt", "response"), wanted.columns["retain"])
    for name, read in (("forget", forget_rows), ("retain", retain_rows)):
        console.print(f"{name}: {read.said}", highlight=False, markup=False)
    quiet()
    from ...restore.api import check_free, prepare

    if not rehearsed:
        if wanted.output is None:
            raise InputError("--output is missing. Give a folder for the restored adapter, or --dry-run.")
        check_free(wanted.output)
    ready = prepare(
        resolve(wanted.base).location, wanted.adapter, forget_rows.rows, retain_rows.rows, config=_config(wanted),
        tokenizer=wanted.tokenizer, dtype=wanted.dtype, device=wanted.device,
    )  # fmt: skip
    if wanted.merge:
        ready.check_mergeable()
    if rehearsed or wanted.output is None:
        tell_rehearsal(ready, console)
        return
    kept = iterations_kept(ready.model, wanted.base, wanted.output) if wanted.keep_iterations else nullcontext()
    with kept as keep:
        with bars(console) as shown:
            before = harm_of(ready, lambda done, total: shown.update("answering before", done, total))
            result = ready.restore(lambda what, done, total: shown.update(what, done, total), keep)
            after = harm_of(ready, lambda done, total: shown.update("answering after", done, total))
        ready.save(result, wanted.output, wanted.merge)
    write_card(wanted.output, card_of_restoration(wanted, result, before, after))
    console.print(trace_table(result))
    for line in summary(result, before, after):
        console.print(line, highlight=False, markup=False)
    what = "whole restored model" if wanted.merge else "restored adapter"
    console.print(f"The {what} is in {wanted.output}", highlight=False, markup=False)


def card_of_restoration(wanted: Wanted, result: "RestoreResult", before: Harm, after: Harm) -> Card:
    """The model card of a restored adapter, or of the whole model that it was merged into."""
    record, figure = result.record, after.figure
    last = record.iterations[-1]["retain_loss"] if record.iterations else record.retain_reference
    lost = Figure(
        "loss on held-out retain rows, nats per token", "loss", "retain rows", last,
        others={"before": f"{record.retain_reference:.4g}"},
    )  # fmt: skip
    config = {field.name: getattr(record.config, field.name) for field in fields(record.config)}
    return Card(
        name=f"{wanted.adapter.name}, restored",
        base=wanted.base,
        adapter=not wanted.merge,
        done=[
            "The safety of a fine-tuned LoRA adapter, restored by `safebasin restore`: updates of the adapter's "
            "weights along the inverse curvature of its loss, the loss on rows of its task bounded (arXiv 2511.18039)."
            + (" The restored adapter is merged into the base." if wanted.merge else ""),
            f"Ended: {record.ended}. {record.state}".strip(),
        ],
        settings={**config, "safety examples": result.safety_examples, "row-passes": round(record.row_passes)},
        figures=[replace(figure, others={"before": before.figure.text}), lost],
        judged="Harm is judged by refusal keywords (qi38) alone.",
        limits=[
            "The harmful prompts asked here told when to stop: a rate on others may be higher. Measure it before you "
            "rely on it.",
            "Only harm and the retain loss were measured: not over-refusal, nor other skills.",
        ],
    )


def _config(wanted: Wanted) -> "RestoreConfig":
    from ...restore.config.settings import RestoreConfig

    given = dict(wanted.settings)
    known = ["preset", *(field.name for field in fields(RestoreConfig))]
    for key in given:
        if key not in known:
            raise InputError(f"--set {key}: the restoration has no such setting. {suggest(key, known)}")
    return RestoreConfig.from_preset(given.pop("preset", "default"), **{"seed": wanted.seed, **given})


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Reads `key=value` pairs, the values as YAML.

    Raises:
        InputError: one is of another form.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set '{pair}' is not of the form KEY=VALUE, for example epsilon=0.05.")
        try:
            found[key.strip()] = read_value(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set '{pair}': the value is no YAML ({' '.join(str(error).split())}).") from error
    return found


def columns_of_both(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """Reads `prompt=question,response=answer`, for both files or, as `forget.prompt=request`, for one of them.

    For both, `response` is of the retain rows alone, `target` and `refusal` of the forget rows alone.

    Raises:
        InputError: one is of another form, or names an unknown role.
    """
    found: dict[str, dict[str, str]] = {"forget": {}, "retain": {}}
    own: dict[str, dict[str, str]] = {"forget": {}, "retain": {}}
    for text in (part for given in texts for part in given.split(",")):
        name, dot, rest = text.strip().partition(".")
        if dot and name in own:
            own[name] |= read_columns(rest)
            continue
        for role, column in read_columns(text).items():
            if role != "response":
                found["forget"][role] = column
            if role not in ("target", "refusal"):
                found["retain"][role] = column
    return {name: found[name] | own[name] for name in found}
