"""Pieces on other machines: sent as soon as what they wait for is done, again where a worker died, and merged here."""

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.markup import escape

from ...errors import InputError, StorageError
from ..pieces import Done, Piece
from ..state import RunState
from ..store.files import make_folder
from .cluster import Cluster, Died
from .part import Reader, take, write_known
from .work import TOKEN, code_here, order_of, work

__all__ = ["PARTS", "Remote"]

PARTS = "parts"
"""Folder below the run's for what workers append."""


@dataclass(eq=False)
class _UnderWay:
    """A piece that was sent."""

    piece: Piece
    handle: Any
    part: str
    reader: Reader
    attempt: int


class Remote:
    """Sends pieces to a cluster. The driver holds the store and the bars; workers hold nothing that is missed."""

    far: ClassVar[bool] = True

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._token, self._code = uuid.uuid4().hex, ""
        self._sent: list[_UnderWay] = []

    def do(self, state: RunState, pieces: Iterable[Piece], done: Done) -> None:
        """See `Executor`; pieces that wait for nothing are sent together."""
        parts = self._folder(state)
        waiting, ended = list(pieces), set[str]()
        names = {piece.name for piece in waiting}
        while waiting or self._sent:
            ready = [piece for piece in waiting if ended >= names & {*piece.after}]
            waiting = [piece for piece in waiting if piece not in ready]
            self._sent += [self._send(state, piece, parts, 0) for piece in ready]
            for one in list(self._sent):
                if self._look(state, one, parts):
                    done(one.piece)
                    ended.add(one.piece.name)
            if self._sent:
                time.sleep(self._cluster.pause)

    def close(self) -> None:
        """See `Executor`."""
        for one in self._sent:
            self._cluster.drop(one.handle)
        self._cluster.close()

    def _folder(self, state: RunState) -> Path:
        """Where workers append; what those of a run that was killed have left goes into the store."""
        parts = make_folder(state.folder.resolve() / PARTS)
        if not self._code:
            self._code = code_here()
            (parts / TOKEN).write_text(self._token, encoding="utf-8")
            for left in sorted(parts.glob("*.known")):
                _merge(Reader(left.with_suffix(".jsonl")), state, progress=False)
                _forget(parts, left.stem)
            if self._cluster.notice:
                state.shown.say(f"[yellow]{escape(self._cluster.notice)}[/yellow]")
        return parts

    def _send(self, state: RunState, piece: Piece, parts: Path, attempt: int) -> _UnderWay:
        part = uuid.uuid4().hex[:12]
        write_known(parts / f"{part}.known", state.store, {model.digest for model in state.models.values()})
        order = order_of(state, parts, self._token, self._code)
        handle = self._cluster.send(piece.name, work, piece, order, part)
        return _UnderWay(piece, handle, part, Reader(parts / f"{part}.jsonl"), attempt)

    def _look(self, state: RunState, one: _UnderWay, parts: Path) -> bool:
        """Merges what is new; whether the piece has ended.

        Raises:
            InputError: it ended in a way that no other piece would not.
            StorageError: the disk is full.
        """
        try:
            outcome = self._cluster.outcome(one.handle)
        except Died as death:
            return self._buried(state, one, parts, str(death))
        _merge(one.reader, state)
        if outcome is None:
            return False
        self._sent.remove(one)
        _forget(parts, one.part)
        outcome.into(state)
        if isinstance(outcome.error, InputError | StorageError):
            raise outcome.error
        if outcome.error is not None:
            state.fail(one.piece.name, outcome.error)
            one.piece.lost(state, " ".join(str(outcome.error).split()))
        return True

    def _buried(self, state: RunState, one: _UnderWay, parts: Path, reason: str) -> bool:
        """Keeps what a dead worker has done, and begins the piece again; whether it is given up."""
        _merge(one.reader, state)
        self._sent.remove(one)
        _forget(parts, one.part)
        tries = state.config.resources.retries + 1
        if one.attempt + 1 < tries:
            told = escape(f"{one.piece.name}: {reason}; it goes on with another worker")
            state.shown.say(f"[yellow]{told}[/yellow]")
            self._sent.append(self._send(state, one.piece, parts, one.attempt + 1))
            return False
        times = f"{tries} times" if tries > 1 else "once"
        one.piece.lost(state, f"its worker died {times}, at last: {reason}. See resources.memory and resources.retries")
        return True


def _merge(reader: Reader, state: RunState, progress: bool = True) -> None:
    """Puts what a worker has appended since into the store, and shows its progress."""
    for line in reader.fresh():
        if line[0] == "tick":
            if progress:
                bar, done, total, units = line[1:]
                if units:
                    state.hear(bar, done, total, units)
                else:
                    state.shown.update(bar, done, total)
        elif line[0] == "say":
            if progress:
                state.shown.say(line[1])
        else:
            take(line, state.store)


def _forget(parts: Path, part: str) -> None:
    for suffix in ("jsonl", "known"):
        (parts / f"{part}.{suffix}").unlink(missing_ok=True)
