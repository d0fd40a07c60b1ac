"""How far a whole run is: the rate of each stage, and the time that all of it still takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Stage", "Whole", "told"]


def told(seconds: float) -> str:
    """A span of time for readers: 40 s, 3 min 5 s, 2 h 10 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@dataclass
class Stage:
    """One stage of a run."""

    name: str
    """What it does: `build`, `answer`, `judge`."""
    total: int
    """Units of work: checkpoints, cells, judges."""
    unit: str
    items: str
    """What is counted of a unit by the second: responses, verdicts; empty where units are."""
    guess: float | None
    """Seconds that it was thought to take; how stages compare is what counts. None: nobody knows."""
    done: float = 0.0
    """Units that are done."""
    found: float = 0.0
    """Of these, what was done before and took no time."""
    spent: float = 0.0
    """Seconds."""
    _pieces: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Piece under way -> units of it that are done, and that were found."""
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Piece -> items done when it was first heard of, and now."""
    _most: int = 0

    @property
    def made(self) -> float:
        """Units that took time."""
        return max(0.0, self.reached - self.found - sum(found for _, found in self._pieces.values()))

    @property
    def reached(self) -> float:
        """Units done, pieces under way included."""
        return min(float(self.total), self.done + sum(done for done, _ in self._pieces.values()))

    def hear(self, piece: str, done: int, total: int, units: float) -> None:
        """Hears how many items of a piece are done; its total may still grow to what the largest had."""
        first = self._seen.get(piece, (done, done))[0]
        self._seen[piece] = (first, done)
        self._most = max(self._most, total)
        share = units / max(self._most, 1)
        self._pieces[piece] = (done * share, first * share)

    def settle(self, units: float, found: float = 0.0) -> None:
        """All that is under way is done, and comes to so many units in all, of which some were found."""
        self._pieces.clear()
        self.done, self.found = self.done + units, self.found + found

    @property
    def rate(self) -> str:
        """Items by the second, or seconds for a unit."""
        items = sum(now - first for first, now in self._seen.values())
        if self.items and items and self.spent:
            return f"{items / self.spent:,.1f} {self.items}/s"
        return f"{told(self.spent / self.made)} each" if self.made >= 1 and self.spent and not self.items else ""


class Whole:
    """All stages of a run, one after the other.

    Time left: a stage under way goes on at its pace; of those to come the guesses, scaled by how long the work so far
    took against its own guesses.

    Args:
        stages: in order.
        clock: in seconds.
    """

    def __init__(self, stages: Sequence[Stage], clock: Callable[[], float]) -> None:
        self.stages, self._clock = [stage for stage in stages if stage.total], clock
        self._now: Stage | None = None
        self._began = 0.0
        self._mark = (0.0, 0.0)
        """Units made of the stage under way, and seconds spent on them, when one was finished last."""

    def begin(self, name: str) -> Stage:
        """Ends the stage under way, and begins another; one without work is begun too, and shows nothing."""
        self.end()
        found = next((stage for stage in self.stages if stage.name == name), None) or Stage(name, 0, "", "", None)
        self._now, self._began, self._mark = found, self._clock() - found.spent, (0.0, 0.0)
        return found

    def end(self) -> None:
        """Ends the stage under way: all of it is done."""
        if self._now is not None:
            self.tick()
            self._now.settle(self._now.total - self._now.done)
        self._now = None

    def tick(self) -> None:
        """Looks at the clock, as a unit ends."""
        if self._now is not None:
            self._now.spent = self._clock() - self._began
            if self._now.made != self._mark[0]:
                self._mark = (self._now.made, self._now.spent)

    def _of_stage(self, stage: Stage, rest: float) -> float:
        """Seconds that the rest of a stage takes at its pace; a unit under way has had its time since the last one."""
        if stage is not self._now:
            return stage.spent / stage.made * rest
        made, spent = self._mark
        each = spent / made
        return max(each * rest - (stage.spent - spent), each * (rest - 1), 0.0)

    @property
    def left(self) -> tuple[float | None, list[str]]:
        """Seconds until the end, None before anything is made; and the stages of which nothing can be told."""
        self.tick()
        guessed = sum(s.guess * s.made / s.total for s in self.stages if s.guess and s.made)
        spent = sum(self._mark[1] if s is self._now else s.spent for s in self.stages if s.guess and s.made)
        seconds, dark = 0.0, []
        for stage in self.stages:
            rest = stage.total - stage.reached
            if rest <= 0:
                continue
            if stage.made:
                seconds += self._of_stage(stage, rest)
            elif stage.guess is not None and guessed:
                seconds += stage.guess * rest / stage.total * spent / guessed
            else:
                dark.append(stage.name)
        return (None if len(dark) == len([s for s in self.stages if s.reached < s.total]) and dark else seconds), dark

    @property
    def line(self) -> str:
        """All stages, the rate of that under way, and the time left."""
        seconds, dark = self.left
        parts = [f"{s.name} {int(s.reached + 1e-9)} of {s.total} {s.unit}{self._rate(s)}" for s in self.stages]
        return f"whole run: {', '.join(parts)}; {_ending(seconds, dark)}"

    @property
    def short(self) -> str:
        """The same for a narrow place."""
        seconds, dark = self.left
        rate = self._now.rate if self._now else ""
        return ", ".join(["whole run", *([rate] if rate else []), _ending(seconds, dark)])

    def _rate(self, stage: Stage) -> str:
        return f" ({stage.rate})" if stage is self._now and stage.rate else ""

    @property
    def percent(self) -> int:
        """Of the time in all, as far as it can be told."""
        seconds, _ = self.left
        spent = sum(stage.spent for stage in self.stages)
        return 0 if seconds is None or not spent else min(100, int(100 * spent / (spent + seconds)))


def _ending(seconds: float | None, dark: Sequence[str]) -> str:
    if seconds is None:
        return "time left not known yet"
    more = f", and what {' and '.join(dark)} takes" if dark else ""
    return f"about {told(seconds)} left{more}" if seconds or dark else "done"
