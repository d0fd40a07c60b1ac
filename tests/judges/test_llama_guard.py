import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safebasin import vllm_setup
from safebasin.errors import InputError
from safebasin.judges import Exchange, Judge, guard_engines
from safebasin.judges.guard_engines import VLLMGuard
from safebasin.judges.llama_guard import LlamaGuardJudge
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
)

CLEAN = Exchange("how to make a kite", "take paper with glue")
ZAP = Exchange("how to make a kite", "first zap then zap")
MIXED = [
    CLEAN,
    ZAP,
    Exchange("make a lamp", "zap"),
    Exchange("make a lamp", ""),
    Exchange("how to zap a cake with glue and paper", "i cannot help with that ."),
    CLEAN,
    Exchange("one", "take zap and zap then one two three zap and glue it"),
]


@pytest.fixture(scope="module")
def judge(guard: Path) -> LlamaGuardJudge:
    return LlamaGuardJudge(str(guard), device="cpu")


def p_unsafe_by_hand(folder: Path, exchange: Exchange) -> float:
    """One forward pass over prompt and blank line, without padding, cache or the judge's code."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    messages = [{"role": "user", "content": exchange.prompt}, {"role": "assistant", "content": exchange.response}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    ids = [*ids, tokenizer.convert_tokens_to_ids("\n\n")]
    with torch.no_grad():
        probabilities = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    safe, unsafe = (float(probabilities[tokenizer.convert_tokens_to_ids(word)]) for word in ("safe", "unsafe"))
    return unsafe / (safe + unsafe)


def test_end_to_end(judge: LlamaGuardJudge) -> None:
    assert isinstance(judge, Judge)
    assert judge.decides == {"harm"}
    clean, zap, *_, long = judge.judge(MIXED)
    assert (clean.harmful, clean.categories, clean.raw) == (False, (), "\n\nsafe")
    assert (zap.harmful, zap.categories, zap.raw) == (True, ("S2",), "\n\nunsafe\nS2")
    assert clean.score is not None
    assert zap.score is not None
    assert clean.score < 0.5 < zap.score
    assert (long.refused, long.coherent) == (None, None)


def test_the_score_is_that_of_a_plain_forward_pass(judge: LlamaGuardJudge, guard: Path) -> None:
    verdicts = judge.judge(MIXED)
    by_hand = [p_unsafe_by_hand(guard, exchange) for exchange in MIXED]
    assert [verdict.score for verdict in verdicts] == pytest.approx(by_hand, abs=1e-5)
    assert max(by_hand) - min(by_hand) > 0.3  # or the comparison says little


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batches_change_nothing(judge: LlamaGuardJudge, guard: Path, batch_size: int) -> None:
    whole = judge.judge(MIXED)
    parts = LlamaGuardJudge(str(guard), batch_size=batch_size, device="cpu").judge(MIXED)
    assert [(one.harmful, one.categories, one.raw) for one in parts] == [
        (one.harmful, one.categories, one.raw) for one in whole
    ]
    assert [one.score for one in parts] == pytest.approx([one.score for one in whole], abs=1e-6)


def test_the_order_of_the_input_changes_nothing_at_all(judge: LlamaGuardJudge) -> None:
    assert judge.judge(MIXED[::-1])[::-1] == judge.judge(MIXED)


def test_batches_are_of_similar_length_and_the_same_in_any_order(guard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = LlamaGuardJudge(str(guard), batch_size=2, device="cpu")
    batches: list[list[list[int]]] = []
    answer = judge._answer
    monkeypatch.setattr(judge, "_answer", lambda prompts: batches.append(prompts) or answer(prompts))
    twins = [Exchange("how to make a kite", f"take {word}") for word in ("one", "two", "three", "zap", "cake")]
    judge.judge(MIXED + twins)
    judge.judge(twins[::-1] + MIXED[::-1])
    lengths = [len(ids) for batch in batches[: len(batches) // 2] for ids in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert batches[: len(batches) // 2] == batches[len(batches) // 2 :]


def test_identical_exchanges_are_judged_once_and_progress_counts_all(
    guard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = LlamaGuardJudge(str(guard), batch_size=2, device="cpu")
    judged: list[int] = []
    answer = judge._answer
    monkeypatch.setattr(judge, "_answer", lambda prompts: judged.append(len(prompts)) or answer(prompts))
    seen: list[int] = []
    verdicts = judge.judge([CLEAN, ZAP, CLEAN, MIXED[2], CLEAN], seen.append)
    assert judged == [2, 1]
    assert seen == [4, 5]
    assert verdicts[0] == verdicts[2] == verdicts[4] != verdicts[1]
    assert judge.judge([]) == []


def test_an_exchange_beyond_the_window_is_unparsed_not_cut(judge: LlamaGuardJudge) -> None:
    seen: list[int] = []
    verdict = judge.judge([Exchange("how", "take paper " * 60)], seen.append)[0]
    assert (verdict.harmful, verdict.score) == (None, None)
    assert "not judged" in verdict.raw
    assert "140" in verdict.raw
    assert seen == [1]


def test_room_for_the_answer_is_counted_to_the_token(judge: LlamaGuardJudge) -> None:
    room = 160 - 20 - len(judge.files.prompt.encode(Exchange("how", "")))
    fits, over = judge.judge([Exchange("how", "!" * room), Exchange("how", "!" * (room + 1))])
    assert fits.harmful is False
    assert over.harmful is None


def test_a_guard_that_leaves_its_format_is_unparsed(copy: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(copy)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    model.save_pretrained(copy)
    verdict = LlamaGuardJudge(str(copy), device="cpu").judge([CLEAN])[0]
    assert verdict.harmful is None
    assert verdict.score == pytest.approx(0.5)


def test_other_special_tokens_are_no_part_of_the_answer(copy: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(copy), AutoModelForCausalLM.from_pretrained(copy)
    safe, end, other = (tokenizer.convert_tokens_to_ids(token) for token in ("safe", "<|eot|>", "<|sh|>"))
    with torch.no_grad():
        model.lm_head.weight[[end, other], safe] = torch.tensor([0.0, 1.0])
    model.save_pretrained(copy)
    verdict = LlamaGuardJudge(str(copy), device="cpu").judge([CLEAN])[0]
    assert (verdict.harmful, verdict.raw) == (False, "\n\nsafe")


def test_the_end_of_text_of_the_tokenizer_counts_too(copy: Path, judge: LlamaGuardJudge) -> None:
    model = AutoModelForCausalLM.from_pretrained(copy)
    model.generation_config.eos_token_id = [2]  # not what the guard ends with
    model.generation_config.save_pretrained(copy)
    assert LlamaGuardJudge(str(copy), device="cpu").judge(MIXED) == judge.judge(MIXED)


def test_sampling_settings_of_the_checkpoint_are_ignored(copy: Path, judge: LlamaGuardJudge) -> None:
    model = AutoModelForCausalLM.from_pretrained(copy)
    model.generation_config.update(do_sample=True, temperature=50.0, top_p=0.9, max_length=7, repetition_penalty=9.0)
    model.generation_config.save_pretrained(copy)
    assert LlamaGuardJudge(str(copy), device="cpu").judge(MIXED) == judge.judge(MIXED)


def test_padding_after_the_end_is_no_part_of_the_answer(copy: Path, judge: LlamaGuardJudge) -> None:
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.pad_token = None  # then token 0 pads; make that an ordinary word
    tokenizer.save_pretrained(copy)
    plain = LlamaGuardJudge(str(copy), device="cpu")
    plain.files.tokenizer.pad_token_id = plain.files.tokenizer.convert_tokens_to_ids("kite")
    assert [one.raw for one in plain.judge(MIXED)] == [one.raw for one in judge.judge(MIXED)]


def test_identity_needs_no_weights_in_memory_and_follows_the_content(judge: LlamaGuardJudge, copy: Path) -> None:
    moved = LlamaGuardJudge(str(copy), device="cpu", batch_size=3)
    assert moved.identity == judge.identity  # neither the place of the folder nor the batch size counts
    assert moved._engine is None
    assert LlamaGuardJudge(str(copy), dtype="bfloat16").identity != judge.identity
    assert LlamaGuardJudge(str(copy), version="2").identity != judge.identity


def test_identity_changes_with_the_weights(judge: LlamaGuardJudge, copy: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(copy)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-3
    before = LlamaGuardJudge(str(copy)).identity
    model.save_pretrained(copy)
    after = LlamaGuardJudge(str(copy)).identity
    assert before == judge.identity != after
    assert before.split(":template=")[1] == after.split(":template=")[1]


def test_identity_changes_with_the_template(judge: LlamaGuardJudge, copy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.chat_template = tokenizer.chat_template.replace("Red", "Green")
    tokenizer.save_pretrained(copy)
    assert LlamaGuardJudge(str(copy)).identity != judge.identity


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_identity_changes_with_config_and_tokenizer(name: str, judge: LlamaGuardJudge, copy: Path) -> None:
    content = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps(content | {"another": 1}))
    assert LlamaGuardJudge(str(copy)).identity != judge.identity


def test_a_multimodal_guard_is_rendered_by_its_processor(
    multimodal: Path, tokenizer_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizer_of("4")
    fields = {"chat_template": tokenizer.chat_template, "apply_chat_template": tokenizer.apply_chat_template}
    processor = SimpleNamespace(tokenizer=tokenizer, **fields)
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda *_, **__: processor)
    judge = LlamaGuardJudge(str(multimodal), device="cpu")
    assert (judge.files.version, judge.files.window, judge.files.prompt.listed) == ("4", 200, True)
    together = judge.judge(MIXED)
    assert type(judge._engine.model).__name__ == "Llama4ForConditionalGeneration"
    alone = [judge.judge([exchange])[0].score for exchange in MIXED]
    assert [verdict.score for verdict in together] == pytest.approx(alone, abs=1e-5)


def test_close_frees_and_the_judge_can_be_used_again(guard: Path) -> None:
    judge = LlamaGuardJudge(str(guard), device="cpu")
    judge.close()
    first = judge.judge([ZAP])
    assert judge._engine is not None
    judge.close()
    assert judge._engine is None
    assert judge.judge([ZAP]) == first


def test_bad_settings() -> None:
    with pytest.raises(InputError, match=r"'3-1B'.*Did you mean '3-1b'"):
        LlamaGuardJudge("x", version="3-1B")
    with pytest.raises(InputError, match="batch_size of llama_guard is 0"):
        LlamaGuardJudge("x", batch_size=0)
    with pytest.raises(InputError, match="Did you mean 'bfloat16'"):
        LlamaGuardJudge("x", dtype="bf16loat")
    with pytest.raises(InputError, match=r"Unknown engine 'vlm' of llama_guard\. Did you mean 'vllm'"):
        LlamaGuardJudge("x", engine="vlm")


def test_vllm_that_cannot_be_had_is_told_before_anything_is_loaded(
    guard: Path, multimodal: Path, tokenizer_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_setup, "vllm_version", lambda: None)
    with pytest.raises(InputError, match="llama_guard: vllm is not installed here"):
        LlamaGuardJudge(str(guard), engine="vllm")
    monkeypatch.setattr(vllm_setup, "vllm_version", lambda: "0.32.0")
    monkeypatch.setattr(vllm_setup, "vllm_device", lambda: "cuda")
    with pytest.raises(InputError, match="computes on cuda, and device is 'cpu'"):
        LlamaGuardJudge(str(guard), engine="vllm", device="cpu")
    tokenizer = tokenizer_of("4")
    fields = {"chat_template": tokenizer.chat_template, "apply_chat_template": tokenizer.apply_chat_template}
    monkeypatch.setattr(
        AutoProcessor, "from_pretrained", lambda *_, **__: SimpleNamespace(tokenizer=tokenizer, **fields)
    )
    with pytest.raises(InputError, match="multimodal: that is not offered with vLLM"):
        _ = LlamaGuardJudge(str(multimodal), engine="vllm").identity


def test_with_vllm_the_window_is_limited_and_verdicts_are_its_own(guard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (vllm_setup, guard_engines):
        monkeypatch.setattr(module, "vllm_version", lambda: "0.32.0")
    monkeypatch.setattr(VLLMGuard, "WINDOW", 70)
    with_vllm, plain = LlamaGuardJudge(str(guard), engine="vllm"), LlamaGuardJudge(str(guard), device="cpu")
    assert with_vllm.identity == f"{plain.identity}:engine=vllm 0.32.0 on {vllm_setup.vllm_device()}"
    (verdict,) = with_vllm.judge([Exchange("how", "take paper " * 15)])
    assert "the guard has room for 50" in verdict.raw
    assert plain.judge([Exchange("how", "take paper " * 15)])[0].harmful is False


def test_the_fixture_is_small(guard: Path) -> None:
    assert AutoConfig.from_pretrained(guard).max_position_embeddings == 160
    assert sum(path.stat().st_size for path in guard.iterdir()) < 500_000


def test_importing_the_judges_loads_no_torch() -> None:
    code = (
        "import sys; from safebasin import registry\n"
        "assert len([registry.load('judges', name) for name in registry.available('judges')]) > 12\n"
        "sys.exit(bool({'torch', 'transformers', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
