"""Which published numbers stand beside which measured ones: `published` in a config (docs/report.md)."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from .frozen import Frozen, Text, UserPath

__all__ = ["PublishedConfig", "union"]


class PublishedConfig(Frozen):
    """Places of a table's numbers; the key above is its name (`table2` … ship) or the path of a CSV (docs/audit.md)."""

    models: Annotated[dict[Text, UserPath], Field(min_length=1)]
    """Group of the table -> id of a model of this config. Several groups may be of one model."""
    rows: Annotated[dict[Text, Text], Field(min_length=1)]
    """Row of the table -> label of a row of the leaderboard; `group/row` is that row of one group alone, and goes
    before `row`."""
    columns: Annotated[dict[Text, Text], Field(min_length=1)]
    """Column of the table -> column of leaderboard.csv, in the order in which they are shown."""


def union(given: Sequence[dict[str, PublishedConfig]]) -> dict[str, PublishedConfig]:
    """The tables of several runs; where two place one group, row or column differently, the first one's holds.

    Nothing that is measured depends on it, so that it is no reason to refuse a report.
    """
    found: dict[str, PublishedConfig] = {}
    for tables in given:
        for name, table in tables.items():
            first = found.get(name, table)
            found[name] = PublishedConfig(
                models=_added(first.models, table.models),
                rows=_added(first.rows, table.rows),
                columns=_added(first.columns, table.columns),
            )
    return found


def _added(first: dict[str, str], more: dict[str, str]) -> dict[str, str]:
    return first | {key: value for key, value in more.items() if key not in first}
