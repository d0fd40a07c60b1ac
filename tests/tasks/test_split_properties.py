"""What holds of every split: each row is in one part, the same one wherever the row stands in its file."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safebasin.tasks import instructions, splits
from safebasin.tasks.dolly import DOLLY
from safebasin.tasks.splits import advbench_split, near_duplicates

SMALL = {"test": 3, "retain_check": 2, "retain_1": 4, "retain_2": 4}
WORDS = [f"word{number}" for number in range(9)]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join), max_size=30)
OTHERS = [f"goal{i} thing{i}" for i in range(45)]
"""All unlike each other."""


@pytest.fixture(scope="module", autouse=True)
def _small_parts() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instructions, "PARTS", SMALL)
        for name, rows in (("VISAGE_ROWS", 8), ("SAFETY_ROWS", 14), ("NESTED_ROWS", 20)):
            patch.setattr(splits, name, rows)
        yield


def parts_of(folder: pytest.TempPathFactory, rows: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    path = folder.getbasetemp() / "dolly.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    instructions._ordered_rows.cache_clear()
    return {split: DOLLY.rows(split, path) for split in (*SMALL, "train")}


@given(
    st.lists(st.tuples(st.integers(0, 5), st.text(max_size=5)), min_size=20, max_size=40),
    st.randoms(use_true_random=False),
)
def test_instructions_fall_into_the_same_parts_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, contents: list[tuple[int, str]], random: Random
) -> None:
    rows = [
        {"instruction": f"do {i}", "context": "x" * long, "response": f"done {text}"}
        for i, (long, text) in enumerate(contents)
    ]
    parts = parts_of(tmp_path_factory, rows)
    assert parts_of(tmp_path_factory, random.sample(rows, len(rows))) == parts
    prompts = [row["prompt"] for part in parts.values() for row in part]
    assert len(prompts) == len(set(prompts)) == len(rows)
    assert {name: len(part) for name, part in parts.items() if name in SMALL} == SMALL


@given(TEXTS, st.randoms(use_true_random=False))
def test_near_duplicates_are_one_partition_in_any_order(texts: list[str], random: Random) -> None:
    groups = near_duplicates(texts)
    assert sorted(i for group in groups for i in group) == [*range(len(texts))]
    order = random.sample(range(len(texts)), len(texts))
    moved = near_duplicates([texts[i] for i in order])
    assert {frozenset(order[i] for i in group) for group in moved} == {frozenset(group) for group in groups}


@given(TEXTS.map(lambda texts: [*OTHERS[:8], *texts, *OTHERS[8:]]), st.integers(0, 2**32))
def test_advbench_is_split_without_tearing_what_is_alike(goals: list[str], seed: int) -> None:
    parts = advbench_split(goals, seed)
    assert advbench_split(goals, seed) == parts
    safety, evaluation, nested = ({*parts[name]} for name in ("safety", "evaluation", "evaluation_200"))
    assert safety | evaluation == {*range(len(goals))}
    assert not safety & evaluation
    assert nested < evaluation
    assert (len(nested), min(safety) >= 8, len(safety)) == (20, True, 14)
    assert all(safety.issuperset(group) or safety.isdisjoint(group) for group in near_duplicates(goals))
