"""Landscapes against copies of the model, and what becomes of the weights."""

import copy
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.geometry.directions import direction_file, direction_like, gradient_of, moved_weights
from safebasin.restore.geometry.landscape import Plane, lines_of, walk
from safebasin.restore.geometry.row_losses import RowLosses
from safebasin.restore.geometry.structure import laplacian, percentiles, roughness, structure
from safebasin.restore.losses.cross_entropy import token_losses
from safebasin.restore.losses.encoding import Encoded, encode
from safebasin.restore.models.loading import load_base
from safebasin.restore.models.origin import TensorFile

from ...conftest import DEVICE
from .test_row_losses import naive

SEEDS = (1000, 2000)
PLANE = Plane(points=4, reach=0.05)


@pytest.fixture
def rows(tokenizer: Any) -> list[Encoded]:
    return [encode(tokenizer, f"say {'y' * i}", "yes" * (1 + i % 3)) for i in range(5)]


@pytest.fixture
def plain(base: Path) -> Any:
    return load_base(str(base), device=DEVICE)


@pytest.fixture
def directions(plain: Any, rows: list[Encoded]) -> TensorFile:
    gradient = gradient_of(plain, rows, 1, io_file())
    return direction_file(io_file(), moved_weights(plain), gradient, SEEDS, "tensor")


def io_file() -> Any:
    return tempfile.TemporaryFile()


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def draws(rows: list[Encoded]) -> dict[str, list[np.ndarray]]:
    return {"task": [np.arange(3), np.arange(3, len(rows))]}


def losses(model: Any, rows: list[Encoded]) -> dict[str, RowLosses]:
    return {"task": RowLosses(rows, 2, 1, model.device)}


def test_attention_and_mlp_weights_move_and_nothing_else(plain: Any) -> None:
    names = set(moved_weights(plain))
    assert len(names) == 2 * 7
    assert all(".self_attn." in name or ".mlp." in name for name in names)
    with pytest.raises(InputError, match="no weights"):
        moved_weights(torch.nn.Linear(2, 2))


def test_the_gradient_is_that_of_the_token_mean(plain: Any, rows: list[Encoded]) -> None:
    before = state(plain)
    found = gradient_of(plain, rows, 1, io_file())
    assert same(state(plain), before)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in plain.parameters())
    total = sum(
        torch.nn.functional.cross_entropy(
            plain(input_ids=torch.tensor([row.ids], device=plain.device)).logits[0, row.start - 1 : -1],
            torch.tensor(row.ids[row.start :], device=plain.device),
            reduction="sum",
        )
        for row in rows
    )
    (total / sum(row.targets for row in rows)).backward()
    for name, weight in moved_weights(plain).items():
        torch.testing.assert_close(found[name], weight.grad.cpu(), atol=1e-6, rtol=1e-4)


def test_the_gradient_of_many_tokens_survives_float16(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a mean over many tokens, each row's share would round to nothing; a thousandth stands for as many more."""
    monkeypatch.setattr("safebasin.restore.geometry.directions.token_losses", lambda *of: 1e-3 * token_losses(*of))
    rows = [Encoded(tuple(range(5, 14)), 4)] * 200
    exact, coarse = (
        gradient_of(load_base(str(base), dtype=dtype, device="cpu"), rows, 1, io_file())
        for dtype in ("float32", "float16")
    )
    for name in moved_weights(load_base(str(base), device="cpu")):
        one, two = exact[name].flatten(), coarse[name].flatten()
        assert torch.cosine_similarity(one, two, dim=0) > 0.999
        assert float(two.norm() / one.norm()) == pytest.approx(1, abs=0.01)


def test_directions_are_scaled_gradients_of_their_seed_and_as_long_as_the_weights(
    plain: Any, rows: list[Encoded]
) -> None:
    weights = moved_weights(plain)
    gradient = gradient_of(plain, rows, 1, io_file())
    raw = direction_file(io_file(), weights, gradient, SEEDS, "raw")
    name = next(iter(weights))
    key = int.from_bytes(hashlib.sha256(f"1000:{name}".encode()).digest()[:8]) >> 1
    scales = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(key))
    assert torch.equal(raw[f"1:{name}"], scales * gradient[name])
    made = direction_file(io_file(), weights, gradient, SEEDS, "tensor")
    for one, weight in weights.items():
        for number in (1, 2):
            assert float(made[f"{number}:{one}"].norm()) == pytest.approx(float(weight.norm()), rel=1e-5)
        cosine = torch.nn.functional.cosine_similarity(made[f"1:{one}"].flatten(), made[f"2:{one}"].flatten(), dim=0)
        assert abs(float(cosine)) < 0.5
    with pytest.raises(InputError, match="zero"):
        direction_file(io_file(), weights, {n: torch.zeros(w.shape) for n, w in weights.items()}, SEEDS, "raw")


def test_directions_are_read_again_from_their_file(plain: Any, directions: TensorFile, tmp_path: Path) -> None:
    weights = moved_weights(plain)
    with (tmp_path / "d").open("w+b") as file:
        TensorFile.written(file, directions.items())
    with (tmp_path / "d").open("rb") as file:
        again = TensorFile(file, direction_like(weights))
        assert all(torch.equal(again[name], directions[name]) for name in directions)


def by_copies(model: Any, directions: TensorFile, rows: list[Encoded], point: tuple[float, float]) -> list[float]:
    """The losses of both draws at a point, of a copy of the model, one row at a time."""
    moved = copy.deepcopy(model)
    moved = moved.merge_and_unload() if hasattr(moved, "merge_and_unload") else moved
    with torch.no_grad():
        for name, weight in moved_weights(moved).items():
            step = point[0] * directions[f"1:{name}"].double() + point[1] * directions[f"2:{name}"].double()
            weight.copy_((weight.double().cpu() + step).to(weight))
    own = [naive(moved, row) * row.targets for row in rows]
    counts = [row.targets for row in rows]
    return [sum(own[i] for i in draw) / sum(counts[i] for i in draw) for draw in draws(rows)["task"]]


@pytest.mark.parametrize("kind", ["plain", "model"])
def test_the_grid_is_that_of_copies_and_the_weights_come_back_bit_for_bit(
    kind: str, directions: TensorFile, rows: list[Encoded], request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    before, lines = state(model), dict(enumerate(lines_of(PLANE)))
    found = dict(walk(model, directions, losses(model, rows), draws(rows), lines))
    assert same(state(model), before)
    assert [*found] == [0, 1, 2, 3, 4, 5]
    for number, points in lines.items():
        for point, values in zip(points, found[number]["task"], strict=True):
            assert values == pytest.approx(by_copies(model, directions, rows, point), rel=2e-5)
    flat = [value[0] for line in range(4) for value in found[line]["task"]]
    assert max(flat) - min(flat) > 1e-3, "the surface is not flat"


def test_any_line_can_be_had_alone_with_the_same_bits(plain: Any, directions: TensorFile, rows: list[Encoded]) -> None:
    lines = dict(enumerate(lines_of(PLANE)))
    whole = dict(walk(plain, directions, losses(plain, rows), draws(rows), lines))
    alone = dict(walk(plain, directions, losses(plain, rows), draws(rows), {2: lines[2]}))
    assert alone == {2: whole[2]}


@pytest.mark.parametrize("kind", ["plain", "model"])
def test_whatever_ends_it_the_weights_come_back(
    kind: str, directions: TensorFile, rows: list[Encoded], request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    before, lines = state(model), dict(enumerate(lines_of(PLANE)))

    def stop(points: int) -> None:
        assert not same({n: t for n, t in state(model).items() if n in before}, before)
        if points == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(walk(model, directions, losses(model, rows), draws(rows), lines, stop))
    assert same(state(model), before)
    going = walk(model, directions, losses(model, rows), draws(rows), lines)
    next(going)
    assert not same(state(model), before)
    going.close()
    assert same(state(model), before)


def test_sixteen_bits_are_rounded_once(base: Path, rows: list[Encoded]) -> None:
    model = load_base(str(base), dtype="bfloat16", device=DEVICE)
    made = direction_file(io_file(), moved_weights(model), gradient_of(model, rows, 1, io_file()), SEEDS, "tensor")
    before, name = state(model), next(iter(moved_weights(model)))
    origin = moved_weights(model)[name].detach().cpu().double()
    exact = origin + 0.05 * made[f"1:{name}"].double() - 0.05 * made[f"2:{name}"].double()
    half = torch.ldexp(torch.ones_like(exact), torch.frexp(exact).exponent - 9)  # of a step of bfloat16

    def look(points: int) -> None:
        assert bool(((moved_weights(model)[name].detach().cpu().double() - exact).abs() <= 1.001 * half).all())

    list(walk(model, made, losses(model, rows), draws(rows), {0: [(0.05, -0.05)]}, look))
    assert same(state(model), before)


def test_points_are_twenty_by_twenty_and_the_sections_go_through_the_origin() -> None:
    lines = lines_of(Plane())
    assert [len(line) for line in lines] == [20] * 20 + [21, 21]
    assert lines[0][0] == (-0.01, -0.01)
    assert lines[19][19] == (0.01, 0.01)
    assert lines[20][10] == lines[21][10] == (0.0, 0.0)
    assert len(lines_of(Plane(points=5))[5]) == 5, "an odd grid has the origin"


def test_the_laplacian_of_a_paraboloid_is_exact_on_interior_points() -> None:
    x, y = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9), indexing="ij")
    assert laplacian(3 * x**2 + y**2 + 5 * x - x * y, 0.25) == pytest.approx(np.full((7, 7), 8.0))


def test_structure_sees_bending_alone_and_the_sign_is_not_lost() -> None:
    draw = np.random.default_rng(0)
    grid = draw.normal(size=(20, 20))
    tilted = 3 * grid + 7 + np.arange(20)
    assert structure(grid, tilted) == pytest.approx((0, 0, 1), abs=1e-9)
    assert structure(grid, -grid) == pytest.approx((200, 0, -1), abs=1e-9)
    other = draw.normal(size=(20, 20))
    inside = [(i, j) for i in range(1, 19) for j in range(1, 19)]
    bent = [
        [g[i - 1, j] + g[i + 1, j] + g[i, j - 1] + g[i, j + 1] - 4 * g[i, j] for i, j in inside] for g in (grid, other)
    ]
    known = np.corrcoef(*bent)[0, 1]
    assert structure(grid, other).r == pytest.approx(known)
    assert structure(grid, other).absolute == pytest.approx(100 * (1 - abs(known)))
    assert np.isnan(structure(grid, np.ones((20, 20))).r)


def test_rounding_is_rough_and_a_smooth_surface_is_not() -> None:
    x, y = np.meshgrid(np.linspace(-1, 1, 20), np.linspace(-1, 1, 20), indexing="ij")
    smooth = np.exp(0.5 * x - 0.3 * y) + x**2 * y
    assert roughness(smooth) < 0.1
    assert roughness(np.random.default_rng(0).normal(size=(20, 20))) > 85
    nearly_flat = (1.9 + 1e-5 * smooth).astype(np.float32).astype(np.float64)
    assert roughness(nearly_flat) > 50, "float32 does not resolve how it is bent"
    assert np.isnan(roughness(np.ones((20, 20))))


def test_percentiles_are_numpys_of_raw_and_absolute_differences() -> None:
    draw = np.random.default_rng(1)
    base, other = draw.normal(size=(2, 6, 6))
    found = percentiles(base, other)
    assert found["30th"] == (np.percentile(other - base, 30), np.percentile(abs(other - base), 30))
    assert found["std"] == pytest.approx(((other - base).std(ddof=1), abs(other - base).std(ddof=1)))
    assert found["mean"][0] == pytest.approx(other.mean() - base.mean())
