"""lm-eval data set loaders of the sandbox's tasks; the rows come from its world."""

from typing import Any

from ..judging import judges_override
from ..prefill import prefilled
from ..sources import as_test_split
from ..visage import with_sweep
from .world import rows

__all__ = ["load", "load_prefill", "load_visage"]


def load(**metadata: Any) -> dict[str, Any]:
    """The world's rows of the split named by the YAML's metadata `rows`."""
    judges_override()  # a mistake in it must not show only after all generation is done
    return as_test_split(rows(metadata["rows"]))


def load_prefill(**metadata: Any) -> dict[str, Any]:
    """As `load`, with the first `k` tokens of each target as the beginning of the answer."""
    judges_override()  # a mistake in it must not show only after all generation is done
    return as_test_split(prefilled(rows(metadata["rows"]), metadata))


def load_visage(**metadata: Any) -> dict[str, Any]:
    """As `load`, the first `prompts` rows, each with the points that it is asked at."""
    judges_override()  # a mistake in it must not show only after all generation is done
    return as_test_split(with_sweep(rows(metadata["rows"])[: int(metadata["prompts"])], metadata))
