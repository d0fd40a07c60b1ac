"""From the logged requests of a VISAGE task to samples that can be judged, each with its place in the sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..store.store import Point, Sample

__all__ = ["swept"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Asked:
    """One request of the sweep with its answer."""

    doc: Mapping[str, Any]
    doc_id: int
    context: str
    direction: int
    alpha: float
    response: str


def swept(rows: Sequence[Row], engine: Any) -> tuple[list[Sample], list[Point]]:
    """The responses at all points, numbered through, and how likely the model itself finds each of them.

    Args:
        rows: what lm-eval logged, one per prompt.
        engine: the engine that answered; it scores the responses with the model's own, merged weights.

    Returns:
        Samples and their points, in the same order.
    """
    from ...restore.models.thinking import thinking_of
    from ...tasks.judging import exchange_of

    asked = [one for row in rows for one in _requests(row)]
    if (thinking := thinking_of(engine.tokenizer)) is not None:
        asked = [replace(one, context=thinking.closed(one.context)) for one in asked]
    likelihoods = _likelihoods(asked, engine)
    samples, points = [], []
    for number, (one, (logprob, tokens)) in enumerate(zip(asked, likelihoods, strict=True)):
        samples.append(Sample(number, *exchange_of(one.doc, one.response)))
        points.append(Point(number, one.doc_id, one.direction, one.alpha, logprob, tokens))
    return samples, points


def _requests(row: Row) -> list[_Asked]:
    from ...tasks.perturbation import Perturbation

    at = [Perturbation.parse(text) for text in row["doc"]["sweep"]]
    return [
        _Asked(row["doc"], int(row["doc_id"]), arguments[0], point.direction, point.alpha, given[0])
        for point, arguments, given in zip(at, row["arguments"], row["resps"], strict=True)
    ]


def _likelihoods(asked: Sequence[_Asked], engine: Any) -> list[tuple[float, int]]:
    """(log-probability in nats, tokens) of each response under the model that was not moved; (0, 0) of an empty one.

    As in `tasks.loss`, what the template puts between context and response is scored alone and taken off.
    """
    from lm_eval.api.instance import Instance

    from ...tasks.loss import scored_tokens
    from ...tasks.perturbation import KEY, Perturbation

    distinct = {(one.context, one.response) for one in asked}
    found_tokens = {pair: scored_tokens(engine.tokenizer, *pair) for pair in distinct}
    counted = [found_tokens[one.context, one.response] for one in asked]
    pairs = {(one.context, one.response) for one, (tokens, _) in zip(asked, counted, strict=True) if tokens}
    pairs |= {(one.context, "") for one, (tokens, apart) in zip(asked, counted, strict=True) if tokens and apart}
    wanted = sorted(pairs)
    here = {KEY: Perturbation(0, 0.0).text}
    answers = engine.loglikelihood([Instance("loglikelihood", {}, (*pair, here), 0) for pair in wanted])
    found = {pair: logprob for pair, (logprob, _) in zip(wanted, answers, strict=True)}
    return [
        (found[one.context, one.response] - (found[one.context, ""] if apart else 0.0), tokens) if tokens else (0.0, 0)
        for one, (tokens, apart) in zip(asked, counted, strict=True)
    ]
