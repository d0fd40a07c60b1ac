"""The engine answers as lm-eval's HFLM does, once, and refuses prompts that are not what they should be."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from safebasin.errors import InputError
from safebasin.harness.engines.hf import HFEngine
from safebasin.harness.engines.kv_cache import GrowingLayer
from safebasin.harness.store.store import Store
from safebasin.restore.models.loading import load_base, load_tokenizer

from ...conftest import TinyChatModel

SETTINGS = {"until": [], "max_gen_toks": 6, "do_sample": False}


@pytest.fixture(scope="module")
def target(tiny_chat_model: TinyChatModel) -> tuple[Any, Any]:
    folder = str(tiny_chat_model())
    return load_base(folder), load_tokenizer(folder)


@pytest.fixture
def engine(target: tuple[Any, Any], tmp_path: Path) -> HFEngine:
    return HFEngine(*target, {"weights": "w"}, Store(tmp_path / "store.sqlite"), batch_size=2)


def request(text: str, doc: dict[str, Any] | None = None, **settings: Any) -> Instance:
    return Instance("generate_until", doc or {}, (text, {**SETTINGS, **settings}), 0)


PROMPTS = ["<s>one", "<s>a longer prompt", "<s>three", "<s>one"]


def test_answers_are_those_of_lm_eval(engine: HFEngine, target: tuple[Any, Any]) -> None:
    plain = HFLM(pretrained=target[0], tokenizer=target[1], batch_size=1)
    asked = [request(text) for text in PROMPTS]
    assert engine.generate_until(asked) == plain.generate_until(asked, disable_tqdm=True)
    pairs = [Instance("loglikelihood", {}, (text, " yes"), 0) for text in PROMPTS]
    ours, theirs = engine.loglikelihood(pairs), plain.loglikelihood(pairs, disable_tqdm=True)
    assert [logprob for logprob, _ in ours] == pytest.approx([logprob for logprob, _ in theirs], rel=1e-4)


def test_what_is_stored_is_not_generated_again(engine: HFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = engine.generate_until([request(text) for text in PROMPTS[:2]])
    made: list[int] = []
    generate = engine._model_generate

    def counting(context: Any, **arguments: Any) -> Any:
        made.append(len(context))
        return generate(context=context, **arguments)

    monkeypatch.setattr(engine, "_model_generate", counting)
    again = engine.generate_until([request(text) for text in PROMPTS])
    assert again[:2] == first
    assert again[3] == first[0]  # the same prompt twice is one generation
    assert made == [1]


def test_other_weights_and_settings_have_other_answers(target: tuple[Any, Any], engine: HFEngine) -> None:
    engine.generate_until([request("<s>one")])
    other = HFEngine(*target, {"weights": "v"}, engine._store, batch_size=2)
    other.generate_until([request("<s>one")])
    engine.generate_until([request("<s>one", max_gen_toks=3)])
    assert sum(engine._store.counts().values()) == 3


@pytest.mark.parametrize(
    ("text", "doc", "settings", "said"),
    [
        ("<s><s>one", {}, {}, "begins with two <s>"),
        ("<s>one Sure", {"prefix": "Sure,", "prefix_ids": [1, 2, 3]}, {}, "instead of the target's"),
        ("<s>" + "long " * 500, {}, {}, "positions"),
        ("<s>one", {}, {"max_gen_toks": 5000}, "positions"),
    ],
)
def test_a_wrong_prompt_is_refused(
    engine: HFEngine, text: str, doc: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        engine.generate_until([request(text, doc, **settings)])


def test_a_tokenizer_without_a_chat_template_is_refused(target: tuple[Any, Any], tmp_path: Path) -> None:
    import copy

    tokenizer = copy.deepcopy(target[1])
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        HFEngine(target[0], tokenizer, {}, Store(tmp_path / "s.sqlite"), batch_size=1)


def test_samples_of_one_prompt_are_drawn_anew(engine: HFEngine) -> None:
    """lm-eval asks for several with one and the same request object."""
    sampled = request("<s>one", do_sample=True, temperature=5.0)
    torch.manual_seed(0)
    first = engine.generate_until([sampled] * 6)
    assert len(set(first)) > 1
    assert engine.generate_until([sampled] * 6) == first, "and come from the store the next time"


def test_a_continuation_without_a_context(engine: HFEngine, target: tuple[Any, Any]) -> None:
    plain = HFLM(pretrained=target[0], tokenizer=target[1], batch_size=1)
    asked = [Instance("loglikelihood", {}, ("", "yes"), 0)]
    ((ours, _),), ((theirs, _),) = engine.loglikelihood(asked), plain.loglikelihood(asked, disable_tqdm=True)
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_keys_and_values_grow_in_place(engine: HFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    grown: list[int] = []
    update = GrowingLayer.update

    def counting(layer: GrowingLayer, keys: Any, values: Any, *more: Any, **settings: Any) -> Any:
        grown.append(keys.shape[-2])
        return update(layer, keys, values, *more, **settings)

    monkeypatch.setattr(GrowingLayer, "update", counting)
    engine.generate_until([request("<s>one")])
    assert grown.count(1) > 1


@pytest.mark.parametrize("opening", ["<think>\n", ""])
def test_an_answer_that_is_begun_opens_as_every_other(target: tuple[Any, Any], tmp_path: Path, opening: str) -> None:
    """Also where the template opens a block of thinking for an answer that is to come alone."""
    model, tokenizer = target
    own = copy.deepcopy(tokenizer)
    own.chat_template = own.chat_template.removesuffix("{% endif %}") + "{{ " + repr(opening) + " }}{% endif %}"
    engine = HFEngine(model, own, {}, Store(tmp_path / "store.sqlite"), batch_size=2)
    asked = [{"role": "user", "content": "ask"}]
    ready = engine.apply_chat_template(asked)
    assert ready.endswith(opening)
    begun = engine.apply_chat_template([*asked, {"role": "assistant", "content": "Sure"}], add_generation_prompt=False)
    assert begun == f"{ready}Sure"
