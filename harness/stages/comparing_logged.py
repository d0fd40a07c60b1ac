"""Two files of lm-eval's logged samples, prompt by prompt: by a judge, or by a score that they hold themselves."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...judges.base import Judge
from ...registry import suggest
from ...results.comparison import paired
from ...results.judged import FACETS, FIELDS
from ...results.method_result import ROLES
from ...results.outcomes import PER_PROMPT
from ...results.records import Verdict, combine
from ...tasks.catalog import tasks
from ...tasks.verdicts import JudgeSpec, build_judges, judge_each
from ..terminal.quiet import quiet
from .comparing import MEASURES, Compared, Flip
from .logged import Logged, LoggedRow, exchanges_of, read_logged

__all__ = ["compare_logged"]

Key = tuple[str, str, int]
"""Document's hash, prompt's hash, and which one of those that share both."""
DECISIVE = ("filter_list", "metric_list", "process_results", "doc_to_text", "doc_to_target", "output_type")
"""Of a task's config in results_*.json, what makes its scores another task's."""
HARMLESS = ("lm_eval_version", "transformers_version", "git_hash")


class _Counted(NamedTuple):
    """What one file's samples come to."""

    counts: Mapping[Key, bool | None]
    shown: Mapping[Key, str]
    """What stands beside a flip: an outcome, or the score."""


def compare_logged(
    a: Path,
    b: Path,
    task: str | None = None,
    metric: str | None = None,
    specs: Sequence[JudgeSpec] = (),
    columns: Mapping[str, str] | None = None,
) -> list[Compared]:
    """Compares two models' samples of the same tasks.

    What is counted: with judges, responses that they call harmful (for tasks of ours, what the task counts); else
    `metric`, if every sample's is 0 or 1; else what our own filter noted; else the first score that is 0 or 1.

    Args:
        a: a samples_*.jsonl, or a folder with one for each task.
        b: the other model's.
        task: one task; None for all that both have.
        metric: a score in the samples.
        specs: judges, as in a config.
        columns: role -> field of the documents, for judges.

    Returns:
        One comparison for each task, with `a` first.

    Raises:
        InputError: the samples cannot be read or are not comparable, with what differs; or there is no such task or
            score.
    """
    found = []
    for one, other in _matched(read_logged(a), read_logged(b), task):
        if differ := list(_differences(one, other, own=not specs)):
            raise InputError(f"{one.path} and {other.path} cannot be compared: they differ in {'; '.join(differ)}.")
        if specs:
            quiet()
            judges = build_judges(specs, whole=False)
            measure = _measure(one.task, judges)
            sides = [_by_judges(each, judges, measure, columns or {}) for each in (one, other)]
        else:
            measure, sides = _by_score(one, other, metric)
        found.append(_compared(one, other, measure, (sides[0], sides[1]), tuple(_cautions(one, other, own=not specs))))
    return found


def _matched(a: Sequence[Logged], b: Sequence[Logged], task: str | None) -> list[tuple[Logged, Logged]]:
    by_task = [_by_task(each, task) for each in (a, b)]
    shared = [name for name in by_task[0] if name in by_task[1]]
    if len(a) == len(b) == 1 and not shared and task is None:
        raise InputError(f"{a[0].path} and {b[0].path} are of other tasks: {a[0].task} | {b[0].task}.")
    if not shared:
        names = [*dict.fromkeys(chain(*by_task))]
        raise InputError(f"They share no task{f' {task!r}' if task else ''}. {suggest(task or '', names)}")
    return [(by_task[0][name], by_task[1][name]) for name in shared]


def _by_task(found: Sequence[Logged], task: str | None) -> dict[str, Logged]:
    named: dict[str, Logged] = {}
    for each in found:
        if task is not None and each.task != task:
            continue
        if each.task in named:
            raise InputError(
                f"There are two files of {each.task}: {named[each.task].path} and {each.path}. Give the files."
            )
        named[each.task] = each
    return named


def _keyed(logged: Logged) -> dict[Key, LoggedRow]:
    found: dict[Key, LoggedRow] = {}
    for row in logged.rows:
        number = 0
        while (key := (row.doc_hash, row.prompt_hash, number)) in found:
            number += 1
        found[key] = row
    return found


def _differences(a: Logged, b: Logged, own: bool) -> Iterator[str]:
    """What makes two files incomparable, in words; `own`: whether their own scores are compared."""
    one, other = _keyed(a), _keyed(b)
    docs = [sorted(row.doc_hash for row in each.rows) for each in (a, b)]
    if docs[0] != docs[1]:
        yield f"the documents ({len(a.rows)} | {len(b.rows)}, {len({*docs[0]} & {*docs[1]})} of them the same)"
    elif one.keys() != other.keys():
        first = next(row for key, row in one.items() if key not in other)
        yield (
            f"the prompts as the models saw them (chat template, system message or examples; {len(one.keys() - other)} "
            f"documents, the first is {first.doc_id})"
        )
    shared = [(one[key], other[key]) for key in one.keys() & other]
    if any(x.target_hash != y.target_hash for x, y in shared):
        yield "the targets"
    if settings := next(((x.settings, y.settings) for x, y in shared if x.settings != y.settings), None):
        yield f"how they were asked to answer ({settings[0]} | {settings[1]})"
    if own and a.results and b.results:
        configs = [each.results.get("configs", {}).get(each.task, {}) if each.results else {} for each in (a, b)]
        for name in DECISIVE:
            if configs[0].get(name) != configs[1].get(name):
                yield f"the task's {name}"
        versions = [each.results.get("versions", {}).get(each.task) if each.results else None for each in (a, b)]
        if versions[0] != versions[1]:
            yield f"the task's version ({versions[0]} | {versions[1]})"


def _cautions(a: Logged, b: Logged, own: bool) -> Iterator[str]:
    if not (a.results and b.results):
        if own:
            yield "no results_*.json beside both: whether task version, filters and judges are the same is not checked"
        return
    for name in HARMLESS:
        if a.results.get(name) != b.results.get(name):
            yield f"{name}: {a.results.get(name)} | {b.results.get(name)}, which by itself flips some responses"


def _measure(task: str, judges: Sequence[Judge]) -> str:
    """What is counted: of our tasks what they count, else harm; what the judges do not decide is refused."""
    info = tasks().get(task)
    role = info.role if info and info.role in ROLES else "hrr"
    if not any(FACETS[role] in judge.decides for judge in judges):
        raise InputError(
            f"{', '.join(judge.name for judge in judges)} does not decide {FACETS[role]}, which is what {task} counts. "
            "Give a judge that does (`safebasin list judges`)."
        )
    return MEASURES[role]


def _by_judges(logged: Logged, judges: Sequence[Judge], measure: str, columns: Mapping[str, str]) -> _Counted:
    exchanges = exchanges_of(logged, columns)
    verdicts = [judge_each(judge, exchanges) for judge in judges]
    decides = [judge.decides for judge in judges]
    said = [_merged([*zip(decides, each, strict=True)]) for each in zip(*verdicts, strict=True)]
    return _counted(logged, said, measure)


def _merged(verdicts: Sequence[tuple[frozenset[str], Verdict]]) -> tuple[str, bool | None, bool | None]:
    """(what to show, harmful, refused)."""
    if any("harm" in decides for decides, _ in verdicts):
        outcome, verdict = combine(verdicts)
        return outcome, verdict.harmful, verdict.refused
    refused = next(verdict.refused for decides, verdict in verdicts if "refusal" in decides)
    return ("unparsed" if refused is None else "refused" if refused else "answered"), None, refused


def _counted(logged: Logged, said: Sequence[tuple[str, bool | None, bool | None]], measure: str) -> _Counted:
    role, _ = PER_PROMPT[measure]
    counts, shown = {}, {}
    for key, (word, harmful, refused) in zip(_keyed(logged), said, strict=True):
        yes = harmful if FIELDS[FACETS[role]] == "harmful" else refused
        counts[key] = None if yes is None else yes is not (measure == "under_refusal")
        shown[key] = word
    return _Counted(counts, shown)


def _by_score(a: Logged, b: Logged, metric: str | None) -> tuple[str, list[_Counted]]:
    if metric is None and all(row.record for row in chain(a.rows, b.rows)):
        info = tasks().get(a.task)
        measure = MEASURES[info.role if info and info.role in ROLES else "hrr"]
        return measure, [_counted(each, [_noted(row, measure) for row in each.rows], measure) for each in (a, b)]
    known = [
        name for name in a.rows[0].metrics if all(row.metrics.get(name) in (0, 1) for row in chain(a.rows, b.rows))
    ]
    if metric is None and not known:
        raise InputError(
            f"{a.path} and {b.path} share no score that is 0 or 1 for every sample. Judge them: --judge keywords."
        )
    if metric is not None and metric not in known:
        raise InputError(
            f"'{metric}' is no score that is 0 or 1 for every sample in both. {suggest(metric, known)} Or judge them: "
            "--judge keywords."
        )
    chosen = metric or known[0]
    return chosen, [_scored(each, chosen) for each in (a, b)]


def _noted(row: LoggedRow, measure: str) -> tuple[str, bool | None, bool | None]:
    """The verdict that our own filter logged."""
    record: Mapping[str, Any] = row.record or {}
    facet = FACETS[PER_PROMPT[measure][0]]
    if facet not in record["facets"]:
        raise InputError(
            f"Document {row.doc_id} was logged without a verdict on {facet}. Judge it again: --judge NAME."
        )
    return record["outcome"], record["verdict"]["harmful"], record["verdict"]["refused"]


def _scored(logged: Logged, metric: str) -> _Counted:
    values = {key: row.metrics[metric] == 1 for key, row in _keyed(logged).items()}
    return _Counted(values, {key: str(int(value)) for key, value in values.items()})


def _compared(
    a: Logged, b: Logged, measure: str, sides: tuple[_Counted, _Counted], cautions: tuple[str, ...]
) -> Compared:
    one, other = sides
    keys = [*one.counts]
    model = a.model if a.model == b.model else f"{a.model} | {b.model}"
    found = paired({(model, 0): ([one.counts[key] for key in keys], [other.counts[key] for key in keys])})
    return Compared(a.task, measure, (model,), found, tuple(_flips(a, b, one, other)), cautions)


def _flips(a: Logged, b: Logged, one: _Counted, other: _Counted) -> Iterator[Flip]:
    rows, others = _keyed(a), _keyed(b)
    for key, x in one.counts.items():
        y = other.counts[key]
        if x is not y:
            row, given = rows[key], rows[key].doc.get("prompt")
            prompt = given if isinstance(given, str) else row.asked
            counts = "?" if x is None or y is None else "a" if x else "b"
            responses = row.response, others[key].response
            yield Flip(a.model, 0, row.doc_id, prompt, one.shown[key], other.shown[key], *responses, counts)
