"""`safebasin list`: methods, judges, tasks and configs, read from the code itself."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.table import Table

from ... import registry
from ...errors import InputError
from ...tasks.catalog import groups, tasks

__all__ = ["listing"]


def _table(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _plugins(group: str, cells: Callable[[Any], tuple[str, ...]]) -> list[tuple[str, ...]]:
    """A row for each plug-in; one that cannot be imported says so in its row and hides no other."""
    rows = []
    for name in registry.available(group):
        try:
            rows.append((name, *cells(registry.load(group, name))))
        except InputError as error:
            rows.append((name, "-", str(error)))
    return rows


def _methods() -> Table:
    rows = _plugins("methods", lambda m: (m.stage, m.summary, ", ".join(m.needs), m.paper, m.licence))
    base = ("base", "base", "The aligned model itself, without an adapter.", "", "", "")
    return _table(("method", "stage", "what it does", "data", "paper", "licence"), [base, *rows])


def _judges() -> Table:
    rows = _plugins("judges", lambda j: (", ".join(sorted(j.decides)), j.summary, j.licence))
    return _table(("judge", "decides", "what it does", "licence"), rows)


def _tasks() -> Table:
    rows = [(t.name, t.role, t.summary, t.metric, str(t.metadata.get("licence", ""))) for t in tasks().values()]
    rows += [(g.name, "group", f"{g.summary}: {', '.join(g.members)}", "", "") for g in groups()]
    return _table(("task", "role", "what it measures", "headline metric", "data licence"), rows)


def _configs() -> Table:
    folder = Path(__file__).resolve().parents[2] / "configs"
    rows = [
        (path.stem, path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "), str(path))
        for path in sorted(folder.glob("*.yaml"))
    ]
    return _table(("config", "what it runs", "file"), rows)


def listing(what: str) -> Table:
    """The table of one kind of thing.

    Raises:
        InputError: no such kind.
    """
    kinds: dict[str, Callable[[], Table]] = {
        "methods": _methods,
        "judges": _judges,
        "tasks": _tasks,
        "configs": _configs,
    }
    if what not in kinds:
        raise InputError(f"There is nothing called '{what}' to list. {registry.suggest(what, kinds)}")
    return kinds[what]()
