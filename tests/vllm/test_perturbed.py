"""A sweep through weight space answers in vLLM as it does in transformers, and leaves the weights as they were."""

from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from safebasin.harness.store.store import Store
from safebasin.tasks.perturbation import KEY, Perturbation

from .asking import TEXTS, generation
from .conftest import Checkpoints

POINTS = [Perturbation(0, 0.0), Perturbation(0, 0.2), Perturbation(1, -0.3), Perturbation(1, 0.2)]


def sweep(target: Any, checkpoint: Path | None, store: Path) -> tuple[list[str], list[float]]:
    """Answers and log-likelihoods at all points, in mixed order, and where nothing is moved."""
    asked = [generation(text, **({KEY: point.text} if point else {})) for text in TEXTS for point in [*POINTS, None]]
    pairs = [Instance("loglikelihood", {}, (text, " yes", {KEY: p.text}), 0) for text in TEXTS for p in POINTS]
    with target.serving(checkpoint, {}, Store(store), lambda *_: None) as engine:
        assert engine.can_perturb
        return engine.generate_until(asked), [logprob for logprob, _ in engine.loglikelihood(pairs)]


@pytest.mark.parametrize("name", [None, "rslora", "full"])
def test_a_sweep_agrees_with_transformers(
    targets: dict[str, Any], checkpoints: Checkpoints, tmp_path: Path, name: str | None
) -> None:
    folder = checkpoints[name] if name else None
    (ours, scores), (theirs, wanted) = (sweep(targets[kind], folder, tmp_path / kind) for kind in ("vllm", "hf"))
    assert sum(a != b for a, b in zip(ours, theirs, strict=True)) == 0
    assert scores == pytest.approx(wanted, abs=1e-3)
    per_text = [ours[i : i + 5] for i in range(0, len(ours), 5)]
    assert all(origin == plain for origin, *_, plain in per_text)  # alpha 0 is the checkpoint itself
    assert any(len(set(found)) == 4 for found in per_text)


def test_weights_are_the_checkpoints_again_within_and_the_bases_after(
    targets: dict[str, Any], checkpoints: Checkpoints, tmp_path: Path
) -> None:
    target = targets["vllm"]
    with target.serving(checkpoints["plain"], {}, Store(tmp_path / "s"), lambda *_: None) as engine:
        merged = engine._call("safebasin_digest")
        engine.move(POINTS[1])
        assert engine._call("safebasin_digest") != merged
        engine.move(None)
        assert engine._call("safebasin_digest") == merged
        engine.move(POINTS[2])
    assert engine._call("safebasin_digest") == engine._digest
