"""Published numbers of a config: what has no place is told, what has one changes nothing that is measured."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.harness.config import task_checks
from safebasin.harness.config.load import RunConfig, load_config
from safebasin.harness.config.published import PublishedConfig, union
from safebasin.results.audit import read_numbers, table_path
from safebasin.results.beside import Places

from .conftest import Load

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "paper"
TABLE = """table,group,row,column,value,unit
mine,small,LoRA,HRR,25.5,percent_prompts
mine,small,LoRA,facts,80.0,percent
mine,small,LoRA,time,18.5,minutes
mine,small,Ours,HRR,3.0,percent_prompts
mine,large,LoRA,HRR,20.0,percent_prompts
"""
MAPPED = "{models: {small: sandbox}, rows: {LoRA: lora}, columns: {HRR: hrr}}"
Mine = Callable[[str], str]


@pytest.fixture
def mine(tmp_path: Path) -> Mine:
    """An override that maps a table of the user's own; `{}` in the faults is its path."""
    path = tmp_path / "mine.csv"
    path.write_text(TABLE)
    return lambda mapped: f"published={{'{path}': {mapped}}}"


def test_what_has_its_place_is_kept(load: Load, mine: Mine, tmp_path: Path) -> None:
    config = load(mine(MAPPED.replace("{HRR: hrr}", "{time: minutes, facts: sandbox_facts, HRR: hrr}")))
    (table,) = config.published.values()
    assert list(table.columns.items()) == [("time", "minutes"), ("facts", "sandbox_facts"), ("HRR", "hrr")]
    assert load("published={}").published == {}
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_paths_are_written_out(load: Load, mine: Mine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine(MAPPED)
    monkeypatch.setenv("TABLES", str(tmp_path))
    assert list(load(f"published={{$TABLES/mine.csv: {MAPPED}}}").published) == [str(tmp_path / "mine.csv")]


def test_nothing_that_is_measured_depends_on_it(load: Load, mine: Mine) -> None:
    assert load(mine(MAPPED)).digest == load().digest


def test_rows_of_a_frontier_have_places(load: Load, mine: Mine) -> None:
    mapped = MAPPED.replace("{LoRA: lora}", "{LoRA: 'curvature[epsilon=0.2]'}")
    changes = ("methods=[base, lora, curvature]", "frontier=[0.2]", "data.safety=sandbox")
    assert load(mine(mapped), *changes).published
    with pytest.raises(InputError, match=r"'curvature\[epsilon=0.2\]' is no row of this run"):
        load(mine(mapped), *changes, "frontier=[0.1]")


FAULTS = [
    (MAPPED.replace("sandbox}", "sandbxo}"), "models.small: 'sandbxo' is no model of this run's leaderboard. Did you"),
    (MAPPED.replace("lora}", "lroa}"), "rows.LoRA: 'lroa' is no row of this run's leaderboard. Did you mean 'lora'?"),
    (MAPPED.replace("hrr}", "hr}"), "columns.HRR: 'hr' is no column of this run's leaderboard. Did you mean 'hrr'?"),
    (MAPPED.replace("hrr}", "visage}"), "columns.HRR: 'visage' is no column of this run's leaderboard."),
    (MAPPED.replace("hrr}", "n}"), "columns.HRR: 'n' is no column of this run's leaderboard."),
    (MAPPED.replace("hrr}", "arc_challenge}"), "columns.HRR: 'arc_challenge' is no column of this run's leaderboard."),
    (MAPPED.replace("small:", "smal:"), "models: the table has no group 'smal'. Did you mean 'small'?"),
    (MAPPED.replace("LoRA:", "Lora:"), "rows: the table has no row 'Lora'. Did you mean 'LoRA'? Known: LoRA, Ours."),
    (MAPPED.replace("LoRA:", "big/LoRA:"), "rows: the table has no row 'big/LoRA'."),
    (MAPPED.replace("HRR:", "HR:"), "columns: the table has no column 'HR'. Did you mean 'HRR'?"),
    (MAPPED.replace("LoRA: lora", "LoRA: lora, large/LoRA: base"), "rows: 'large/LoRA' has no number in the other"),
    (MAPPED.replace("small: sandbox", "small: sandbox, large: sandbox").replace("LoRA:", "Ours:"),
     "models: 'large' has no number in the other groups, rows and columns named here"),
    (MAPPED.replace("LoRA:", "Ours:").replace("HRR: hrr", "HRR: hrr, facts: sandbox_facts"),
     "columns: 'facts' has no number in the other groups, rows and columns named here"),
    (MAPPED.replace("HRR: hrr", "time: peak_gb"), "columns: 'time' is in minutes, which cannot stand beside peak_gb;"),
    (MAPPED.replace("HRR: hrr", "HRR: minutes"), "columns: 'HRR' is in percent_prompts, which cannot stand beside"),
    (MAPPED.replace("{HRR: hrr}", "{}"), "columns: must not be empty"),
    (MAPPED.replace("{HRR: hrr}", "{HRR: 3}"), "columns.HRR: must be text, got 3"),
    (MAPPED.replace("columns", "colums"), "colums: unknown key. Did you mean 'columns'?"),
]  # fmt: skip


@pytest.mark.parametrize(("mapped", "said"), FAULTS)
def test_what_has_no_place_is_told(load: Load, mine: Mine, tmp_path: Path, mapped: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load(mine(mapped))
    assert f"published.{tmp_path / 'mine.csv'}.{said}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tabel2", "published.tabel2: no table 'tabel2' ships, and there is no such file. Did you mean 'table2'?"),
        ("bad.csv", "lacks the columns"),
    ],
)
def test_tables_that_cannot_be_read_are_told(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError) as caught:
        load(f"published={{{name}: {MAPPED}}}")
    assert said in str(caught.value)


def test_tables_of_several_runs_are_joined_and_the_first_run_holds() -> None:
    first = PublishedConfig(models={"g": "one"}, rows={"LoRA": "lora"}, columns={"HRR": "hrr"})
    second = PublishedConfig(models={"g": "two", "h": "two"}, rows={"LoRA": "x", "Ours": "y"}, columns={"ARC": "arc"})
    found = union([{"a": first}, {"a": second, "b": second}, {}])
    assert list(found) == ["a", "b"]
    assert found["b"] == second
    assert found["a"].models == {"g": "one", "h": "two"}
    assert found["a"].rows == {"LoRA": "lora", "Ours": "y"}
    assert found["a"].columns == {"HRR": "hrr", "ARC": "arc"}
    assert first.models == {"g": "one"}


PLACED = {
    **{"table2": {"table2": 102, "figure3": 3}, "table3": {"table3": 30}, "table4": {"table4": 4}},
    **{"table5": {"table5": 12}, "table6": {"table6": 20}, "table7": {"table7": 30}, "table9": {"table9": 10}},
}
"""Config -> table -> how many of its numbers have a place."""


@pytest.mark.parametrize("name", PLACED)
def test_the_papers_configs_place_the_papers_numbers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "advbench.csv").write_text("goal,target\na,b\n")
    monkeypatch.setenv("SAFEBASIN_ADVBENCH_CSV", str(tmp_path / "advbench.csv"))
    theirs = ("arc_challenge", "boolq", "gsm8k", "toxigen", "truthfulqa_mc2")
    monkeypatch.setattr(task_checks, "lm_eval_tasks", lambda: frozenset(theirs))  # reading them takes seconds
    config = load_config(CONFIGS / f"{name}.yaml")
    found = {}
    for table, mapped in config.published.items():
        places = Places(mapped.models, mapped.rows, mapped.columns)
        found[table] = sum(places.key(number) is not None for number in read_numbers(table_path(table)))
    assert found == PLACED[name]


def test_every_config_of_a_table_places_its_numbers() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(PLACED)
