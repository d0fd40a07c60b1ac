"""What the numbers of prompts, seeds and worlds of a config can show, for `safebasin validate`."""

from collections.abc import Iterator
from pathlib import Path

from ...results.method_result import ROLES
from ...results.power import fewest_flips, smallest_difference
from ...results.statistics import rate
from ...tasks.catalog import TaskInfo, tasks
from ...tasks.splits import committed
from ..config.model import RunConfig
from ..stages.leaks import prompts_of
from ..stages.replicas import preset_of

__all__ = ["precision"]

SANDBOX = "safebasin.tasks.sandbox."


def precision(config: RunConfig) -> Iterator[str]:
    """One line for each judged task, and one for replicas. Opens no connection.

    Args:
        config: a validated config.
    """
    known = tasks(*map(Path, config.tasks.include))
    for name in config.tasks.safety:
        if known[name].role in ROLES:
            yield f"{name}: {_shows(_count(known[name], config))}"
    worlds = len(config.models) if preset_of([spec.id for spec in config.models]) else 1
    units, what = (worlds, "worlds") if worlds > 1 else (len(config.seeds), "fine-tunings")
    if units < fewest_flips():
        least = min(1, 2 / 2**units)
        yield (
            f"{units} {what if units > 1 else what[:-1]} of each method: enough to compare these models, too few for "
            f"a claim about the next one (no p over them is below {least:.2g}; {fewest_flips()} reach 0.05)."
        )


def _count(task: TaskInfo, config: RunConfig) -> int | None:
    """How many requests the task asks; None where only its data would tell."""
    found = None
    if task.loader.startswith(SANDBOX):
        found = len(prompts_of(task, config))
    elif "advbench_split" in task.metadata:
        found = len(committed("advbench")[task.metadata["advbench_split"]])
    return found if config.limit is None or found is None else min(found, config.limit)


def _shows(n: int | None) -> str:
    if n is None:
        return "as many prompts as its data has, `limit` at most; `safebasin power --n N` says what they show."
    none = f"n = {n}: none of them still allows {rate(0, n).high:.1f} %; shows (80 % power, p < 0.05) "
    return none + ", ".join(
        f"a {word} from {start} % of {_points(n, start, rise)}"
        for word, start, rise in (("rise", 0, True), ("rise", 5, True), ("fall", 50, False))
    )


def _points(n: int, start: int, rise: bool) -> str:
    """In percentage points, from failures that all overlap to those that are unrelated."""
    found = [smallest_difference(n, start / 100, rise, overlap) for overlap in (1.0, 0.0)]
    shown = list(dict.fromkeys("nothing" if each is None else f"{100 * each:.1f}" for each in found))
    return " to ".join(shown)
