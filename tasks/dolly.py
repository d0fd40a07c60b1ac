"""Dolly-15k (Conover et al. 2023), the fine-tuning task of the paper; its parts are those of `instructions`."""

from .hub import HubData
from .instructions import Instructions

__all__ = ["DOLLY", "dolly_rows", "load"]

DOLLY = Instructions(
    name="dolly",
    hub=HubData(
        "databricks/databricks-dolly-15k",
        "bdd27f4d94b9c1f951818a7da7fd7aeea5dbff1a",
        'Give databricks-dolly-15k.jsonl as --metadata \'{"dolly_jsonl": "/path"}\' or in $SAFEBASIN_DOLLY_JSONL.',
    ),
    columns=("instruction", "context", "response"),
    key="dolly_jsonl",
    variable="SAFEBASIN_DOLLY_JSONL",
)
dolly_rows = DOLLY.rows
load = DOLLY.load
