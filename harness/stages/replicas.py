"""Whether the rows of a run may be put together: which model each is of, and which are replicas of one preset."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...results.method_result import MethodResult

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["check_against_manifest", "model_digest_of", "preset_of", "report_replicas"]

PRESETS = ("sandbox",)
"""Presets of which `preset:seed` is another world."""


def preset_of(models: Sequence[str]) -> str | None:
    """The preset of which all the models are worlds (`sandbox`, `sandbox:3`), where there are several."""
    presets = {name.partition(":")[0] for name in models}
    return presets.pop() if len(set(models)) > 1 and len(presets) == 1 and presets <= {*PRESETS} else None


def model_digest_of(name: str, parts: Sequence[Mapping[str, Any]]) -> str:
    """The digest of the model that gave the answers of one row.

    Args:
        name: of the row, for messages.
        parts: what the keys of its cells were made from (`evaluate.cell_parts`).

    Returns:
        "" where no cell is finished.

    Raises:
        InputError: its cells are of several models or adapters.
    """
    for what, key in (("models", "model"), ("adapters", "adapter")):
        found = list(dict.fromkeys(str(each[key]) for each in parts if key in each))
        if len(found) > 1:
            raise InputError(
                f"The tasks of '{name}' were answered by different {what} (digests "
                f"{', '.join(digest[:12] or 'none' for digest in found)}): the run was begun with one and not finished "
                "with the other. Run `safebasin run` again to the end, on one machine."
            )
    return next((str(each["model"]) for each in parts if "model" in each), "")


def check_against_manifest(folder: Path, results: Sequence[MethodResult]) -> None:
    """Refuses rows that a run elsewhere put in the place of this run's: with a shared store, the last one is shown.

    Raises:
        InputError: a row's model is not the one that the folder's manifest.json says the run was made with.
    """
    try:
        models = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["models"]
    except (OSError, ValueError, KeyError):
        return  # the run is not finished, or from before manifests had models
    for result in results:
        made_with = models.get(result.model, {}).get("digest", "")
        if made_with and result.model_digest and made_with != result.model_digest:
            raise InputError(
                f"{folder} was made with '{result.model}' of digest {made_with[:12]}, but the store's row "
                f"{result.name} is of digest {result.model_digest[:12]}: the same config ran with another world (on "
                "another kind of CPU, or from other source) and the same store. Run `safebasin run` here again, or "
                "give each machine a --store of its own."
            )


def report_replicas(
    results: Sequence[MethodResult], folder: Path, console: "Console", reference: str | None = None
) -> None:
    """Writes replicas.csv and replicas.md, the table of claims over worlds, and prints it.

    Where checkpoints were fine-tuned again, relapse-worlds.csv too.

    Methods that lack a replica are left out and named; nothing is written where that is all of them.

    Raises:
        InputError: two worlds are the same, measures are of some rows only, there is no method `reference`, or a file
            cannot be written.
    """
    from ...results.export import write_table
    from ...results.outcomes import incomplete
    from ...results.relapse_worlds import relapse_over_worlds
    from ...results.replicas import default_reference, replicas
    from ...results.replicas_view import print_replicas, write_replicas

    lacking = incomplete(results)
    complete = [result for result in results if result.method not in lacking]
    if not complete:
        console.print("No method is finished in all worlds yet, so that there is no table over worlds.", style="dim")
        return
    table = replicas(complete, reference)
    relapse = relapse_over_worlds(complete, reference or default_reference(complete))
    if len(relapse):
        write_table(relapse, folder / "relapse-worlds.csv")
    write_replicas(table, folder / "replicas.csv", lacking, relapse)
    print_replicas(table, console, lacking, relapse)
