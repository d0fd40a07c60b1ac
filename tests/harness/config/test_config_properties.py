"""What holds of every config and of its rows: what is written is read as it was, replaced as it stands, split once."""

import json
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safebasin.harness.config.data import TASK_SPLITS, benign_rows, rows_for
from safebasin.harness.config.file import as_yaml, read_value, read_yaml, with_overrides
from safebasin.harness.config.model import RunConfig

NUMBERS = st.sampled_from(
    ["1e5", "12e4567", "0x1f", "1_000", "1:30", ".5", "-.inf", "2024-01-01", "yes", "null", "~", "<<", "="]
)
"""Texts that YAML takes for something else where nothing says that they are texts."""
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | NUMBERS
PATH = TEXT.filter(lambda text: "$" not in text and not text.startswith("~"))
FLOAT = st.floats(1e-9, 1e9)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
SETTINGS = st.dictionaries(TEXT.filter(lambda key: key not in ("label", "start")), VALUES, max_size=2)
LABEL = st.from_regex(r"\A[a-zé][a-zé ]{0,6}[a-zé]\Z") | NUMBERS
CONFIGS = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,8}\Z"),
        "models": st.lists(
            PATH | st.fixed_dictionaries({"id": PATH}, optional={"revision": TEXT, "target_hrr": st.floats(0.1, 99)}),
            min_size=1,
            max_size=2,
        ),
        "methods": st.lists(
            TEXT
            | st.tuples(TEXT, SETTINGS, LABEL).map(lambda given: {given[0]: given[1] | {"label": given[2]}})
            | st.tuples(TEXT, TEXT).map(lambda given: {given[0]: {"start": given[1]}}),
            min_size=1,
            max_size=3,
        ),
        "tasks": st.fixed_dictionaries(
            {}, optional={"safety": st.lists(TEXT, max_size=2), "include": st.lists(PATH, max_size=2)}
        ),
    },
    optional={
        "finetune": st.fixed_dictionaries(
            {},
            optional={"rank": st.integers(1, 512), "learning_rate": FLOAT, "alpha": st.none() | FLOAT, "dataset": PATH,
                      "columns": st.dictionaries(TEXT, TEXT, max_size=2), "target_modules": st.lists(TEXT, min_size=1)},
        ),
        "data": st.fixed_dictionaries({}, optional={"safety": PATH, "retain": PATH, "eval_rows": PATH}),
        "judges": st.lists(TEXT | st.dictionaries(TEXT, SETTINGS, min_size=1, max_size=1), max_size=2),
        "frontier": st.lists(st.floats(0, 1e6), max_size=3),
        "seeds": st.lists(st.integers(0, 2**40), min_size=1, max_size=3),
        "date": st.dates().map(str),
        "limit": st.none() | st.integers(1, 10**9),
        "device": st.sampled_from(["cpu", "cuda:1"]),
    },
)  # fmt: skip


def config_of(data: Mapping[str, Any]) -> RunConfig:
    return RunConfig.model_validate_json(json.dumps(data))


@given(CONFIGS)
def test_a_config_that_is_written_and_read_is_the_same(tmp_path_factory: pytest.TempPathFactory, data: dict) -> None:
    config = config_of(data)
    dumped = config.model_dump(mode="json")
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(as_yaml(dumped), encoding="utf-8")
    for again in (config_of(read_yaml(path)), config_of(dumped)):
        assert again == config
        assert again.digest == config.digest


@given(VALUES)
@example({"a\x85b": ["\x85", "\u2028", "\u2029"]})
def test_any_value_comes_back_from_yaml(value: Any) -> None:
    assert repr(read_value(as_yaml(value))) == repr(value)


KEYS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3)
TREES = st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3))


@given(st.dictionaries(st.sampled_from("abc"), TREES), KEYS, VALUES)
def test_a_replacement_sets_one_value_and_leaves_the_others(data: dict, keys: list[str], value: Any) -> None:
    before = json.dumps(data)
    replaced, faults = with_overrides(data, [f"{'.'.join(keys)}={as_yaml(value)}"])
    assert json.dumps(data) == before
    expected = json.loads(before)
    *above, last = keys
    inner = expected
    for key in above:
        if not isinstance(inner.setdefault(key, {}), dict):
            assert [fault.at for fault in faults] == [f"{'.'.join(keys)}={as_yaml(value)}"]
            assert replaced == data
            return
        inner = inner[key]
    inner[last] = value
    assert not faults
    assert repr(replaced) == repr(expected)


@given(VALUES, VALUES)
def test_replacements_of_different_keys_do_not_see_their_order_and_the_last_of_one_key_counts(
    one: Any, two: Any
) -> None:
    a, b, other = f"x.a={as_yaml(one)}", f"x.b={as_yaml(two)}", f"x.a={as_yaml(two)}"
    assert with_overrides({}, [a, b])[0] == with_overrides({}, [b, a])[0] == {"x": {"a": one, "b": two}}
    assert with_overrides({}, [a, other])[0] == {"x": {"a": two}}


def run_on(folder: Path, numbers: list[int], benign: list[int]) -> RunConfig:
    """A run on rows of its own, and an alignment that takes four; a name for each content, as files are read once."""
    name = f"{hash((*numbers, *benign)):x}"
    for kind, these in (("task", numbers), ("benign", benign)):
        lines = [json.dumps({"prompt": f"say {number}", "response": "yes"}) for number in these]
        (folder / f"{kind}{name}.jsonl").write_text("\n".join(lines))
    align = {"benign": str(folder / f"benign{name}.jsonl"), "benign_rows": 4}
    return config_of(
        {
            "name": "x", "models": [{"id": "model", "align": align}], "methods": ["lora"], "tasks": {},
            "finetune": {"dataset": str(folder / f"task{name}.jsonl")},
        }
    )  # fmt: skip


@given(st.integers(75, 99), st.integers(4, 99), st.randoms(use_true_random=False))
def test_the_parts_of_own_rows_are_disjoint(
    tmp_path_factory: pytest.TempPathFactory, rows: int, others: int, random: Random
) -> None:
    folder = tmp_path_factory.getbasetemp()
    numbers, benign = random.sample(range(200), rows), random.sample(range(200), others)
    config, moved = run_on(folder, numbers, benign), run_on(folder, numbers, random.sample(benign, others))
    taken, again = (
        [row["prompt"] for row in benign_rows(run.models[0].align, run)]  # type: ignore[arg-type]
        for run in (config, moved)
    )
    assert taken == again
    parts, again = (
        [[row["prompt"] for row in rows_for(split, run)] for split in TASK_SPLITS] for run in (config, moved)
    )
    assert parts == again
    together = [prompt for part in parts for prompt in part]
    assert len(set(together)) == len(together)
    assert {*together} == {f"say {number}" for number in numbers} - {*taken}
