"""What has been computed so far, a line of JSON at a time: after a kill, work goes on behind the last whole line."""

import json
import os
from pathlib import Path
from typing import Any

from ...errors import check_disk

__all__ = ["Journal"]


class Journal:
    """Named results that are kept the moment they exist.

    Attributes:
        done: name -> what was kept under it.
    """

    def __init__(self, path: Path, key: str) -> None:
        """Reads what is there; lines of another key, and one that a kill has cut off, do not count and go.

        Args:
            path: of the file.
            key: digest of everything that decides the results.

        Raises:
            OSError: it cannot be read or written.
        """
        self._path, self._key = path, key
        whole = [line for line in _lines(path) if line.get("key") == key]
        self.done: dict[str, Any] = {line["name"]: line["value"] for line in whole}
        draft = path.with_suffix(".tmp")
        draft.write_text("".join(json.dumps(line) + "\n" for line in whole), encoding="utf-8")
        os.replace(draft, path)

    def keep(self, name: str, value: Any) -> None:
        """Keeps a JSON value on the disk before it returns.

        Raises:
            StorageError: the disk is full.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": self._key, "name": name, "value": value}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            check_disk(error, self._path)
            raise
        self.done[name] = value


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        try:
            read = json.loads(line)
        except ValueError:
            continue  # cut off
        if isinstance(read, dict) and {"key", "name", "value"} <= set(read):
            found.append(read)
    return found
