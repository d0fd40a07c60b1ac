"""Requests that carry a perturbation: answered by moved weights, grouped by them, kept apart in the store."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.models.huggingface import HFLM
from safebasin.errors import InputError
from safebasin.harness.engines.hf import HFEngine
from safebasin.harness.engines.perturbation import Perturber
from safebasin.harness.store.store import Store
from safebasin.restore.models.loading import load_base, load_tokenizer
from safebasin.tasks.perturbation import Perturbation

from ...conftest import TinyChatModel

PROMPTS = ["<s>one", "<s>a longer prompt", "<s>three"]
POINTS = [Perturbation(0, -0.4), Perturbation(0, 0.0), Perturbation(0, 0.4), Perturbation(1, 0.4)]
SETTINGS = {"until": [], "max_gen_toks": 6, "do_sample": False}


@pytest.fixture(scope="module")
def target(tiny_chat_model: TinyChatModel) -> tuple[Any, Any]:
    folder = str(tiny_chat_model())
    return load_base(folder), load_tokenizer(folder)


@pytest.fixture
def engine(target: tuple[Any, Any], tmp_path: Path) -> HFEngine:
    return HFEngine(*target, {"weights": "w"}, Store(tmp_path / "store.sqlite"), batch_size=8)


def generation(text: str, at: Perturbation | None, idx: int = 0) -> Instance:
    settings: dict[str, Any] = {**SETTINGS, "perturbation": at.text} if at else SETTINGS
    return Instance("generate_until", {}, (text, settings), idx)


def scoring(text: str, at: Perturbation | None) -> Instance:
    return Instance("loglikelihood", {}, (text, " yes", {"perturbation": at.text}) if at else (text, " yes"), 0)


def swept(make: Any) -> list[Instance]:
    """As lm-eval lists them: all points of one prompt, then those of the next."""
    return [make(text, point) for text in PROMPTS for point in POINTS]


def by_hand(target: tuple[Any, Any], at: Perturbation) -> HFLM:
    model = copy.deepcopy(target[0])
    Perturber(model).move(at)
    return HFLM(pretrained=model, tokenizer=target[1], batch_size=1)


def test_generations_are_those_of_the_moved_model(engine: HFEngine, target: tuple[Any, Any]) -> None:
    answers = engine.generate_until(swept(generation))
    assert len(set(answers)) > len(PROMPTS)
    for i, point in enumerate(POINTS):
        expected = by_hand(target, point).generate_until([generation(t, None) for t in PROMPTS], disable_tqdm=True)
        assert answers[i :: len(POINTS)] == expected


def test_log_likelihoods_are_those_of_the_moved_model(engine: HFEngine, target: tuple[Any, Any]) -> None:
    answers = [logprob for logprob, _ in engine.loglikelihood(swept(scoring))]
    for i, point in enumerate(POINTS):
        expected = by_hand(target, point).loglikelihood([scoring(t, None) for t in PROMPTS], disable_tqdm=True)
        assert answers[i :: len(POINTS)] == pytest.approx([logprob for logprob, _ in expected], rel=1e-4)


def test_a_sweep_moves_once_to_each_point(engine: HFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[Perturbation | None] = []
    move = engine._perturber.move

    def noting(to: Perturbation | None) -> None:
        moves.append(to)
        move(to)

    monkeypatch.setattr(engine._perturber, "move", noting)
    engine.generate_until(swept(generation))
    assert moves == [*POINTS, None]


def test_the_store_keeps_points_apart_and_the_origin_once(engine: HFEngine) -> None:
    engine.generate_until([generation("<s>one", None)])
    engine.generate_until([generation("<s>one", point, idx) for idx, point in enumerate(POINTS)])
    assert sum(engine._store.counts().values()) == 1 + len(POINTS)
    engine.generate_until([generation("<s>one", Perturbation(direction, 0.0), direction) for direction in range(5)])
    assert sum(engine._store.counts().values()) == 1 + len(POINTS)


def test_lm_evals_cache_is_not_poisoned(engine: HFEngine, tmp_path: Path) -> None:
    cached = CachingLM(engine, str(tmp_path / "cache.db"))
    moved = [
        cached.generate_until([generation(PROMPTS[0], POINTS[2])]),
        cached.loglikelihood([scoring("<s>one", POINTS[2])]),
    ]
    still = [cached.generate_until([generation(PROMPTS[0], None)]), cached.loglikelihood([scoring("<s>one", None)])]
    assert moved[0] != still[0]
    assert moved[1][0][0] != still[1][0][0]


def test_weights_are_back_after_a_sweep_and_after_a_failure(
    engine: HFEngine, target: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: tensor.clone() for name, tensor in target[0].state_dict().items()}
    generate = engine._model_generate

    def failing(context: Any, **arguments: Any) -> Any:
        if engine._perturber._at == POINTS[2]:
            raise KeyboardInterrupt
        return generate(context=context, **arguments)

    monkeypatch.setattr(engine, "_model_generate", failing)
    with pytest.raises(KeyboardInterrupt):
        engine.generate_until(swept(generation))
    assert all(torch.equal(tensor, before[name]) for name, tensor in target[0].state_dict().items())
    assert sum(engine._store.counts().values()) == 2 * len(PROMPTS)  # what was answered before is kept


def test_what_is_no_perturbation_is_refused(engine: HFEngine) -> None:
    request = Instance("generate_until", {}, ("<s>one", {**SETTINGS, "perturbation": '{"sigma": 1}'}), 0)
    with pytest.raises(InputError, match="is no perturbation"):
        engine.generate_until([request])
