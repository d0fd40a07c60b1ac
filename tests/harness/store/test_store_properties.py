"""What holds of every key and every row: other content has another key, and what comes back is what went in."""

import json
from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safebasin.harness.stages.generate import cell_key
from safebasin.harness.store.digests import digest_of
from safebasin.harness.store.health import check_quickly
from safebasin.harness.store.store import Point, Sample, Store
from safebasin.judges.base import Exchange
from safebasin.results.records import Verdict

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""Any text that a file can hold: NUL, controls, what turns lines, combining characters."""
SHARE = st.none() | st.floats(0, 1)
FACET = st.none() | st.booleans()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
PARTS = st.dictionaries(TEXT, VALUES, min_size=1, max_size=5)
VERDICTS = st.builds(
    Verdict,
    *(FACET, FACET, FACET, SHARE, st.lists(TEXT, max_size=2).map(tuple), TEXT, FACET, SHARE, FACET, st.booleans()),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One for all tests and all of their examples."""
    opened = Store(tmp_path_factory.mktemp("store") / "store.sqlite")
    yield opened
    opened.close()


def told_apart(value: Any) -> Hashable:
    """A value with its types: True, 1 and 1.0 are three."""
    if isinstance(value, dict):
        return frozenset((key, told_apart(each)) for key, each in value.items())
    return tuple(map(told_apart, value)) if isinstance(value, list) else repr(value)


@given(VALUES, VALUES)
def test_a_digest_is_the_same_exactly_for_the_same_content(one: Any, two: Any) -> None:
    assert (digest_of(one) == digest_of(two)) == (told_apart(one) == told_apart(two))
    assert digest_of(json.loads(json.dumps(one))) == digest_of(one)


@given(PARTS, st.data())
def test_a_cell_has_another_key_when_one_of_its_parts_is_another(parts: dict[str, Any], data: st.DataObject) -> None:
    order = data.draw(st.permutations([*parts]))
    assert cell_key({name: parts[name] for name in order}) == cell_key(parts)
    name, value = order[0], data.draw(VALUES)
    assert (cell_key({**parts, name: value}) == cell_key(parts)) == (told_apart(value) == told_apart(parts[name]))
    assert cell_key({key: each for key, each in parts.items() if key != name}) != cell_key(parts)


NUMBER = st.just(-0.0) | st.floats(allow_nan=False)
ROWS = st.tuples(
    st.tuples(TEXT, TEXT, TEXT), st.tuples(st.integers(0, 9), st.integers(0, 9), NUMBER, NUMBER, st.integers(0, 9))
)


@given(st.lists(ROWS, max_size=6), st.none() | NUMBER, st.booleans())
def test_cells_come_back_as_they_were(store: Store, rows: list[Any], metric: float | None, swept: bool) -> None:
    samples = [Sample(i, *texts) for i, (texts, _) in enumerate(rows)]
    points = [Point(i, *place) for i, (_, place) in enumerate(rows)] if swept else []
    about = {"rows": repr(rows), "metric": metric, "swept": swept}
    key = cell_key(about)
    store.add_cell(key, about, metric, samples, len(samples), points)
    assert store.samples(key) == samples
    assert store.points(key) == points
    assert store.metric(key) == (metric, len(samples))
    check_quickly(store._db, store.path)


@given(st.dictionaries(st.builds(Exchange, TEXT, TEXT), VERDICTS, max_size=6), TEXT)
def test_verdicts_come_back_to_their_judge_and_exchange(
    store: Store, verdicts: dict[Exchange, Verdict], other: str
) -> None:
    judge = digest_of([[*exchange, repr(verdict)] for exchange, verdict in verdicts.items()])  # the example's own
    store.add_verdicts(judge, [*verdicts], [*verdicts.values()])
    swapped = [Exchange(*reversed(exchange)) for exchange in verdicts]
    assert store.verdicts(judge, [*verdicts, *swapped]) == {
        each: verdicts[each] for each in [*verdicts, *swapped] if each in verdicts
    }
    assert store.verdicts(f"{judge}{other}!", [*verdicts]) == {}


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_answers_come_back_as_they_were(store: Store, answers: dict[str, Any]) -> None:
    keyed = {digest_of([key, answer]): answer for key, answer in answers.items()}
    store.add_answers("generate_until", [(key, {"of": answer}, answer) for key, answer in keyed.items()])
    found = store.answers([*keyed, "none"])
    assert {key: told_apart(answer) for key, answer in found.items()} == {
        key: told_apart(answer) for key, answer in keyed.items()
    }
