"""Mutated files of labels before `safebasin review import`: stored as they stand there, or refused with one message."""

import csv
import random
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from safebasin.errors import InputError
from safebasin.harness.stages.folder import open_store
from safebasin.harness.stages.reviewers import import_labels
from safebasin.harness.stages.reviewing import export
from safebasin.results.review.sheet import LABELS

from ..stages.test_drifting import add_judge
from ..stages.test_replicas import fill, plan_of
from ..stages.test_reviewing import fill_in, right
from .test_fuzz import CELLS, COUNT, Read, fuzzed, mutated

BYTES = (
    b'"',
    b"\n",
    b"\r",
    b",",
    b";",
    b"\t",
    b"\0",
    b"\xff",
    b"\xfe\xff",
    b"=",
    b"'",
    "\u202e".encode(),
    b"\xed\xa0\x80",
)

LABEL_NAMES = [*LABELS]


class Reviewed:
    """A run with a sheet that was drawn from it, and files that label the sheet."""

    def __init__(self, place: Path) -> None:
        plan = plan_of(["sandbox"], seeds=[0])
        self.folder = fill(place / "run", plan, lambda cell: "a" * 64)
        add_judge(self.folder, plan)
        self.sheet = export(self.folder, place / "sheet.html", 12, 0).sheet
        rows = [f"{self.sheet.id},{item.id},{LABEL_NAMES[i % 5]},=1+{i}\n" for i, item in enumerate(self.sheet.items)]
        self.texts = (
            fill_in(place / "sheet.csv", right).read_text(encoding="utf-8"),
            f"sheet,item,label,note\n{''.join(rows)}",
            f"label;item;sheet\nharmful;{self.sheet.items[0].id};{self.sheet.id}\n",
        )

    def labels(self) -> list[tuple[str, str]]:
        with closing(open_store(self.folder, None)) as store:
            return [(each.item, each.label) for each in store.reviews.labels(self.sheet.id)]

    def read(self, path: Path, partial: bool) -> None:
        """Imports a file: labels that stand in it, or none where it is refused."""
        before = self.labels()
        try:
            found = import_labels(self.folder, [path], "r1", partial, replace=True)
        except InputError:
            assert self.labels() == before
            raise
        assert found.count == len(self.sheet.items) or (partial and found.count)
        text = path.read_text(encoding="utf-8-sig", errors="replace").casefold()
        new = {*self.labels()} - {*before}
        assert all(item in text and label in text for item, label in new)


def changed(text: str, draw: random.Random) -> bytes:
    if draw.random() < 0.4:
        rows = [*csv.reader(text.splitlines())]
        row = draw.choice(rows)
        if row:
            row[draw.randrange(len(row))] = draw.choice([*CELLS, *LABEL_NAMES])
        return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")
    if draw.random() < 0.5:
        return mutated(text, draw).encode()
    content = bytearray(text.encode())
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(content) + 1)
        end = at + draw.randint(0, 30)
        content[at:end] = draw.choice([b"", content[at:end] * 2, draw.choice(BYTES), bytes([draw.randrange(256)])])
    return bytes(content)


def inputs(place: Path) -> Iterator[tuple[Path, Read]]:
    reviewed = Reviewed(place)
    for seed in range(COUNT):
        draw = random.Random(seed)
        path = place / "labels.csv"
        path.write_bytes(changed(draw.choice(reviewed.texts), draw))
        yield path, partial(reviewed.read, partial=draw.random() < 0.7)


def test_a_mutated_file_of_labels_is_stored_or_refused(tmp_path: Path) -> None:
    fuzzed("files of labels", inputs(tmp_path))
