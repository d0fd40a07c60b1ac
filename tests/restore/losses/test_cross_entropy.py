import pytest
import torch
from safebasin.restore.losses import cross_entropy
from safebasin.restore.losses.cross_entropy import token_losses
from torch import Tensor
from torch.nn import functional


def both(logits: Tensor, targets: Tensor, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Losses and gradients, ours and those of float64."""
    made = []
    for function, given in (
        (token_losses, logits),
        (lambda x, t: functional.cross_entropy(x, t, reduction="none"), logits.double()),
    ):
        leaf = given.clone().requires_grad_()
        losses = function(leaf, targets)
        (losses * weights.to(losses.dtype)).sum().backward()
        made.append((losses.detach(), leaf.grad))
    return made  # type: ignore[return-value]


@pytest.mark.parametrize("chunk", [1, 40, 1 << 20])
@pytest.mark.parametrize(("kind", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_it_is_the_cross_entropy(
    monkeypatch: pytest.MonkeyPatch, chunk: int, kind: torch.dtype, error: float, spread: float
) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    torch.manual_seed(0)
    logits, targets, weights = spread * torch.randn(7, 13), torch.randint(13, (7,)), torch.rand(7)
    (losses, gradient), (right, slope) = both(logits.to(kind), targets, weights)
    assert losses.dtype == torch.float32
    assert gradient.dtype == kind
    torch.testing.assert_close(losses.double(), right, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient.double(), slope, rtol=error, atol=1e-7)


def test_nothing_of_the_size_of_the_logits_is_kept_but_the_logits() -> None:
    logits, kept = torch.randn(5, 11, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        token_losses(logits, torch.zeros(5, dtype=torch.long))
    assert [tensor.data_ptr() for tensor in kept if tensor.numel() > 5] == [logits.data_ptr()]
