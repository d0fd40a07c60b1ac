"""The adapters that a restoration goes through, kept beside the one that it ends with."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["ITERATIONS", "iterations_kept", "iterations_of"]

ITERATIONS = "iterations"
"""Folder in that of a restored adapter: `1`, `2`, … hold the adapter after each accepted update."""


@contextmanager
def iterations_kept(model: Any, base: str, output: Path) -> Iterator[Callable[[int], None]]:
    """Yields what is called after each update, with its number; at the end of the block all are put into `output`.

    Args:
        model: the PEFT model that is restored.
        base: noted in the adapters as their base model.
        output: where the restored adapter lies when the block ends.
    """
    from ...restore.models.loading import save_adapter

    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-{ITERATIONS}-", dir=output.parent) as scratch:
        kept = Path(scratch) / ITERATIONS
        kept.mkdir()
        yield lambda number: save_adapter(model, kept / str(number), base)
        kept.rename(output / ITERATIONS)


def iterations_of(folder: Path) -> list[Path]:
    """The adapters that a restoration into this folder went through, in order; empty where they were not kept."""
    found = [path for path in (folder / ITERATIONS).glob("*") if path.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.name))
