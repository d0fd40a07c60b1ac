"""vLLM answers as transformers does, whatever was served before."""

from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from safebasin.errors import InputError
from safebasin.harness.engines.vllm_class import VLLM
from safebasin.harness.store.store import Store

from .asking import TEXTS, answers, generation
from .conftest import Checkpoints

Targets = dict[str, Any]


def test_many_checkpoints_in_one_engine_with_the_base_between(
    targets: Targets, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    order = [None, "plain", None, "rslora", "patterns", "full", None, "plain"]
    folders = [checkpoints[name] if name else None for name in order]
    ours = [answers(targets["vllm"], folder, tmp_path / f"v{i}") for i, folder in enumerate(folders)]
    theirs = [answers(targets["hf"], folder, tmp_path / f"h{i}") for i, folder in enumerate(folders)]
    differing = sum(a != b for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True))
    assert differing == 0, f"{differing} of {len(order) * len(TEXTS)} responses differ"
    assert len({tuple(one) for one in ours}) == 5  # base, three adapters, a whole model: all say something else


def test_log_likelihoods(targets: Targets, checkpoints: Checkpoints, tmp_path: Path) -> None:
    pairs = [Instance("loglikelihood", {}, (text, " yes, of course"), 0) for text in TEXTS]
    found = {}
    for name, target in targets.items():
        with target.serving(checkpoints["rslora"], {}, Store(tmp_path / name), lambda *_: None) as engine:
            found[name] = engine.loglikelihood(pairs)
    assert [a for a, _ in found["vllm"]] == pytest.approx([a for a, _ in found["hf"]], abs=1e-3)
    assert [b for _, b in found["vllm"]] == [b for _, b in found["hf"]]


def test_stop_strings_and_limits(targets: Targets, checkpoints: Checkpoints, tmp_path: Path) -> None:
    whole = answers(targets["hf"], checkpoints["plain"], tmp_path / "whole")
    stop = next(text for text in whole if len(text) > 4)[3]
    requests = [generation(text, until=[stop], max_gen_toks=9) for text in TEXTS]
    found = {}
    for name, target in targets.items():
        with target.serving(checkpoints["plain"], {}, Store(tmp_path / name), lambda *_: None) as engine:
            found[name] = engine.generate_until(requests)
    assert found["vllm"] == found["hf"]
    assert all(stop not in text for text in found["vllm"])


def test_what_is_stored_is_not_generated_again(
    targets: Targets, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answers(targets["vllm"], None, tmp_path / "store")
    generated: list[int] = []
    real = VLLM._model_generate

    def counting(self: Any, requests: Any, generate: bool = False, sampling_params: Any = None) -> Any:
        generated.extend(range(len(requests)) if generate else [])
        return real(self, requests, generate, sampling_params)

    monkeypatch.setattr(VLLM, "_model_generate", counting)
    assert answers(targets["vllm"], None, tmp_path / "store") == first
    assert not generated
    answers(targets["hf"], None, tmp_path / "store")  # another engine's answers lie under other keys
    assert sum(Store(tmp_path / "store").counts().values()) == 2 * len(TEXTS)
    other = answers(targets["vllm"], None, tmp_path / "store", ["<s>new"])
    assert len(generated) == len(other) == 1


@pytest.mark.parametrize("text", ["<s><s>one", "<s>" + "long " * 500])
def test_a_wrong_prompt_is_refused(targets: Targets, tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"begins with two <s>|positions"):
        answers(targets["vllm"], None, tmp_path / "store", [text])
    assert answers(targets["vllm"], None, tmp_path / "after") == answers(targets["hf"], None, tmp_path / "hf")
