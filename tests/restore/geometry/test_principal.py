"""Principal components by inner products against a dense singular value decomposition."""

import numpy as np
import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.geometry.principal import principal_plane
from torch import Tensor


def vectors(count: int = 7, size: int = 40, far: float = 0.0) -> list[Tensor]:
    torch.manual_seed(0)
    spread = torch.logspace(0, -2, size)
    return list(torch.randn(count, size) * spread + far)


@pytest.mark.parametrize("far", [0.0, 30.0])
def test_the_plane_is_that_of_a_dense_svd(far: float) -> None:
    given = vectors(far=far)
    plane = principal_plane(given)
    dense = torch.stack(given).double().numpy()
    left, singular, right = np.linalg.svd(dense - dense.mean(0), full_matrices=False)
    assert plane.explained == pytest.approx(tuple(singular[:2] ** 2 / (singular**2).sum()), rel=1e-4)
    assert plane.origin.numpy() == pytest.approx(dense.mean(0), rel=1e-5, abs=1e-6)
    found, known = plane.coordinates(given), left[:, :2] * singular[:2]
    for axis in range(2):
        sign = np.sign(plane.axes[axis].numpy() @ right[axis])
        assert plane.axes[axis].numpy() == pytest.approx(sign * right[axis], abs=1e-4)
        assert found[:, axis] == pytest.approx(sign * known[:, axis], abs=1e-4)
        assert found[np.abs(found[:, axis]).argmax(), axis] > 0
    rest = np.sqrt(((left[:, 2:] * singular[2:]) ** 2).sum(1))
    assert plane.distances(given) == pytest.approx(rest, rel=1e-3)


def test_axes_are_orthonormal_and_coordinates_lead_back() -> None:
    given = vectors()
    plane = principal_plane(given)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2), atol=1e-5, rtol=0)
    for (a, b), distance, vector in zip(plane.coordinates(given), plane.distances(given), given, strict=True):
        assert float((plane.at(a, b) - vector).norm()) == pytest.approx(distance, rel=1e-4)
        assert plane.coordinates([plane.at(a, b)])[0] == pytest.approx([a, b], abs=1e-5)


def test_three_vectors_lie_in_their_plane() -> None:
    given = vectors(3)
    plane = principal_plane(given)
    assert sum(plane.explained) == pytest.approx(1)
    assert plane.distances(given) == pytest.approx([0, 0, 0], abs=1e-5)


@pytest.mark.parametrize("count", [2, 5])
def test_what_lies_on_a_line_spans_no_plane(count: int) -> None:
    step = torch.arange(6.0)
    with pytest.raises(InputError, match="lie on a line"):
        principal_plane([number * step for number in range(count)])
    with pytest.raises(InputError, match="lie on a line"):
        principal_plane([step] * count)
