"""Progress: one line per piece of work on a terminal; elsewhere plain lines at its start, at its end and in between."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Lock, Thread

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from .whole import Whole, told

__all__ = ["SILENCE", "Bars", "bars"]

SILENCE = 30.0
"""Seconds without a line, at most, where there is no terminal."""


@dataclass
class _Piece:
    """A piece of work that is under way."""

    name: str
    done: int
    total: int
    first: int
    """Steps that were done when it was first heard of: they were not waited for."""
    began: float

    def line(self, now: float) -> str:
        """How far it is, for how long, and how long it will take at this pace."""
        spent, made = now - self.began, self.done - self.first
        text = f"{self.name}: {self.done} of {self.total}, {told(spent)}"
        left = spent / made * (self.total - self.done) if made and self.done < self.total else 0.0
        return text + (f", about {told(left)} left" if left else "")


class _Lines:
    """Plain lines for pieces of work: when one begins and ends, and never `silence` seconds without one."""

    def __init__(self, write: Callable[[str], None], silence: float, clock: Callable[[], float]) -> None:
        self._write, self._silence, self._clock = write, silence, clock
        self._pieces: dict[str, _Piece] = {}
        self._last: str | None = None
        self.whole: Whole | None = None
        self._written = clock()
        self._lock = Lock()

    def update(self, name: str, done: int, total: int) -> None:
        """Hears of a step."""
        with self._lock:
            now = self._clock()
            piece = self._pieces.get(name)
            if piece is None:
                piece = self._pieces[name] = _Piece(name, done, total, done, now)
                self._say(f"{name}: {total} to do" + (f", {done} done before" if done else ""))
            finished = done >= total and piece.done < piece.total
            piece.done, piece.total, self._last = done, total, name
            late = now - self._written >= self._silence
            if finished or late:
                self._say(piece.line(now), late)

    def tell_whole(self) -> None:
        """How far the whole run is."""
        with self._lock:
            if self.whole is not None:
                self._say(self.whole.line)

    def beat(self) -> None:
        """Tells of the latest piece again where nothing was written for too long."""
        with self._lock:
            piece, now = self._pieces.get(self._last or ""), self._clock()
            if piece and piece.done < piece.total and now - self._written >= self._silence:
                self._say(piece.line(now), True)

    def _say(self, line: str, whole: bool = False) -> None:
        self._written = self._clock()
        self._write(line)
        if whole and self.whole is not None:
            self._write(self.whole.line)


class Bars:
    """Named progress bars on one display, or plain lines where there is no terminal."""

    def __init__(self, progress: Progress, console: Console, lines: _Lines | None) -> None:
        self._progress, self._console, self._lines = progress, console, lines
        self._ids: dict[str, TaskID] = {}
        self._whole: Whole | None = None

    def follow(self, whole: Whole) -> Whole:
        """Shows from now on how far a whole run is: a bar above the others, or lines between them."""
        self._whole = whole
        if self._lines:
            self._lines.whole = whole
        else:
            self._ids[""] = self._progress.add_task("whole run", total=100)
        return whole

    def tell_whole(self) -> None:
        """Shows it anew: as a stage begins or ends."""
        if self._lines:
            self._lines.tell_whole()
        elif self._whole is not None:
            self._progress.update(self._ids[""], description=self._whole.short, completed=self._whole.percent)

    def update(self, name: str, done: int, total: int) -> None:
        """Sets a bar, making it at its first use."""
        if self._lines:
            self._lines.update(name, done, total)
            return
        if name not in self._ids:
            self._ids[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._ids[name], completed=done, total=total)
        self.tell_whole()

    def say(self, line: str) -> None:
        """Prints a line above the bars."""
        self._console.print(line, highlight=False)


@contextmanager
def bars(console: Console, silence: float = SILENCE) -> Iterator[Bars]:
    """Shows progress on `console` for the length of the block."""
    name = TextColumn(
        "{task.description}", markup=False, table_column=Column(overflow="ellipsis", no_wrap=True, max_width=58)
    )
    numbers = MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=9))
    columns = (name, BarColumn(bar_width=16), numbers, TimeElapsedColumn(table_column=Column(min_width=7)))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        if console.is_terminal:
            yield Bars(progress, console, None)
            return
        lines = _Lines(lambda line: _plain(console, line), silence, time.monotonic)
        with _beating(lines, silence):
            yield Bars(progress, console, lines)


def _plain(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _beating(lines: _Lines, silence: float) -> Iterator[None]:
    """Beats in the background: a step may take longer than the silence that is allowed."""
    over = Event()

    def beat() -> None:
        while not over.wait(silence / 10):
            lines.beat()

    thread = Thread(target=beat, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
