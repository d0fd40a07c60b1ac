"""Progress bars: one line per piece of work, quiet where the output is no terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

__all__ = ["Bars", "bars"]


class Bars:
    """Named progress bars on one display. Where there is no terminal each bar is announced once, in plain text."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._console = console
        self._ids: dict[str, TaskID] = {}

    def update(self, name: str, done: int, total: int) -> None:
        """Sets a bar, making it at its first use."""
        if name not in self._ids:
            self._ids[name] = self._progress.add_task(name, total=total)
            if not self._console.is_terminal:
                self._console.print(f"{name} ({total})", highlight=False)
        self._progress.update(self._ids[name], completed=done, total=total)

    def say(self, line: str) -> None:
        """Prints a line above the bars."""
        self._console.print(line, highlight=False)


@contextmanager
def bars(console: Console) -> Iterator[Bars]:
    """Shows progress bars on `console` for the length of the block."""
    name = TextColumn("{task.description}", table_column=Column(overflow="ellipsis", no_wrap=True, max_width=46))
    numbers = MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=9))
    columns = (name, BarColumn(bar_width=16), numbers, TimeElapsedColumn(table_column=Column(min_width=7)))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bars(progress, console)
