"""Pieces sent to a cluster that is this process: the store gets what workers append, whoever dies on the way."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.harness import judging
from safebasin.harness.config.model import RunConfig
from safebasin.harness.executors import choice
from safebasin.harness.executors.cluster import Died
from safebasin.harness.executors.part import Part, Reader, take, write_known
from safebasin.harness.executors.remote import Remote
from safebasin.harness.executors.work import Order, Outcome
from safebasin.harness.pieces import Piece
from safebasin.harness.store.store import Point, Sample, Store
from safebasin.judges.base import Exchange
from safebasin.results.records import Verdict

from .conftest import answers, ran, table


class Death(BaseException):
    """Nothing that a piece catches."""


class Here:
    """A cluster that works as it is asked, and whose workers die at the appends that are named."""

    pause = 0.0
    notice = ""

    def __init__(self, deaths: tuple[int, ...] = (), change: Any = lambda order: order) -> None:
        self.deaths, self.change, self.appends = set(deaths), change, 0
        self.sent: list[str] = []
        self.doomed = ""
        """Name of a piece of which every worker dies."""

    def send(self, name: str, work: Any, piece: Piece, order: Order, part: str) -> Any:
        self.sent.append(name)
        real = Part._append

        def append(own: Part, *line: Any, safe: bool = True) -> None:
            if line[0] == "answers":
                self.appends += 1
                if self.appends in self.deaths or name == self.doomed:
                    own._file.write('["answers", "generate_until", [["torn')
                    own._file.flush()
                    raise Death
            real(own, *line, safe=safe)

        Part._append = append  # type: ignore[method-assign]
        try:
            return work(piece, self.change(order), part)
        except Death:
            return None
        finally:
            Part._append = real  # type: ignore[method-assign]

    def outcome(self, handle: Any) -> Outcome:
        if handle is None:
            raise Died("it was killed")
        return handle  # type: ignore[no-any-return]

    def drop(self, handle: Any) -> None:
        self.sent.append("dropped")

    def close(self) -> None:
        self.sent.append("closed")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    cluster = Here()
    monkeypatch.setattr(choice, "cluster_of", lambda config, folder: cluster)
    monkeypatch.setattr(judging, "judge_bytes", lambda judge, world: 1)  # as if it were a model
    return cluster


def test_deaths_change_nothing(here: Here, given: RunConfig, local: Path, tmp_path: Path) -> None:
    here.deaths = {2, 3}
    result, said = ran(given, tmp_path / "run", executor="ray", resources={"workers": 2})
    assert result.failures == {}, said
    pd.testing.assert_frame_equal(table(tmp_path / "run"), table(local))
    assert answers(tmp_path / "run") == answers(local)
    assert said.count("it goes on with another worker") == 2
    assert here.sent[0] == "first look"
    assert here.sent[-1] == "closed"
    assert "judge 0 of world 0, part 1" in here.sent
    assert not [*(tmp_path / "run" / "parts").glob("*.jsonl"), *(tmp_path / "run" / "waiting").iterdir()]


def test_a_piece_whose_workers_all_die_fails_its_rows_alone(here: Here, given: RunConfig, tmp_path: Path) -> None:
    first = given.models[0].id
    here.doomed = f"{first} answers 0"
    result, _ = ran(given, tmp_path / "run", executor="ray", resources={"retries": 1})
    assert here.sent.count(here.doomed) == 2
    assert first in result.failures
    assert "its worker died 2 times, at last: it was killed" in result.failures[first]
    status = pd.read_csv(tmp_path / "run" / "leaderboard.csv").set_index("model")["status"]
    assert {str(one)[:6] for one in status[first]} == {"failed"}
    assert {*status[given.models[1].id]} == {"ok"}


def test_a_relapse_elsewhere_is_one_here(here: Here, given: RunConfig, tmp_path: Path) -> None:
    relapse = {"harmful": [], "steps": [0, 1]}
    small = given.model_copy(update={"models": given.models[:1], "methods": given.methods[:2]})
    tasks = given.tasks.model_dump(mode="json") | {"relapse": relapse}
    for name in ("local", "ray"):
        result, said = ran(small, tmp_path / name, executor=name, tasks=tasks)
        assert result.failures == {}, said
    one, other = (
        pd.read_csv(tmp_path / name / "relapse.csv").drop(columns=["minutes", "peak_gb"], errors="ignore")
        for name in ("local", "ray")
    )
    pd.testing.assert_frame_equal(one, other)
    assert answers(tmp_path / "ray") == answers(tmp_path / "local")


def test_what_workers_of_a_killed_driver_left_is_taken_in(here: Here, given: RunConfig, tmp_path: Path) -> None:
    parts = tmp_path / "run" / "parts"
    parts.mkdir(parents=True)
    line = ["answers", "generate_until", [["0" * 64, {"weights": "w"}, "yes"]]]
    (parts / "left.jsonl").write_text(json.dumps(line) + '\n["answers", "gen')
    (parts / "left.known").touch()
    result, said = ran(given, tmp_path / "run", executor="ray")
    assert result.failures == {}, said
    assert answers(tmp_path / "run")["0" * 64] == '"yes"'
    assert not (parts / "left.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"token": "another"}, "does not see the run folder"), ({"code": "older"}, "Install the same versions")],
)
def test_a_worker_that_is_not_the_drivers_ends_the_run(
    here: Here, given: RunConfig, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    here.change = lambda order: replace(order, **change)
    with pytest.raises(InputError, match=message):
        ran(given, tmp_path / "run", executor="ray")
    assert here.sent == ["first look", "closed"]


def test_lines_of_a_part_are_what_the_store_would_have_been_told(tmp_path: Path) -> None:
    cell = "c" * 64
    samples = [Sample(0, "say é", "yes", "y"), Sample(1, "say \ud800".encode("utf-8", "replace").decode(), "no")]
    points = [Point(0, 0, 0, 0.5, -1.25, 3), Point(1, 0, 0, -0.5, -1.5, 2)]
    verdict = Verdict(True, False, None, 0.25, ("S1", "S9"), "unsafe")

    def tell(store: Any) -> None:
        store.add_answers("loglikelihood", [("k", {"weights": "w", "ids": [1]}, [-0.1, True])])
        store.add_cell(cell, {"task": "t"}, math.nan, samples, 2, points, {1: "kind"})
        store.assign("run", "name", cell, "ok")
        store.add_verdicts("judge", [Exchange("say é", "yes")], [verdict])

    direct, merged = (Store(tmp_path / name / "store.sqlite") for name in ("direct", "merged"))
    write_known(tmp_path / "known", merged, ["w"])
    part = Part(tmp_path / "part.jsonl", tmp_path / "known")
    tell(direct)
    tell(part)
    part.say("hello")
    assert part.answers(["k", "other"]) == {"k": [-0.1, True]}
    assert part.has_cell(cell)
    part.close()
    for line in Reader(tmp_path / "part.jsonl").fresh():
        take(line, merged)
    for read in (
        lambda store: store.answers(["k"]), lambda store: store.samples(cell), lambda store: store.points(cell),
        lambda store: store.categories(cell), lambda store: store.metric(cell), lambda store: store.cell_parts(cell),
        lambda store: store.assignments("run"), lambda store: store.verdicts("judge", [Exchange("say é", "yes")]),
    ):  # fmt: skip
        assert read(merged) == read(direct)

    write_known(tmp_path / "known", merged, ["w"])
    again = Part(tmp_path / "again.jsonl", tmp_path / "known")
    assert again.answers(["k"]) == {"k": [-0.1, True]}
    assert again.has_cell(cell)
    again.close()


def test_a_line_is_read_once_and_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "part.jsonl"
    reader = Reader(path)
    assert reader.fresh() == []
    path.write_text('["say", "one"]\n["say", "tw')
    assert reader.fresh() == [["say", "one"]]
    with path.open("a") as file:
        file.write('o"]\n')
    assert reader.fresh() == [["say", "two"]]
    assert reader.fresh() == []


def test_executors_are_chosen_by_name(given: RunConfig, tmp_path: Path, here: Here) -> None:
    with choice.executor_for(given, tmp_path) as executor:
        assert not executor.far
    with choice.executor_for(given.model_copy(update={"executor": "slurm"}), tmp_path) as executor:
        assert isinstance(executor, Remote)
    assert here.sent == ["closed"]
