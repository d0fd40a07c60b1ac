from typing import Any

import numpy as np
import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.restoration.data import RestorationData, split

CONFIG = RestoreConfig()


def harmful(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"harm {i}"} for i in range(count)]


def benign(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"say {i}", "response": "yes"} for i in range(count)]


def sizes(data: RestorationData) -> tuple[int, ...]:
    return tuple(len(getattr(data, name)) for name in data.__dataclass_fields__)


def test_fifty_forget_rows_are_ascended_and_the_rest_probe_curvature() -> None:
    assert sizes(split(harmful(300), benign(2000), None, None, CONFIG)) == (50, 250, 900, 900, 200)


def test_few_forget_rows_are_halved_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="12 forget rows are few: 6 are ascended"):
        assert sizes(split(harmful(12), benign(24), None, None, CONFIG)) == (6, 6, 9, 9, 6)


@pytest.mark.parametrize("absent", [None, float("nan"), pd.NA, pd.NaT, np.float32("nan")])
@pytest.mark.parametrize("column", ["target", "refusal", "before"])
def test_what_a_table_writes_where_there_is_nothing_is_absent(absent: Any, column: str) -> None:
    forget = [{**row, column: absent} for row in harmful(3)]
    retain = [{**row, "before": absent} for row in benign(9)]
    checked = [{"prompt": "c", "response": "d", "before": absent}]
    assert split(forget, retain, checked, forget[2:], CONFIG) == split(
        harmful(3), benign(9), [{"prompt": "c", "response": "d"}], harmful(3)[2:], CONFIG
    )


@pytest.mark.parametrize("before", ["hi", 3, {"role": "user"}])
def test_what_is_before_a_prompt_are_turns(before: Any) -> None:
    with pytest.raises(InputError, match="turns with a role"):
        split([{"prompt": "a", "before": before}, *harmful(2)], benign(9), None, None, CONFIG)


def test_given_sets_are_taken_whole() -> None:
    data = split(harmful(3), benign(9), [{"prompt": "c", "response": "d"}], harmful(5)[3:], CONFIG)
    assert sizes(data) == (3, 2, 5, 4, 1)


def test_splits_are_disjoint_and_follow_the_seed() -> None:
    one, same, other = (split(harmful(120), benign(40), None, None, RestoreConfig(seed=s)) for s in (0, 0, 1))
    assert one == same != other
    prompts = [row["prompt"] for name in one.__dataclass_fields__ for row in getattr(one, name)]
    assert len(set(prompts)) == 160


@pytest.mark.filterwarnings("ignore:3 of 3 forget prompts")
def test_safety_examples_are_counted_once() -> None:
    assert split(harmful(3), benign(9), None, harmful(5), CONFIG).safety_examples == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forget": []}, "forget set is empty"),
        ({"retain": []}, "retain set is empty"),
        ({"retain_check": []}, "retain_check set is empty"),
        ({"curvature_forget": []}, "curvature_forget set is empty"),
        ({"forget": "harm"}, "forget set is empty or no list of rows"),
        ({"forget": ["harm", "more"]}, "Row 0 of the forget set needs text in column prompt; it has 'harm'"),
        ({"forget": [{"text": "x"}]}, r"Row 0 of the forget set needs text in column prompt; it has \['text'\]"),
        ({"retain": [{"prompt": "x"}]}, "Row 0 of the retain set needs text in column response"),
        ({"retain": [{"prompt": "x", "response": " "}]}, "needs text in column response"),
        ({"retain": benign(2)}, "retain set has 2 rows, too few"),
        ({"forget": harmful(1)}, "forget set has 1 row, too few"),
        ({"forget": [*harmful(120), {"prompt": " SAY  3"}]}, "1 prompts are in the forget and in the .*'say 3'"),
        ({"retain_check": [{"prompt": "harm 2", "response": "x"}]}, "1 prompts are in the forget and in the retain"),
    ],
)  # fmt: skip
def test_bad_sets_are_refused(changes: dict[str, Any], message: str) -> None:
    given = {"forget": harmful(120), "retain": benign(12), "retain_check": None, "curvature_forget": None}
    with pytest.raises(InputError, match=message):
        split(**{**given, **changes}, config=CONFIG)
