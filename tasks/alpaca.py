"""Alpaca (Taori et al. 2023), the second fine-tuning task; its parts are those of `instructions`."""

from .hub import HubData
from .instructions import Instructions

__all__ = ["ALPACA", "alpaca_rows", "load"]

ALPACA = Instructions(
    name="alpaca",
    hub=HubData(
        "tatsu-lab/alpaca",
        "dce01c9b08f87459cf36a430d809084718273017",
        'Give alpaca_data.json as --metadata \'{"alpaca_json": "/path"}\' or in $SAFEBASIN_ALPACA_JSON.',
    ),
    columns=("instruction", "input", "output"),
    key="alpaca_json",
    variable="SAFEBASIN_ALPACA_JSON",
)
alpaca_rows = ALPACA.rows
load = ALPACA.load
