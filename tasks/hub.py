"""Data sets on the Hugging Face hub, each pinned to a commit, with what to do where they cannot be had."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["HubData"]


@dataclass(frozen=True)
class HubData:
    """One data set at one commit."""

    name: str
    """Hub id."""
    revision: str
    """Commit hash, all 40 digits; of a data set that the user names, a branch or tag too."""
    otherwise: str
    """Ends every error message: how to give the data another way."""
    config: str | None = None
    gated: bool = False

    @property
    def page(self) -> str:
        """Where to look at it, and to ask for access where it is gated."""
        return f"https://huggingface.co/datasets/{self.name}"

    def table(self, columns: Sequence[str], split: str = "train") -> Any:
        """One split as a `datasets.Dataset`.

        Raises:
            InputError: it cannot be had (offline, gated, moved), or lacks a column.
        """
        from datasets import load_dataset

        try:
            table = load_dataset(self.name, self.config, revision=self.revision, split=split)
        except (OSError, ValueError) as error:  # the hub's own errors (offline, gated, not found) are OSErrors
            raise InputError(self._refusal(error)) from None
        missing = [column for column in columns if column not in table.column_names]
        if missing:
            raise InputError(
                f"The data set {self.name} has no column {missing}; it has {table.column_names}. {self.otherwise}"
            )
        return table

    def rows(self, columns: Sequence[str], split: str = "train") -> list[dict[str, Any]]:
        """The rows of one split, the named columns only; raises as `table` does."""
        return [{column: row[column] for column in columns} for row in self.table(columns, split)]

    def file(self, name: str) -> Path:
        """One file of the data set's repository, downloaded into the hub's cache.

        Raises:
            InputError: it cannot be had.
        """
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.name, name, repo_type="dataset", revision=self.revision))
        except (OSError, ValueError) as error:
            raise InputError(self._refusal(error)) from None

    def _refusal(self, error: Exception) -> str:
        reason = " ".join(str(error).split())
        access = f"It is gated: request access at {self.page}, then `hf auth login`.\n" if self.gated else ""
        at = f"commit {self.revision[:7]}" if len(self.revision) == 40 else f"at {self.revision}"
        what = f"The data set {self.name} ({at}) cannot be loaded"
        return f"{what}: {reason}\n{access}{self.otherwise}"
