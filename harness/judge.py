"""The judge stage: every response of the run before every judge, one judge in memory at a time."""

from collections.abc import Callable, Sequence

from ..judges.base import Exchange, Judge
from ..results.records import Verdict
from .config_model import RunConfig
from .store import JudgeRecord, Store

__all__ = ["OnProgress", "judge_cells", "judged_as", "judges_of"]

OnProgress = Callable[[str, int, int], None]
"""Called with (judge, exchanges done, exchanges in all)."""


def judges_of(config: RunConfig, world: int) -> list[Judge]:
    """The judges of a config for models of a sandbox world, built but not loaded."""
    from ..tasks.verdicts import build_judges

    return build_judges(config.judges, world)


def judged_as(run: str, world: int) -> str:
    """Under what the store keeps the judges of a run: each sandbox world has a guard of its own."""
    return f"{run}:{world}" if world else run


def judge_cells(judges: Sequence[Judge], cells: Sequence[str], run: str, store: Store, on_progress: OnProgress) -> None:
    """Judges the samples of the cells. What the store knows is not judged again; what comes is stored in chunks."""
    from ..tasks.verdicts import judge_each

    exchanges = list(dict.fromkeys(Exchange(s.prompt, s.response) for cell in cells for s in store.samples(cell)))
    records = [JudgeRecord(judge.name, judge.decides, judge.identity) for judge in judges]
    for judge, record in zip(judges, records, strict=True):
        known = store.verdicts(record.identity, exchanges)
        missing = [exchange for exchange in exchanges if exchange not in known]
        on_progress(judge.name, len(known), len(exchanges))
        if missing:
            try:
                judge_each(
                    judge, missing, _keep(store, record.identity), _tell(on_progress, len(known), len(exchanges))
                )
            finally:
                judge.close()
    store.set_judges(run, records)


def _keep(store: Store, identity: str) -> Callable[[Judge, Sequence[Exchange], Sequence[Verdict]], None]:
    return lambda judge, exchanges, verdicts: store.add_verdicts(identity, exchanges, verdicts)


def _tell(on_progress: OnProgress, known: int, total: int) -> Callable[[Judge, int], None]:
    return lambda judge, finished: on_progress(judge.name, known + finished, total)
