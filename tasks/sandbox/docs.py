"""lm-eval data set loaders of the sandbox's tasks; the rows are those of the evaluated model's world."""

from collections.abc import Mapping
from typing import Any

from ..judging import judges_override
from ..prefill import prefilled
from ..sources import as_test_split
from ..visage import with_sweep
from .entangled import rows
from .location import world_of
from .world import Row

__all__ = ["load", "load_prefill", "load_targets", "load_visage"]


def load(**metadata: Any) -> dict[str, Any]:
    """The rows of the split named by the YAML's metadata `rows`, each with the number of its `world`."""
    judges_override()  # a mistake in it must not show only after all generation is done
    return as_test_split(_rows(metadata))


def load_prefill(**metadata: Any) -> dict[str, Any]:
    """As `load`, with the first `k` tokens of each target as the beginning of the answer."""
    judges_override()  # a mistake in it must not show only after all generation is done
    return as_test_split(prefilled(_rows(metadata), metadata))


def load_targets(**metadata: Any) -> dict[str, Any]:
    """As `load`, with each row's target, a complying answer, as its `response`."""
    return as_test_split([row | {"response": row["target"]} for row in _rows(metadata)])


def load_visage(**metadata: Any) -> dict[str, Any]:
    """As `load`, the first `prompts` rows, each with the points that it is asked at."""
    judges_override()  # a mistake in it must not show only after all generation is done
    return as_test_split(with_sweep(_rows(metadata)[: int(metadata["prompts"])], metadata))


def _rows(metadata: Mapping[str, Any]) -> list[Row]:
    """The rows of the world that the model belongs to; of world 0 for a model that names none.

    Plain `lm_eval` hands over its model arguments, among them `pretrained`; a run hands over `tokenizer`.
    """
    model = metadata.get("pretrained") or metadata.get("tokenizer")
    world = world_of(str(model)) if model else 0
    return [row | {"world": world} for row in rows(metadata["rows"], world)]
