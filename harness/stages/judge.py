"""The judge stage: every response of the run before every judge, one judge in memory at a time.

Responses are read from the store as they are needed: of those that wait, memory holds a few chunks.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress, islice
from math import ceil

from ...judges.base import Exchange, Judge, RemoteJudge
from ...results.records import Verdict
from ..config.model import RunConfig
from ..store.store import JudgeRecord, Store
from .memory import device_of
from .workers import in_processes, processes_for

__all__ = [
    *("Judging", "OnProgress", "deciders", "here", "judge_cells", "judged_as", "judges_of", "processes_of"),
    *("record_of", "remote_of", "spent_by"),
]

OnProgress = Callable[[str, int, int], None]
"""Called with (judge, exchanges done, exchanges in all)."""
Chunk = Sequence[Exchange]
Keep = Callable[[Chunk, Sequence[Verdict]], None]
Tell = Callable[[Judge, int], None]
_LOOKED_UP = 500
"""Exchanges that the store is asked about at once."""


def judges_of(config: RunConfig, world: int) -> list[Judge]:
    """The judges of a config for models of a sandbox world, built but not loaded."""
    from ...tasks.verdicts import build_judges

    return build_judges(config.judges, world)


def judged_as(run: str, world: int) -> str:
    """Under what the store keeps the judges of a run: each sandbox world has a guard of its own."""
    return f"{run}:{world}" if world else run


def record_of(judge: Judge) -> JudgeRecord:
    """What the store keeps of a judge."""
    return JudgeRecord(judge.name, judge.decides, judge.identity)


def deciders(judges: Sequence[JudgeRecord]) -> list[JudgeRecord]:
    """The judges that decide something that none before them does: on these outcomes rest."""
    return [
        judge for i, judge in enumerate(judges) if judge.decides - frozenset().union(*(j.decides for j in judges[:i]))
    ]


def remote_of(judges: Iterable[Judge]) -> list[RemoteJudge]:
    """Judges on other machines, each once: models of all worlds are judged by the same."""
    distinct = {id(judge): judge for judge in judges}
    return [judge for judge in distinct.values() if isinstance(judge, RemoteJudge)]


def spent_by(judge: RemoteJudge) -> str:
    """What was sent to a judge on another machine and used by it, for readers."""
    return f"judge {judge.name}: {', '.join(f'{name} {value}' for name, value in judge.spent.items())}"


def processes_of(config: RunConfig, weights: Sequence[int | None]) -> Callable[[int, int], int]:
    """(number of a judge, chunks) -> in how many processes it judges so many.

    Args:
        config: device and number of processes.
        weights: bytes of each judge's weights, where they are known.
    """
    return lambda judge, chunks: processes_for(chunks, config.processes, weights[judge], device_of(config))


@dataclass(frozen=True)
class Judging:
    """The exchanges that wait for one judge, and what becomes of its verdicts."""

    number: int
    """Of the judge."""
    judge: Judge
    exchanges: Iterable[Exchange]
    """Can be gone through once."""
    total: int
    keep: Keep
    """Called with exchanges and the verdicts on them."""
    tell: Tell
    """Called with the judge and how many are judged."""
    processes: int
    """That share them."""


def judge_cells(
    judges: Sequence[Judge],
    cells: Sequence[str],
    run: str,
    store: Store,
    on_progress: OnProgress,
    processes: Callable[[int, int], int] = lambda judge, chunks: 1,
    before: Sequence[JudgeRecord] = (),
    by: Callable[[Judging], None] | None = None,
) -> None:
    """Judges the samples of the cells. What the store knows is not judged again; what comes is stored in chunks.

    Args:
        judges: in the order in which they decide.
        cells: keys.
        run: digest of the run's plan.
        store: where the samples are, and the verdicts go.
        on_progress: see `OnProgress`.
        processes: in how many processes a judge, by its number, shall judge so many chunks.
        before: judges that the run has already, and that decide before these.
        by: lets one judge judge; None does so on this machine (`here`).
    """
    from ...tasks.verdicts import chunk_of

    records = [record_of(judge) for judge in judges]
    for number, (judge, record) in enumerate(zip(judges, records, strict=True)):
        waiting = _waiting(store, cells, record.identity)
        total, known = len(waiting), waiting.count(0)
        on_progress(judge.name, known, total)
        missing = compress(_different(store, cells), waiting)
        keep = partial(store.add_verdicts, record.identity)
        # One that is asked over a network counts here what it sends, and how fast.
        remote = isinstance(judge, RemoteJudge)
        count = 1 if remote else processes(number, ceil((total - known) / chunk_of(judge)))
        tell = _tell(on_progress, known, total)
        try:
            (by or here)(Judging(number, judge, missing, total - known, keep, tell, count))
        finally:
            judge.close()
    store.set_judges(run, [*before, *records])


def _different(store: Store, cells: Sequence[str]) -> Iterator[Exchange]:
    """Every exchange of the cells once, in order; 16 bytes of each are remembered."""
    seen: set[bytes] = set()
    for cell in cells:
        for sample in store.each_sample(cell):
            text = f"{len(sample.prompt)}:{sample.prompt}{sample.response}"
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                yield Exchange(sample.prompt, sample.response)


def _waiting(store: Store, cells: Sequence[str], identity: str) -> bytearray:
    """Of each different exchange, 1 where it waits for a judge and 0 where its verdict is known.

    That of thinking that did not end is known without a judge.
    """
    from ...tasks.verdicts import unfinished

    waiting = bytearray()
    for some in _chunks(_different(store, cells), _LOOKED_UP):
        if settled := unfinished(some):
            store.add_verdicts(identity, list(settled), list(settled.values()))
        known = store.verdicts(identity, some)
        waiting += bytes(exchange not in known for exchange in some)
    return waiting


def _chunks(exchanges: Iterable[Exchange], size: int) -> Iterator[Chunk]:
    rest = iter(exchanges)
    while chunk := list(islice(rest, size)):
        yield chunk


def here(judging: Judging) -> None:
    """Lets a judge judge on this machine, in chunks."""
    from ...tasks.verdicts import chunk_of

    judge, chunks = judging.judge, _chunks(judging.exchanges, chunk_of(judging.judge))
    alone = judging.processes == 1
    judged = (
        _here(judge, chunks, judging.tell) if alone else _in_processes(judge, chunks, judging.processes, judging.tell)
    )
    for chunk, verdicts in judged:
        judging.keep(chunk, verdicts)


def _here(judge: Judge, chunks: Iterable[Chunk], tell: Tell) -> Iterator[tuple[Chunk, Sequence[Verdict]]]:
    from ...tasks.verdicts import judge_chunk

    finished = 0
    for chunk in chunks:
        yield chunk, judge_chunk(judge, chunk, finished, tell)
        finished += len(chunk)


def _in_processes(
    judge: Judge, chunks: Iterable[Chunk], count: int, tell: Tell
) -> Iterator[tuple[Chunk, Sequence[Verdict]]]:
    given: dict[int, Chunk] = {}

    def taken() -> Iterator[Chunk]:
        for number, chunk in enumerate(chunks):
            given[number] = chunk
            yield chunk

    finished = 0
    for number, verdicts in in_processes(lambda chunk, _: judge.judge(chunk), taken(), count, lambda: None):
        if isinstance(verdicts, Exception):
            raise verdicts
        chunk = given.pop(number)
        yield chunk, verdicts
        finished += len(chunk)
        tell(judge, finished)


def _tell(on_progress: OnProgress, known: int, total: int) -> Tell:
    return lambda judge, finished: on_progress(judge.name, known + finished, total)
