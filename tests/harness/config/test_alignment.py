"""Which rows an alignment takes, which it leaves to the methods, and what is wrong with one."""

from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.harness.config.alignment import AlignConfig
from safebasin.harness.config.data import aligned_safety_rows, benign_rows, rows_for

from .conftest import Load


def test_an_alignment_takes_its_rows_from_those_to_fine_tune_on(load: Load, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,response\n" + "".join(f"ask {i},say {i}\n" for i in range(20)))
    own = f"finetune.dataset={tmp_path / 'rows.csv'}"
    plain = load(own, "models=[sandbox]")
    config = load(own, "models=[{id: sandbox, align: {benign_rows: 5}}]")
    align = config.models[0].align
    assert align is not None
    taken = benign_rows(align, config)
    assert len(taken) == 5
    assert taken == benign_rows(align, config)
    left = rows_for("task_train", config)
    assert sorted([*taken, *left], key=str) == sorted(rows_for("task_train", plain), key=str)
    assert rows_for("retain_1", config) == rows_for("retain_1", plain)
    most = load(own, "models=[{id: sandbox, align: {}}]")
    assert len(rows_for("task_train", most)) == 8  # no more than half is taken
    named = load(own, f"models=[{{id: sandbox, align: {{benign: '{tmp_path / 'rows.csv'}[:3]'}}}}]")
    assert [row["prompt"] for row in rows_for("task_train", named)] == [f"ask {i}" for i in range(3, 16)]
    with pytest.raises(InputError, match=r"All 16 rows of the split 'task_train' are benign rows of the alignment"):
        rows_for("task_train", load(own, f"models=[{{id: sandbox, align: {{benign: '{tmp_path / 'rows.csv'}'}}}}]"))


@pytest.mark.parametrize("source", ["sandbox", "own"])
def test_an_alignment_can_leave_safety_rows_to_the_methods(load: Load, tmp_path: Path, source: str) -> None:
    (tmp_path / "ask.csv").write_text("prompt\n" + "".join(f"ask {i}\n" for i in range(80)))
    safety = f"data.safety={tmp_path / 'ask.csv' if source == 'own' else source}"
    splits = ("safety", "forget", "curvature_forget")
    shared = load(safety, "models=[{id: sandbox, align: {}}]")
    plain = load(safety, "models=[sandbox]")
    assert aligned_safety_rows(AlignConfig(), shared) == rows_for("safety", plain)
    assert [rows_for(split, shared) for split in splits] == [rows_for(split, plain) for split in splits]
    parted = load(safety, "models=[{id: sandbox, align: {safety_rows: 20}}]")
    align = parted.models[0].align
    assert align is not None
    taken = aligned_safety_rows(align, parted)
    assert len(taken) == 20
    assert sorted([*taken, *rows_for("safety", parted)], key=str) == sorted(rows_for("safety", plain), key=str)
    prompts = [{row["prompt"] for row in rows_for(split, parted)} for split in splits]
    assert not any({row["prompt"] for row in taken} & part for part in prompts)
    assert len(prompts[1]) == 50
    if source == "own":
        assert prompts[1] | prompts[2] == prompts[0]
        with pytest.raises(InputError, match=r"50 rows that no alignment takes; more than 50 are needed"):
            rows_for("curvature_forget", load(safety, "models=[{id: sandbox, align: {safety_rows: 30}}]"))
        with pytest.raises(InputError, match=r"align.safety_rows is 80, and there are 80. Leave some"):
            rows_for("forget", load(safety, "models=[{id: sandbox, align: {safety_rows: 80}}]"))


@pytest.mark.parametrize(
    ("align", "message"),
    [
        ("{learning_rat: 1}", r"models.0.align.learning_rat: unknown key. Did you mean 'learning_rate'"),
        ("{batch_size: 6}", r"models.0.align.batch_size: must be a multiple of micro_batch_size=4, got 6"),
        ("{benign: nowhere.csv}", r"models.0.align.benign: There is no file 'nowhere.csv'"),
        ("{answers: mine}", r"models.0.align.answers: must be one of|models.0.align.answers"),
    ],
)
def test_what_is_wrong_with_an_alignment(load: Load, align: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(f"models=[{{id: sandbox, align: {align}}}]")
