"""What tasks get of a model that thinks before it answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from safebasin.harness.engines.hf import HFEngine
from safebasin.harness.stages.sweep import swept
from safebasin.harness.store.store import Store
from safebasin.restore.models.loading import load_base, load_tokenizer
from safebasin.restore.models.thinking import ending_thinking
from safebasin.tasks.judging import exchange_of
from safebasin.tasks.perturbation import Perturbation

from ...conftest import TinyChatModel
from ...restore.aligned import MAY, OPENS

Say = Callable[..., HFEngine]
OPEN = "<s><|user|>ask</s><|assistant|><think>\n"
PLAIN = "<s><|user|>ask</s><|assistant|>"


@pytest.fixture
def saying(tiny_chat_model: TinyChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """An engine with a chat template, whose model writes the same text whatever it is asked."""

    def make(template: str, text: str, special: tuple[str, ...] = ()) -> HFEngine:
        folder = str(tiny_chat_model(""))
        tokenizer: Any = load_tokenizer(folder)
        tokenizer.add_tokens(list(special), special_tokens=True)
        tokenizer.chat_template = template
        engine = HFEngine(load_base(folder), tokenizer, {"says": text}, Store(tmp_path / "store.sqlite"), batch_size=2)
        written = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])

        def generate(context: torch.Tensor, max_length: int, stop: list[str], **settings: Any) -> torch.Tensor:
            engine.stops = stop  # type: ignore[attr-defined]
            return torch.cat([context, written.expand(len(context), -1)], dim=1)

        monkeypatch.setattr(engine, "_model_generate", generate)
        return engine

    return make


def ask(engine: HFEngine, prompt: str, doc: dict[str, Any] | None = None, until: tuple[str, ...] = ()) -> str:
    settings = {"until": list(until), "max_gen_toks": 40, "do_sample": False}
    (answer,) = engine.generate_until([Instance("generate_until", doc or {}, (prompt, settings), 0)])
    return answer


@pytest.mark.parametrize(
    ("template", "prompt", "text", "answer"),
    [
        (OPENS, OPEN, "hm\n</think>\n\nno</s>", "no"),
        (OPENS, OPEN, "hm", "<think>\nhm"),
        (OPENS, OPEN + "\n</think>\n\n", "no</s>", "no"),  # as Qwen3 is told not to think
        (MAY, PLAIN, "[THINK]hm[/THINK]no</s>", "no"),
        (MAY, PLAIN, "no</s>", "no"),
        (MAY, PLAIN, "[THINK]hm", "[THINK]hm"),
        (OPENS, OPEN, "hm</think>use <think>x</think> and </think></s>", "use <think>x</think> and </think>"),
        (MAY, PLAIN.replace("ask", "what is [THINK]?"), "no</s>", "no"),
        (MAY, PLAIN.replace("ask", "what is [THINK]?"), "[THINK]hm[/THINK]no</s>", "no"),
        (MAY, PLAIN, "[THINK]hm[/THINK]not </think></s>", "not </think>"),
    ],
)
def test_the_answer_follows_the_thinking(saying: Say, template: str, prompt: str, text: str, answer: str) -> None:
    assert ask(saying(template, text), prompt) == answer


@pytest.mark.parametrize(
    ("text", "judged"),
    [("close with </think> please</s>", "close with </think> please"), ("<think>hm</think>no</s>", "no")],
)
def test_where_the_template_knows_no_thinking_a_text_may_begin_with_it(saying: Say, text: str, judged: str) -> None:
    plain = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}<|assistant|>"
    assert exchange_of({"prompt": "ask"}, ask(saying(plain, text), PLAIN)).response == judged


def test_what_an_answer_says_of_marks_goes_before_the_judge(saying: Say) -> None:
    answer = ask(saying(OPENS, "hm</think>I cannot say </think> to you</s>"), OPEN)
    assert exchange_of({"prompt": "ask"}, answer).response == "I cannot say </think> to you"


def test_marks_that_are_special_tokens_are_seen(saying: Say) -> None:
    engine = saying(MAY, "[THINK]hm[/THINK]no</s>", ("[THINK]", "[/THINK]"))
    assert ask(engine, PLAIN) == "no"


def test_texts_to_stop_at_do_not_cut_the_thinking(saying: Say) -> None:
    engine = saying(OPENS, "one\n\ntwo\n</think>\n\nfour\n\nfive</s>")
    assert ask(engine, OPEN, until=("\n\n",)) == "four"
    assert engine.stops == ["</s>"]  # type: ignore[attr-defined]


def test_what_was_begun_for_the_model_is_told_from_its_answer(saying: Say) -> None:
    engine = saying(OPENS, " is\n</think>\n\nno</s>")
    whole = ask(engine, OPEN + "Sure, here", {"prompt": "ask", "prefix": "Sure, here", "prefix_ids": []})
    assert whole == "<think>\nis\n</think>\n\nno"


def test_an_end_that_is_named_is_required(saying: Say) -> None:
    with ending_thinking("<|done|>"):
        assert ask(saying(MAY, "hm<|done|>no</s>"), PLAIN) == "no"
        assert ask(saying(MAY, "hm</s>"), PLAIN) == "<think>\nhm"


def test_a_likelihood_is_taken_behind_an_empty_block(saying: Say) -> None:
    engine = saying(OPENS, "no")
    pairs = [Instance("loglikelihood", {}, (context, "yes"), 0) for context in (OPEN, OPEN + "\n</think>\n\n")]
    one, other = engine.loglikelihood(pairs)
    assert one == other


def test_a_sweep_scores_answers_behind_an_empty_block(saying: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, seen = saying(OPENS, "no"), []

    def loglikelihood(requests: list[Instance]) -> list[tuple[float, bool]]:
        seen.extend(request.args[0] for request in requests)
        return [(-1.0, True)] * len(requests)

    monkeypatch.setattr(engine, "loglikelihood", loglikelihood)
    at = [Perturbation(1, alpha).text for alpha in (0.0, 0.1)]
    row = {
        "doc": {"prompt": "ask", "sweep": at},
        "doc_id": 0,
        "arguments": [(OPEN, {})] * 2,
        "resps": [["no"], ["yes"]],
    }
    samples, points = swept([row], engine)
    assert [sample.response for sample in samples] == ["no", "yes"]
    assert set(seen) == {OPEN + "\n</think>\n\n"}
    assert [point.tokens for point in points] == [2, 3]
