"""Two methods of one run, or of two, on the same prompts: what may be compared, and what each answered."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...registry import suggest
from ...results.comparison import Paired, paired
from ...results.judged import FACETS
from ...results.method_result import ROLES, MethodResult, Sample
from ...results.outcomes import PER_PROMPT
from ..plan import Cell, Plan
from ..store.store import Store
from .folder import PLAN, load_plan, name_of, read_store
from .judge import judged_as
from .replicas import check_against_manifest, preset_of
from .report import judged_samples
from .worlds import world_in

__all__ = ["Compared", "Flip", "compare", "sides_of"]

MEASURES = {role: name for name, (role, _) in reversed(list(PER_PROMPT.items()))}
"""Role of a task -> what is counted of its responses: the first of `PER_PROMPT` that has the role."""
DECISIVE = {"definition": "the task's YAML", "max_gen_toks": "max_gen_toks"}
"""Of a cell's parts, those that make its answers answers to something else; prompts and model are compared as such."""
HARMLESS = {"engine": "engine", "dtype": "dtype", "code": "code or package versions"}
"""Those that only move a response now and then, by rounding."""


class Side(NamedTuple):
    """A method of a run."""

    folder: Path
    method: str

    def __str__(self) -> str:
        return f"{self.folder}:{self.method}"


class Flip(NamedTuple):
    """A prompt on which exactly one of the two methods counts, or may."""

    model: str
    seed: int
    doc_id: int
    prompt: str
    a: str
    """Its outcome; of lm-eval's samples perhaps a score."""
    b: str
    response_a: str
    response_b: str
    counts: str
    """"a" or "b": the method whose response counts; "?" where an unparsed verdict leaves it open."""


@dataclass(frozen=True)
class Compared:
    """Two methods on one task."""

    task: str
    measure: str
    """Column of the leaderboard whose responses are counted."""
    models: tuple[str, ...]
    """Worlds of one preset, or one model."""
    found: Paired
    flips: tuple[Flip, ...]
    cautions: tuple[str, ...]
    """What differs between the two without making them incomparable."""


@dataclass(frozen=True)
class _Answers:
    """What one row answered to one task."""

    cell: Cell
    parts: Mapping[str, Any]
    texts: Mapping[int, tuple[str, str]]
    """Document -> prompt and response."""
    outcomes: Mapping[int, Sample]
    judges: Mapping[str, str] = field(default_factory=dict)
    """Facet -> identity of the judge that decides it."""


def sides_of(given: Sequence[str | Path]) -> tuple[Side, Side]:
    """Reads `DIR A B`, or `DIR_A:A DIR_B:B`.

    Raises:
        InputError: it is of neither form, or some DIR is no run folder.
    """
    if len(given) == 3:
        folder = Path(given[0])
        return Side(folder, str(given[1])), Side(folder, str(given[2]))
    if len(given) == 2:
        return _side(str(given[0])), _side(str(given[1]))
    raise InputError(
        f"{len(given)} arguments were given. Give a run folder and two methods (runs/x lora curvature), or two methods "
        "with their folders (runs/x:lora runs/y:lora)."
    )


def _side(text: str) -> Side:
    """Folders and labels may both hold colons; the folder is what holds a run."""
    places = [place for place, letter in enumerate(text) if letter == ":"]
    found = [Side(Path(text[:place]), text[place + 1 :]) for place in places if (Path(text[:place]) / PLAN).is_file()]
    if not found:
        raise InputError(f"'{text}' is not RUN_FOLDER:METHOD with the folder of a run, for example runs/sandbox:lora.")
    return found[0]


def compare(*given: str | Path, task: str | None = None, store: Path | None = None) -> list[Compared]:
    """Compares two methods by prompt: `("runs/x", "lora", "npo")` of one run, `("runs/x:lora", "runs/y:lora")` of two.

    Args:
        given: as in `sides_of`.
        task: one of the run's judged tasks; None for all that both have.
        store: folder of a store shared with other runs.

    Returns:
        For each task one comparison over worlds of one preset, or one for each model.

    Raises:
        InputError: there is no such method or task, a row is not finished, or the two are not comparable, with what
            differs.
    """
    sides = sides_of(given)
    with ExitStack() as stack:
        opened = {
            folder: (load_plan(folder), stack.enter_context(closing(read_store(folder, store))))
            for folder in dict.fromkeys(side.folder for side in sides)
        }
        own = [opened[side.folder] for side in sides]
        tasks = [_tasks(plan, side, task) for side, (plan, _) in zip(sides, own, strict=True)]
        shared = [name for name in tasks[0] if name in tasks[1]]
        if not shared:
            raise InputError(f"{sides[0]} and {sides[1]} share no judged task.")
        found: list[Compared] = []
        for name in shared:
            rows = [_rows(side, *each, name) for side, each in zip(sides, own, strict=True)]
            found += _compared(name, sides, *_matched(sides, *rows))
    return found


def _tasks(plan: Plan, side: Side, task: str | None) -> list[str]:
    labels = list(dict.fromkeys(row.label for row in plan.rows))
    if side.method not in labels:
        raise InputError(f"The run in {side.folder} has no method '{side.method}'. {suggest(side.method, labels)}")
    names = list(dict.fromkeys(cell.task for cell in plan.cells if cell.role in ROLES))
    if task is not None and task not in names:
        raise InputError(f"The run in {side.folder} has no judged task '{task}'. {suggest(task, names)}")
    return [task] if task else names


def _rows(side: Side, plan: Plan, store: Store, task: str) -> dict[tuple[str, int], _Answers]:
    """(model, seed) -> what the method answered."""
    assigned = store.assignments(plan.digest)
    cells = [cell for cell in plan.cells if cell.label == side.method and cell.task == task]
    found = {}
    for cell in cells:
        key, status = assigned.get(name_of(cell), (None, "not finished"))
        if key is None:
            raise InputError(f"{side.folder}: {name_of(cell)} has no answers ({status}). Run `safebasin run` again.")
        found[cell.model, cell.seed] = _answers(side, plan, store, cell, key)
    results = [
        MethodResult(
            model=each.cell.model, method=each.cell.label, stage=each.cell.stage, seed=each.cell.seed,
            model_digest=str(each.parts.get("model", "")),
        ) for each in found.values()
    ]  # fmt: skip
    check_against_manifest(side.folder, results)
    return found


def _answers(side: Side, plan: Plan, store: Store, cell: Cell, key: str) -> _Answers:
    judges = store.judges(judged_as(plan.digest, world_in(side.folder, cell.model)))
    decides: dict[str, str] = {}
    for judge in judges:
        for facet in judge.decides:
            decides.setdefault(facet, judge.identity)
    texts = {sample.doc_id: (sample.prompt, sample.response) for sample in store.samples(key)}
    outcomes = {sample.doc_id: sample for sample in judged_samples(store, key, judges)}
    return _Answers(cell, store.cell_parts(key), texts, outcomes, decides)


Rows = Mapping[tuple[str, int], _Answers]


def _matched(sides: tuple[Side, Side], a: Rows, b: Rows) -> tuple[Rows, Rows]:
    """Both sides by the same models and seeds; the base's only row in a model stands for all its seeds."""
    a, b = _spread(a, b), _spread(b, a)
    for side, own, others in ((sides[0], a, b), (sides[1], b, a)):
        if missing := [f"{model}, seed {seed}" for model, seed in others if (model, seed) not in own]:
            raise InputError(
                f"{side} has no row for {'; '.join(missing[:3])}, which the other has. Compare runs with the same "
                "models and seeds."
            )
    return a, {key: b[key] for key in a}


def _spread(rows: Rows, others: Rows) -> Rows:
    bases = {each.cell.model: each for each in rows.values() if each.cell.stage == "base"}
    if not bases or any(each.cell.stage == "base" for each in others.values()):
        return rows
    return {key: bases[key[0]] for key in others if key[0] in bases}


def _compared(task: str, sides: tuple[Side, Side], a: Rows, b: Rows) -> Iterator[Compared]:
    role = next(iter(a.values())).cell.role
    measure = MEASURES[role]
    for key, own in a.items():
        if differ := list(_differences(own, b[key], FACETS[role])):
            raise InputError(
                f"{sides[0]} and {sides[1]} cannot be compared on {task} ({key[0]}, seed {key[1]}): they differ in "
                f"{'; '.join(differ)}."
            )
    models = list(dict.fromkeys(model for model, _ in a))
    for group in [models] if preset_of(models) else [[model] for model in models]:
        keys = [key for key in a if key[0] in group]
        pairs = {key: (_counts(measure, a[key]), _counts(measure, b[key])) for key in keys}
        flips = [flip for key in keys for flip in _flips(measure, a[key], b[key], key[1])]
        cautions = dict.fromkeys(text for key in keys for text in _cautions(a[key], b[key]))
        yield Compared(task, measure, tuple(group), paired(pairs), tuple(flips), tuple(cautions))


def _differences(a: _Answers, b: _Answers, facet: str) -> Iterator[str]:
    """What makes two rows incomparable, in words."""
    models = [str(each.parts.get("model", "")) for each in (a, b)]
    if models[0] != models[1]:
        yield (
            f"the model or world (digest {models[0][:12]} | {models[1][:12]}: other weights, tokenizer or chat "
            "template, or a world trained on another kind of machine)"
        )
    if a.judges.get(facet) != b.judges.get(facet):
        yield f"the judge of {facet} ({a.judges.get(facet)} | {b.judges.get(facet)})"
    for part, words in DECISIVE.items():
        if a.parts.get(part) != b.parts.get(part):
            yield f"{words} ({a.parts.get(part)} | {b.parts.get(part)})"
    prompts = [{number: prompt for number, (prompt, _) in each.texts.items()} for each in (a, b)]
    if other := sorted(dict(prompts[0].items() ^ prompts[1].items())):
        yield f"the prompts ({len(other)} documents, the first is {other[0]})"


def _cautions(a: _Answers, b: _Answers) -> Iterator[str]:
    for part, words in HARMLESS.items():
        if a.parts.get(part) != b.parts.get(part):
            yield f"{words}: {a.parts.get(part)} | {b.parts.get(part)}, which by itself flips some responses"


def _counts(measure: str, answers: _Answers) -> list[bool | None]:
    _, counts = PER_PROMPT[measure]
    return [counts(answers.outcomes[number]) for number in sorted(answers.outcomes)]


def _flips(measure: str, a: _Answers, b: _Answers, seed: int) -> Iterator[Flip]:
    numbers = sorted(a.outcomes)
    for number, x, y in zip(numbers, _counts(measure, a), _counts(measure, b), strict=True):
        if x is not y:
            (prompt, one), (_, other) = a.texts[number], b.texts[number]
            counts = "?" if x is None or y is None else "a" if x else "b"
            outcomes = a.outcomes[number].outcome, b.outcomes[number].outcome
            yield Flip(a.cell.model, seed, number, prompt, *outcomes, one, other, counts)
