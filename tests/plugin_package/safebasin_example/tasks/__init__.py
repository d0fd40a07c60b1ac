"""An lm-eval task whose requests are made up on the spot."""

from typing import Any

__all__ = ["load"]


def load(**metadata: Any) -> dict[str, Any]:
    """The requests, as lm-eval's `custom_dataset` wants them."""
    from datasets import Dataset

    rows = [{"prompt": f"please do {i}", "target": "yes"} for i in range(int(metadata["rows"]))]
    return {"test": Dataset.from_list(rows)}
