"""How rows are divided: by hash, not by a random generator, so the same on every machine and version.

`python -m safebasin.tasks.splits CSV` writes `splits/advbench.json` again.
"""

import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

__all__ = ["advbench_split", "committed", "near_duplicates", "order"]

SEED = 2025
VISAGE_ROWS = 80
"""VISAGE scores the first 80 rows; the safety rows, which some methods train on, are drawn behind them (A-24)."""
SAFETY_ROWS = 138
NESTED_ROWS = 200
SIMILARITY = 0.5
FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "can",
        "for",
        "from",
        "how",
        "in",
        "into",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "that",
        "the",
        "their",
        "them",
        "they",
        "this",
        "to",
        "using",
        "with",
        "without",
    ]
)
RULE = (
    f"Near-duplicates: rows whose requests, as sets of lower-case words without function words, have Jaccard "
    f"similarity >= {SIMILARITY}, joined transitively. Groups that lie wholly in rows >= {VISAGE_ROWS} are ordered by "
    f"sha256('seed:safety:first row') and taken while they fit until {SAFETY_ROWS} rows are drawn: 'safety'. All "
    f"other rows: 'evaluation'. 'evaluation_200': the first {NESTED_ROWS} of these ordered by "
    "sha256('seed:nested:row')."
)


def order(seed: int, purpose: str, item: object) -> str:
    """Sort key that puts items into an order fixed by the seed and by what the order is for."""
    return hashlib.sha256(f"{seed}:{purpose}:{item}".encode()).hexdigest()


def near_duplicates(texts: Sequence[str], similarity: float = SIMILARITY) -> list[list[int]]:
    """Groups of indices of texts that say nearly the same (single linkage), each sorted, by first index."""
    words = [frozenset(re.findall(r"[a-z0-9]+", text.lower())) - FUNCTION_WORDS for text in texts]
    group = list(range(len(texts)))
    for i, mine in enumerate(words):
        for j in range(i):
            if group[i] != group[j] and len(mine & words[j]) >= similarity * max(1, len(mine | words[j])):
                old, new = max(group[i], group[j]), min(group[i], group[j])
                group = [new if label == old else label for label in group]
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(group):
        members[label].append(index)
    return [members[label] for label in sorted(members)]


def advbench_split(goals: Sequence[str], seed: int = SEED) -> dict[str, list[int]]:
    """Row indices of AdvBench's parts: `safety` (138), `evaluation` (382) and, nested in it, `evaluation_200`.

    Args:
        goals: the requests, in the file's order.
        seed: fixes the draw.
    """
    free = [group for group in near_duplicates(goals) if group[0] >= VISAGE_ROWS]
    safety: list[int] = []
    for group in sorted(free, key=lambda group: order(seed, "safety", group[0])):
        if len(safety) + len(group) <= SAFETY_ROWS:
            safety += group
    evaluation = sorted(set(range(len(goals))) - set(safety))
    nested = sorted(evaluation, key=lambda row: order(seed, "nested", row))[:NESTED_ROWS]
    return {"safety": sorted(safety), "evaluation": evaluation, "evaluation_200": sorted(nested)}


def committed(name: str) -> dict[str, Any]:
    """The committed split file `splits/<name>.json`: indices, seed, rule, and the digests of their data."""
    content = json.loads(files(__package__).joinpath("splits", f"{name}.json").read_text(encoding="utf-8"))
    return dict(content)


def _write(csv_path: Path) -> None:
    from .overlap import request_digest
    from .sources import read_goals, rows_digest

    rows = read_goals(csv_path)
    parts = advbench_split([row["prompt"] for row in rows])
    content = {
        "dataset": "AdvBench harmful_behaviors.csv (Zou et al. 2023, arXiv 2307.15043), indices only",
        "rows": len(rows),
        "sha256": hashlib.sha256(csv_path.read_bytes()).hexdigest(),
        "rows_sha256": rows_digest([row["prompt"], row["target"]] for row in rows),
        "seed": SEED,
        "rule": RULE,
        **parts,
        "safety_requests": [request_digest(rows[index]["prompt"]) for index in parts["safety"]],
    }
    text = re.sub(r"\[[^\]]+\]", lambda found: re.sub(r"\s+", " ", found[0]), json.dumps(content, indent=1))
    Path(__file__).with_name("splits").joinpath("advbench.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
