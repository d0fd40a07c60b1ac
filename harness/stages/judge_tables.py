"""What the judges of a run say beside each other: rates by judge, corrected by labels, their errors and agreement."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ...errors import InputError
from ...results.judged import JudgedRow
from .labelling import labels_for

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["JudgeTables", "judge_tables"]

FILES = {
    "rates": "judges.csv",
    "errors": "judge-errors.csv",
    "agreement": "agreement.csv",
    "disagreements": "disagreements.csv",
}


@dataclass(frozen=True)
class JudgeTables:
    """Four tables; each may be empty."""

    rates: "pd.DataFrame"
    """`results.judge_table.JUDGES`."""
    errors: "pd.DataFrame"
    """`results.judge_table.ERRORS`; empty without labels."""
    agreement: "pd.DataFrame"
    """`results.agreement.AGREEMENT`; empty where no two judges decide the same."""
    disagreements: "pd.DataFrame"
    """`results.agreement.DISAGREEMENTS`."""

    def write(self, folder: Path) -> None:
        """Writes those that hold something; files of an earlier report that do not any more are taken away.

        Raises:
            InputError: a file cannot be written.
        """
        from ...results.export import write_table

        for name, file in FILES.items():
            table = getattr(self, name)
            if len(table):
                write_table(table, folder / file)
            else:
                (folder / file).unlink(missing_ok=True)

    def show(self, console: Console) -> None:
        """Prints rates by judge and agreement."""
        from ...results.judging_view import print_agreement, print_judges

        print_judges(self.rates, self.errors, console)
        print_agreement(self.agreement, self.disagreements, console)


def judge_tables(rows: Sequence[JudgedRow], folder: Path, over_worlds: bool, labels: Path | None = None) -> JudgeTables:
    """Makes the tables.

    Args:
        rows: of one run, or of several together.
        folder: of the run, where its labels.csv may lie.
        over_worlds: whether the models are replicas.
        labels: a file of labels, in place of labels.csv.

    Raises:
        InputError: the labels cannot be used, or the rows are of runs with different judges.
    """
    from ...results.agreement import agreement_table, disagreements
    from ...results.judge_table import judge_errors, judge_table

    if other := next((row for row in rows if row.judges != rows[0].judges), None):
        names = (", ".join(judge.name for judge in row.judges) for row in (rows[0], other))
        raise InputError(
            f"{rows[0].model} and {other.model} were judged by different judges ({' | '.join(names)}). Let the same "
            "judges judge both (`safebasin judge`)."
        )
    known = labels_for(folder, rows, labels)
    return JudgeTables(
        rates=judge_table(rows, known),
        errors=judge_errors(rows, known),
        agreement=agreement_table(rows, over_worlds),
        disagreements=disagreements(rows),
    )
