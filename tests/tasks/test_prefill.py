"""Prefixes of k tokens: what the model reads is what was meant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.tasks.judging import JUDGES_VARIABLE
from safebasin.tasks.prefill import load_tokenizer, prefilled, with_prefix
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

ROWS = [{"row": 7, "prompt": "ask", "target": "Sure, here is"}]


@pytest.fixture
def words() -> PreTrainedTokenizerFast:
    vocab = {word: i for i, word in enumerate(["<unk>", "sure", ",", "here", "is", "ask"])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    return tokenizer  # type: ignore[no-any-return]


def test_bytes(tiny_chat_model: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer({"pretrained": str(tiny_chat_model())})
    (row,) = with_prefix(ROWS, tokenizer, 6)
    assert (row["prefix"], row["prefix_join"], len(row["prefix_ids"])) == ("Sure, ", "", 6)
    assert with_prefix(ROWS, tokenizer, 0)[0]["prefix"] == ""
    assert with_prefix(ROWS, tokenizer, 99)[0]["prefix"] == "Sure, here is"


def test_word_level_tokenizers_lose_a_space_that_is_put_back(words: PreTrainedTokenizerFast) -> None:
    rows = [{"prompt": "ask", "target": "sure , here is"}]
    for k, prefix in ((2, "sure ,"), (4, "sure , here is"), (9, "sure , here is")):
        (row,) = with_prefix(rows, words, k)
        assert (row["prefix"], row["prefix_join"]) == (prefix, " ")


def test_a_prefix_read_differently_is_refused(tiny_chat_model: Callable[..., Path]) -> None:
    tokenizer: Any = load_tokenizer({"tokenizer": str(tiny_chat_model(seed=1))})
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "m['content'] | trim")
    with pytest.raises(InputError, match=r"Row 7: the first 6 target tokens"):
        with_prefix(ROWS, tokenizer, 6)
    with pytest.raises(InputError, match="cannot be negative"):
        with_prefix(ROWS, tokenizer, -1)


def test_a_tokenizer_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot load the tokenizer"):
        load_tokenizer({"tokenizer": str(tmp_path / "none")})
    with pytest.raises(InputError, match="--metadata"):
        load_tokenizer({"pretrained": object()})


def test_k_is_a_number_and_that_of_the_tasks_name(tiny_chat_model: Callable[..., Path]) -> None:
    tokenizer = {"tokenizer": str(tiny_chat_model())}
    assert prefilled(ROWS, {"k": "6", **tokenizer})[0]["prefix"] == "Sure, "
    assert prefilled(ROWS, {"k": 0})[0] == {**ROWS[0], "prefix": "", "prefix_ids": [], "prefix_join": ""}
    with pytest.raises(InputError, match=r"the one with k=4; got k=8\. Run advbench_prefill"):
        prefilled(ROWS, {"k": 8, "fixed_k": 4, **tokenizer})
    for wrong in ("-1", "four", 1.5):
        with pytest.raises(InputError, match=f"0 or more; got {wrong!r}"):
            prefilled(ROWS, {"k": wrong, **tokenizer})


@pytest.mark.parametrize("chat", [True, False])
def test_the_sweep_under_lm_eval_forces_exactly_k_tokens(
    chat: bool,
    advbench_csv: Path,
    tiny_chat_model: Callable[..., Path],
    evaluate: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(JUDGES_VARIABLE, '["keywords"]')
    model = tiny_chat_model()
    metadata = {"advbench_csv": str(advbench_csv)}
    result = evaluate(
        model, ["advbench_prefill_sweep"], metadata, gen_kwargs={"max_gen_toks": 1}, limit=2, apply_chat_template=chat
    )
    tokenizer: Any = load_tokenizer({"tokenizer": str(model)})
    for k in (0, 1, 2, 4, 8, 16):
        for sample in result["samples"][f"advbench_prefill_k{k}"]:
            prompt, target = sample["arguments"][0][0], tokenizer.encode(sample["doc"]["target"])
            ids = tokenizer.encode(prompt, add_special_tokens=False)
            assert ids[len(ids) - k :] == target[:k]
            assert not prompt.endswith(tokenizer.decode(target[: k + 1])), "and no more of them"


def test_a_prompt_that_ends_in_other_tokens_is_refused(
    tmp_path: Path, tiny_chat_model: Callable[..., Path], evaluate: Callable[..., dict[str, Any]]
) -> None:
    (tmp_path / "data.jsonl").write_text('{"row": 3, "prompt": "ask", "prefix": "Sure", "prefix_ids": [4, 5]}\n')
    (tmp_path / "x.yaml").write_text(
        "task: x\nclass: !function safebasin.tasks.checked.PrefillTask\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/data.jsonl}}}}\ntest_split: test\n"
        "output_type: generate_until\ndoc_to_text: prompt\ndoc_to_target: ''\ngen_prefix: '{{prefix}}'\n"
    )
    for chat, way_out in ((True, "Choose another k"), (False, "Add --apply_chat_template")):
        with pytest.raises(InputError, match=rf"x, row 3: .* instead of the 2 prefilled ones \[4, 5\].*{way_out}"):
            evaluate(tiny_chat_model(), ["x"], folders=[tmp_path], apply_chat_template=chat)
