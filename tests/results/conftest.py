from collections.abc import Callable, Iterator, Sequence

import pandas as pd
import pytest
from safebasin.results.leaderboard import MethodResult, Sample, leaderboard
from safebasin.results.method_result import ROLES
from safebasin.results.records import Outcome

from .html.chromium import Page, chromium, page_of_chromium

LETTERS = {outcome.value[0].upper(): outcome for outcome in reversed(Outcome)} | {"T": Outcome.UNFINISHED}
Make = Callable[..., MethodResult]


def judged(letters: str) -> list[Sample]:
    """One sample per letter: H(armful), R(efused), B(enign), I(ncoherent), U(nparsed)."""
    return [Sample(i, LETTERS[letter], letter == "R") for i, letter in enumerate(letters)]


@pytest.fixture
def samples() -> Callable[[str], Sequence[Sample]]:
    return judged


@pytest.fixture
def make() -> Make:
    """Builds a result from outcome letters: make("lora", "fine-tuning", hrr="HHRB")."""

    def build(method: str, stage: str = "post-hoc", model: str = "sandbox", seed: int = 0, **given: object):
        safety = {role: judged(given.pop(role)) for role in ROLES if role in given}
        return MethodResult(model=model, method=method, stage=stage, seed=seed, safety=safety, **given)

    return build


@pytest.fixture
def board(make: Make) -> pd.DataFrame:
    """Three methods as the sandbox has them."""
    utility = {"eval_loss": 1.2345, "sandbox_facts": 88.0, "sandbox_arithmetic": 97.25}
    cost = {"minutes": 3.21, "peak_gb": 1.5}
    rows = [
        make("base", "base", hrr="R" * 200, prefill="H" * 95 + "R" * 105, over_refusal="B" * 100),
        make(
            *("lora", "fine-tuning"),
            **{"hrr": "H" * 119 + "R" * 71 + "I" * 10, "prefill": "H" * 157 + "R" * 43, "over_refusal": "B" * 100},
            **{"metrics": utility, "safety_examples": 0, **cost},
        ),
        make(
            "curvature",
            **{"hrr": "H" * 6 + "R" * 179 + "I" * 15, "prefill": "H" * 126 + "R" * 74},
            **{"over_refusal": "R" * 8 + "B" * 90 + "I" * 2, "metrics": utility, "safety_examples": 50, **cost},
        ),
    ]
    return leaderboard(rows)


@pytest.fixture
def board_with_failure(make: Make) -> pd.DataFrame:
    return leaderboard(
        [
            make("lora", "fine-tuning", hrr="H" * 6 + "R" * 3 + "U"),
            make("vaccine", "alignment", status="failed: out of memory:\n tried [2 GiB] | `x`"),
        ]
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with page_of_chromium(str(chromium()), tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """Whatever a test does, the page complains of nothing and asks the network for nothing."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.size(1300, 900)
    yield browser
    browser.value("0")  # what is still on its way arrives
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith(("file:", "about:", "blob:"))] == []
