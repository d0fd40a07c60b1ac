"""Pairs of verdicts: one replica is the plain paired test, several are the hierarchical bootstrap."""

import numpy as np
import pytest
from safebasin.errors import InputError
from safebasin.results.comparison import paired
from safebasin.results.hierarchy import Resampling, compare
from safebasin.results.statistics import mcnemar_exact, paired_difference

RANDOM = np.random.default_rng(0)


def verdicts(share: float, n: int = 60) -> list[bool | None]:
    return [bool(x) for x in RANDOM.random(n) < share]


def test_one_replica_is_the_exact_test_and_newcombes_interval() -> None:
    a, b = [*verdicts(0.5)[:-1], None], verdicts(0.2)
    found = paired({("m", 0): (a, b)})
    (replica,) = found.replicas
    assert (replica.difference, replica.p) == (paired_difference(a, b), mcnemar_exact(a, b))
    assert (replica.a.k, replica.a.unparsed, replica.b.k) == (a.count(True), 1, b.count(True))
    assert found.overall is None


@pytest.mark.parametrize(("models", "seeds", "unit"), [("uvw", (0, 1), "world"), ("u", (0, 1, 2, 3), "fine-tuning")])
def test_several_are_the_hierarchical_bootstrap(models: str, seeds: tuple[int, ...], unit: str) -> None:
    pairs = {(model, seed): (verdicts(0.5), verdicts(0.3)) for model in models for seed in seeds}
    arrays = [np.array([[pairs[m, s][side] for s in seeds] for m in models]) * 100.0 for side in (0, 1)]
    if len(models) == 1:
        arrays = [each.swapaxes(0, 1) for each in arrays]
    found = paired(pairs)
    expected = compare(*((each, each) for each in arrays), Resampling(*arrays[0].shape[:2]))
    assert (found.overall, found.unit) == (expected, unit)
    assert found.overall is not None
    assert found.overall.value == pytest.approx(np.mean([each.difference.value for each in found.replicas]))


def test_of_one_model_the_fine_tunings_are_the_units_of_the_test() -> None:
    found = paired({("m", seed): ([True] * 9 + [False], [False] * 10) for seed in range(5)})
    assert found.overall is not None
    assert found.overall.p_worlds == 2 / 2**5


def test_what_is_no_grid_is_refused() -> None:
    pair = (verdicts(0.5), verdicts(0.5))
    with pytest.raises(InputError, match="v, seed 1 is missing"):
        paired({("u", 0): pair, ("u", 1): pair, ("v", 0): pair})
    with pytest.raises(InputError, match="from 30 to 60 prompts"):
        paired({("u", 0): pair, ("u", 1): (verdicts(0.5, 30), verdicts(0.5, 30))})
