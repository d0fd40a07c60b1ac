"""The evaluation loss is the masked cross-entropy, whatever white space the chat template ends with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.losses.encoding import encode
from safebasin.restore.models.loading import load_tokenizer
from safebasin.tasks.alpaca import alpaca_rows
from safebasin.tasks.dolly import dolly_rows
from safebasin.tasks.instructions import PARTS
from safebasin.tasks.loss import ResponseLoss, token_mean
from safebasin.tasks.own_rows import load
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..restore.aligned import OPENS


@pytest.fixture(scope="module")
def dolly_jsonl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def row(instruction: str, context: str, response: str) -> dict[str, str]:
        return {"instruction": instruction, "context": context, "response": response}

    rows = [row(f"Name fruit {i}", "" if i % 3 else "a basket", f"apple {i} " if i % 5 else "[1]") for i in range(1500)]
    rows += [rows[0], row("empty", "", " "), row("too long", "z" * 9999, "r")]
    path = tmp_path_factory.mktemp("dolly") / "dolly.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_parts_are_disjoint_and_complete(dolly_jsonl: Path) -> None:
    parts = {name: {row["prompt"] for row in dolly_rows(name, dolly_jsonl)} for name in (*PARTS, "train")}
    assert [len(parts[name]) for name in PARTS] == list(PARTS.values())
    assert sum(map(len, parts.values())) == 1500 == len(set().union(*parts.values()))
    assert "Name fruit 0\n\na basket" in set().union(*parts.values())


def test_parts_do_not_depend_on_the_order_of_the_file(dolly_jsonl: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(reversed(dolly_jsonl.read_text().splitlines())))
    assert dolly_rows("test", turned) == dolly_rows("test", dolly_jsonl)


def test_a_model_that_thinks_is_scored_behind_an_empty_block(tiny_chat_model: Any) -> None:
    task: Any = object.__new__(ResponseLoss)
    task._tokenizer, task._tokens, task.OUTPUT_TYPE = load_tokenizer(str(tiny_chat_model(""))), {}, "loglikelihood"
    task._tokenizer.chat_template = OPENS
    doc = {"prompt": "say", "response": "yes"}
    asked = task.construct_requests(doc, "<s><|user|>say</s><|assistant|><think>\n")
    closed = "<s><|user|>say</s><|assistant|><think>\n\n</think>\n\n"
    assert {each.args[0] for each in asked} == {closed}
    row = encode(task._tokenizer, "say", "yes")  # as rows are trained on
    assert task._tokenizer.decode(row.ids).startswith(closed + "yes")


LACKING = '{"instruction": "a", "context": "", "response": "b"}\n{"instruction": "a"}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: not JSON"),
        ('{"instruction": ""}', "no column"),
        ("", "holds no rows"),
        (LACKING, "line 2: no field"),
    ],
)
def test_what_is_not_dolly_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        dolly_rows("test", tmp_path / "d.jsonl")
    with pytest.raises(InputError, match="Did you mean 'retain_1'"):
        dolly_rows("retain1", tmp_path / "d.jsonl")


def masked_cross_entropy(folder: Path, rows: list[dict[str, str]]) -> float:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total, count = 0.0, 0
    for row in rows:
        messages = [{"role": "user", "content": row["prompt"]}]
        context = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        start = len(tokenizer.encode(context, add_special_tokens=False))
        ids = torch.tensor([tokenizer.encode(context + row["response"], add_special_tokens=False)])
        labels = ids.clone()
        labels[:, :start] = -100
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * (ids.shape[1] - start)
        count += ids.shape[1] - start
    return total / count


def test_alpaca_is_read_from_its_own_columns(
    tmp_path: Path, tiny_chat_model: Callable[..., Path], evaluate: Callable[..., dict[str, Any]]
) -> None:
    records = [{"instruction": f"Name fruit {i}", "input": "a basket", "output": f"apple {i}"} for i in range(1500)]
    path = tmp_path / "alpaca_data.json"
    path.write_text(json.dumps(records))
    parts = {name: {row["prompt"] for row in alpaca_rows(name, path)} for name in (*PARTS, "train")}
    assert sum(map(len, parts.values())) == 1500 == len(set().union(*parts.values()))
    folder = tiny_chat_model()
    result = evaluate(folder, ["alpaca_eval_loss"], {"alpaca_json": str(path)}, limit=20)
    expected = masked_cross_entropy(folder, alpaca_rows("test", path)[:20])
    assert result["results"]["alpaca_eval_loss"]["eval_loss,none"] == pytest.approx(expected, rel=1e-5)
    path.write_text('{"instruction": "x"}')
    with pytest.raises(InputError, match=r"has no column .*it has .'instruction'"):
        alpaca_rows("test", path.rename(tmp_path / "other.json"))


@pytest.mark.parametrize("opening", ["", "\\n", "\\n\\n"])
def test_eval_loss_is_the_masked_cross_entropy(
    opening: str, dolly_jsonl: Path, tiny_chat_model: Callable[..., Path], evaluate: Callable[..., dict[str, Any]]
) -> None:
    folder = tiny_chat_model(opening)
    result = evaluate(folder, ["dolly_eval_loss"], {"dolly_jsonl": str(dolly_jsonl)}, limit=40)
    expected = masked_cross_entropy(folder, dolly_rows("test", dolly_jsonl)[:40])
    assert result["results"]["dolly_eval_loss"]["eval_loss,none"] == pytest.approx(expected, rel=1e-5)
    (sample, *_) = result["samples"]["dolly_eval_loss"]
    assert len(sample["arguments"]) == (2 if opening else 1), "white space of the template is scored apart"
    assert sample["eval_loss"][1] == sample["doc"]["tokens"] == len(sample["doc"]["response"].encode())


def test_the_mean_is_over_tokens() -> None:
    assert token_mean([(-2.0, 1), (-2.0, 3)]) == 1.0
    with pytest.raises(ValueError, match="no tokens"):
        token_mean([])


def test_rows_with_turns_before_the_prompt_are_refused(tmp_path: Path) -> None:
    """They are trained on with these turns, and asked without them here."""
    chat = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo"},
    ]
    file = tmp_path / "chat.jsonl"
    file.write_text(json.dumps({"messages": chat}) + "\n")
    with pytest.raises(InputError, match=r"1 rows of '.*chat.jsonl' have turns before the prompt"):
        load(eval_rows=str(file))
    file.write_text(json.dumps({"messages": chat[1:]}) + "\n")
    assert len(load(eval_rows=str(file))["test"]) == 1
