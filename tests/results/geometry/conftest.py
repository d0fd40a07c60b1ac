from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safebasin.restore.geometry.tables import correlations, means

MODELS = ("base", "tuned", "iteration 1", "iteration 2", "restored", "unrelated")


@pytest.fixture(scope="session")
def losses() -> pd.DataFrame:
    """Losses of a pair, a restored model and an unrelated one, on two sets."""
    draw, rows = np.random.default_rng(0), []
    for name, targets in (("harmful", ("prompt", "refusal", "prompt+pads")), ("<b>task", ("answer",))):
        for target in targets:
            base = draw.normal(4, 1, 12)
            for model in MODELS:
                own = base if model == "base" else base + draw.normal(0, 1, 12)
                for row, loss in enumerate(own):
                    about = {"set": name, "target": target, "model": model}
                    rows.append({**about, "row": row, "tokens": 5 + row % 4, "loss": float(loss)})
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def tables(losses: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return losses, means(losses), correlations(losses)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the charts' library is kept; bundled once in all tests."""
    return tmp_path_factory.mktemp("library")
