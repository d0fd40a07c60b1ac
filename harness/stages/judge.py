"""The judge stage: every response of the run before every judge, one judge in memory at a time."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from ...judges.base import Exchange, Judge, RemoteJudge
from ...results.records import Verdict
from ..config.model import RunConfig
from ..store.store import JudgeRecord, Store
from .memory import device_of
from .workers import in_processes, processes_for

__all__ = [
    *("OnProgress", "deciders", "judge_cells", "judged_as", "judges_of", "processes_of", "record_of", "remote_of"),
    "spent_by",
]

OnProgress = Callable[[str, int, int], None]
"""Called with (judge, exchanges done, exchanges in all)."""
Keep = Callable[[Judge, Sequence[Exchange], Sequence[Verdict]], None]
Tell = Callable[[Judge, int], None]


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


def judge_cells(
    judges: Sequence[Judge],
    cells: Sequence[str],
    run: str,
    store: Store,
    on_progress: OnProgress,
    processes: Callable[[int, int], int] = lambda judge, chunks: 1,
    before: Sequence[JudgeRecord] = (),
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
    """
    from ...tasks.verdicts import unfinished

    exchanges = list(dict.fromkeys(Exchange(s.prompt, s.response) for cell in cells for s in store.samples(cell)))
    settled = unfinished(exchanges)
    records = [record_of(judge) for judge in judges]
    for number, (judge, record) in enumerate(zip(judges, records, strict=True)):
        store.add_verdicts(record.identity, list(settled), list(settled.values()))
        known = store.verdicts(record.identity, exchanges)
        missing = [exchange for exchange in exchanges if exchange not in known]
        on_progress(judge.name, len(known), len(exchanges))
        keep, tell = _keep(store, record.identity), _tell(on_progress, len(known), len(exchanges))
        try:
            _judge(judge, missing, keep, tell, partial(processes, number))
        finally:
            judge.close()
    store.set_judges(run, [*before, *records])


def _judge(judge: Judge, missing: Sequence[Exchange], keep: Keep, tell: Tell, processes: Callable[[int], int]) -> None:
    from ...tasks.verdicts import chunk_of, judge_each

    size = chunk_of(judge)
    chunks = [missing[start : start + size] for start in range(0, len(missing), size)]
    # One that is asked over a network counts here what it sends, and how fast.
    count, finished = 1 if isinstance(judge, RemoteJudge) else processes(len(chunks)), 0
    if count == 1:
        judge_each(judge, missing, keep, tell)
        return
    for number, verdicts in in_processes(lambda chunk, _: judge.judge(chunk), chunks, count, lambda: None):
        if isinstance(verdicts, Exception):
            raise verdicts
        keep(judge, chunks[number], verdicts)
        finished += len(chunks[number])
        tell(judge, finished)


def _keep(store: Store, identity: str) -> Keep:
    return lambda judge, exchanges, verdicts: store.add_verdicts(identity, exchanges, verdicts)


def _tell(on_progress: OnProgress, known: int, total: int) -> Tell:
    return lambda judge, finished: on_progress(judge.name, known + finished, total)
