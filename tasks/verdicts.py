"""From the judges named in a config to the verdicts on responses: one code for lm-eval's filter and for the harness."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .. import registry
from ..errors import InputError
from ..judges.base import Exchange, Judge, RemoteJudge
from ..restore.models.thinking import split_thinking
from ..results.records import Outcome, Verdict, combine
from .sandbox.location import in_world, is_sandbox, model_folder

__all__ = [
    "JudgeSpec",
    "OnDone",
    "OnProgress",
    "build_judges",
    "chunk_of",
    "close_judges",
    "judge_all",
    "judge_chunk",
    "judge_each",
    "judge_types",
    "unfinished",
]

JudgeSpec = str | Mapping[str, Mapping[str, Any] | None]
"""`coherence`, or `{llama_guard: {model: ...}}`: a name with the judge's keyword arguments."""
OnDone = Callable[[Judge, Sequence[Exchange], Sequence[Verdict]], None]
"""Called with a judge, some of the exchanges and its verdicts on them, as soon as these exist."""
OnProgress = Callable[[Judge, int], None]
"""Called with a judge and how many distinct exchanges it has finished so far; for a progress bar."""

CHUNK = 256
"""Exchanges handed to a judge in one call: large enough for it to batch by length, small enough to lose little."""

_JUDGES: dict[str, Judge] = {}
_VERDICTS: dict[tuple[str, Exchange], Verdict] = {}


def judge_types(specs: Sequence[JudgeSpec], whole: bool = True) -> list[tuple[type[Judge], dict[str, Any]]]:
    """Looks up each judge and checks its arguments' names; builds and loads nothing.

    Args:
        specs: the judges.
        whole: whether they are all judges of a run, so that one must decide harm.

    Raises:
        InputError: all that is wrong with the list, one line per fault.
    """
    found: list[tuple[type[Judge], dict[str, Any]]] = []
    faults: list[str] = []
    for spec in specs:
        try:
            found.append(_judge_type(spec))
        except InputError as error:
            faults.append(str(error))
    if whole and not faults and not any("harm" in judge.decides for judge, _ in found):
        faults.append(f"No judge in {list(specs)} decides harm. Put one that does first, for example llama_guard.")
    _raise(faults)
    return found


def build_judges(specs: Sequence[JudgeSpec], world: int = 0, whole: bool = True) -> list[Judge]:
    """The judges of `specs`, in order. The same spec gives the same judge again, so no model is loaded twice.

    A `model` of "sandbox/..." stands for that of the given sandbox world, "sandbox:3/..." for world 3's.

    Args:
        specs: the judges.
        world: seed of the sandbox world.
        whole: as in `judge_types`.

    Raises:
        InputError: all that is wrong with the list, one line per fault.
    """
    judges: list[Judge] = []
    faults: list[str] = []
    for judge_type, arguments in judge_types(specs, whole):
        try:
            judges.append(_build(judge_type, arguments, world))
        except InputError as error:
            faults.append(f"Judge '{judge_type.name}': {error}")
    _raise(faults)
    return judges


def close_judges() -> None:
    """Frees what the judges built so far hold in memory. They load again when used again."""
    for judge in _JUDGES.values():
        judge.close()


def judge_all(
    judges: Sequence[Judge],
    exchanges: Sequence[Exchange],
    on_done: OnDone | None = None,
    on_progress: OnProgress | None = None,
) -> list[tuple[Outcome, Verdict]]:
    """The outcome and the merged verdict of each exchange, in order. Each judge makes one pass over all of them.

    Raises:
        ValueError: no judge decides harm, or a judge returned another number of verdicts than it was given exchanges.
    """
    columns = [(judge.decides, judge_each(judge, exchanges, on_done, on_progress)) for judge in judges]
    return [combine([(decides, verdicts[i]) for decides, verdicts in columns]) for i in range(len(exchanges))]


def judge_each(
    judge: Judge,
    exchanges: Sequence[Exchange],
    on_done: OnDone | None = None,
    on_progress: OnProgress | None = None,
) -> list[Verdict]:
    """One judge's verdict on each exchange, in order; what this process has judged before is not judged again.

    `on_done` sees every distinct exchange exactly once: first, together, those already known.
    """
    identity = judge.identity
    distinct = list(dict.fromkeys(exchanges))
    _VERDICTS.update(((identity, exchange), verdict) for exchange, verdict in unfinished(distinct).items())
    missing = [exchange for exchange in distinct if (identity, exchange) not in _VERDICTS]
    known = [exchange for exchange in distinct if (identity, exchange) in _VERDICTS]
    if known and on_done:
        on_done(judge, known, [_VERDICTS[identity, exchange] for exchange in known])
    size = chunk_of(judge)
    for start in range(0, len(missing), size):
        chunk = missing[start : start + size]
        before = len(known) + start
        verdicts = judge_chunk(judge, chunk, before, on_progress)
        _VERDICTS.update(((identity, exchange), verdict) for exchange, verdict in zip(chunk, verdicts, strict=True))
        if on_done:
            on_done(judge, chunk, verdicts)
    return [_VERDICTS[identity, exchange] for exchange in exchanges]


def judge_chunk(
    judge: Judge, chunk: Sequence[Exchange], before: int = 0, on_progress: OnProgress | None = None
) -> list[Verdict]:
    """A judge's verdicts on some exchanges, of which it is asked at once.

    Args:
        judge: who judges.
        chunk: the exchanges.
        before: how many it has finished before these, for `on_progress`.
        on_progress: as in `judge_each`.

    Raises:
        ValueError: it returned another number of verdicts.
    """
    verdicts = judge.judge(chunk, partial(_tell, on_progress, judge, before) if on_progress else None)
    if len(verdicts) != len(chunk):
        raise ValueError(f"judge '{judge.name}' returned {len(verdicts)} verdicts for {len(chunk)} exchanges")
    return verdicts


def unfinished(exchanges: Sequence[Exchange]) -> dict[Exchange, Verdict]:
    """The exchanges whose response is thinking that did not end, with the verdict that they have without any judge."""
    return {each: Verdict(unfinished=True) for each in exchanges if split_thinking(each.response)[1] is None}


def chunk_of(judge: Judge) -> int:
    """Exchanges handed to a judge in one call."""
    return judge.chunk if isinstance(judge, RemoteJudge) else CHUNK


def _tell(on_progress: OnProgress, judge: Judge, before: int, finished: int) -> None:
    on_progress(judge, before + finished)


def _judge_type(spec: JudgeSpec) -> tuple[type[Judge], dict[str, Any]]:
    if isinstance(spec, str):
        spec = {spec: None}
    if not isinstance(spec, Mapping) or len(spec) != 1:
        raise InputError(f"A judge is a name or one {{name: {{argument: value}}}}; got {spec!r}.")
    name, arguments = next(iter(spec.items()))
    if arguments is not None and not isinstance(arguments, Mapping):
        raise InputError(f"The arguments of judge '{name}' must be {{argument: value}}; got {arguments!r}.")
    judge_type: type[Judge] = registry.load("judges", str(name))
    given = {str(key): value for key, value in (arguments or {}).items()}
    signature = inspect.signature(judge_type)
    for key in given:
        if key not in signature.parameters:
            raise InputError(f"Judge '{name}' has no argument '{key}'. {registry.suggest(key, signature.parameters)}")
    try:
        signature.bind(**given)
    except TypeError as error:
        raise InputError(f"Judge '{name}': {error}.") from error
    return judge_type, given


def _build(judge_type: type[Judge], arguments: dict[str, Any], world: int) -> Judge:
    model = arguments.get("model")
    if isinstance(model, str) and is_sandbox(model):
        arguments = arguments | {"model": str(model_folder(in_world(model, world)))}
    key = f"{judge_type.__module__}.{judge_type.__qualname__} {json.dumps(arguments, sort_keys=True, default=str)}"
    if key not in _JUDGES:
        _JUDGES[key] = judge_type(**arguments)
    return _JUDGES[key]


def _raise(faults: list[str]) -> None:
    if faults:
        raise InputError("\n".join(faults))
