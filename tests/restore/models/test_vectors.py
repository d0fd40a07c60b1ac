from typing import Any

import pytest
import torch
from safebasin.restore.curvature.lbfgs import CurvatureHistory
from safebasin.restore.models import vectors
from safebasin.restore.models.vectors import combine, dot, dots
from torch.utils._python_dispatch import TorchDispatchMode

N = 1000


@pytest.fixture(params=[1, 7, 64, 1 << 20])
def chunk(request: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(vectors, "CHUNK", request.param)
    return int(request.param)


def test_inner_products_are_those_of_float64(chunk: int) -> None:
    torch.manual_seed(0)
    block, vector = torch.randn(3, N), torch.randn(N)
    block[:, 0], vector[0] = 1e8, 1e4  # next to which float32 would lose the rest
    expected = block.double() @ vector.double()
    assert dots(block, vector) == pytest.approx(expected.tolist(), rel=1e-14)
    assert dot(block[1], vector) == pytest.approx(float(expected[1]), rel=1e-14)
    assert dots(block[:0], vector) == []


def test_sums_are_those_of_float64(chunk: int) -> None:
    torch.manual_seed(0)
    given, weights = torch.randn(4, N), [1e7, 1.5, -1e7, 0.1]
    given[2] = given[0]  # cancels all but the rest
    expected = torch.tensor(weights, dtype=torch.float64) @ given.double()
    assert torch.allclose(combine(list(given), weights).double(), expected, rtol=1e-6, atol=1e-7)
    assert combine(list(given), weights).dtype == torch.float32


class LargestDouble(TorchDispatchMode):
    """Watches the sizes of the float64 tensors that are made."""

    largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
            self.largest = max(self.largest, made.numel())
        return made


def test_a_history_makes_no_long_vector_of_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "CHUNK", 32)
    torch.manual_seed(0)
    history = CurvatureHistory(3, N)
    with LargestDouble() as watched:
        for _ in range(4):
            history.add(torch.randn(N), torch.randn(N))
        history.inverse_product(torch.randn(N))
        history.product(torch.randn(N))
    assert len(history) == 3
    assert 0 < watched.largest <= 64


def test_the_pairs_lie_in_one_block_of_float32_from_the_start() -> None:
    history = CurvatureHistory(3, N)
    block = history._block
    for _ in range(5):
        history.add(torch.randn(N), torch.randn(N))
    assert history._block is block
    assert (block.dtype, block.numel() * block.element_size()) == (torch.float32, 8 * 3 * N)
