"""The prefilling attack: the first k tokens of a compliant answer, put in the model's mouth (Qi et al. 2406.05946)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..errors import InputError
from ..restore.models.chat import begun
from .sandbox.location import is_sandbox, model_folder

__all__ = ["load_tokenizer", "prefilled", "with_prefix"]


def load_tokenizer(metadata: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The evaluated model's tokenizer, from what lm-eval hands to a data set loader.

    Plain `lm_eval --model hf --model_args pretrained=...` hands over its model arguments. Where the model is a ready
    object (`simple_evaluate(model=lm)`), `metadata={"tokenizer": ...}` must be given to the TaskManager.

    Raises:
        InputError: neither `tokenizer` nor `pretrained` is there, or it cannot be loaded.
    """
    name = metadata.get("tokenizer") or metadata.get("pretrained")
    if not isinstance(name, str):
        raise InputError(
            "This task counts tokens and needs the model's tokenizer. Pass its folder or hub id: "
            "--metadata '{\"tokenizer\": \"...\"}', or in Python TaskManager(metadata={'tokenizer': '...'})."
        )
    revision = metadata.get("revision")
    trusted = str(metadata.get("trust_remote_code", False)).lower() == "true"
    return _tokenizer(name, str(revision) if revision else None, trusted)


def prefilled(rows: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows with the beginning that a task's metadata ask for (see `with_prefix`).

    Args:
        rows: each with `prompt` and `target`.
        metadata: `k`; `fixed_k` in a task whose name says its k; `tokenizer` or `pretrained`, needed unless k is 0.

    Raises:
        InputError: k is no number, negative, or another than the task's name says; and as `with_prefix`.
    """
    given = metadata["k"]
    if not str(given).isdecimal():
        raise InputError(f"k is the number of prefilled target tokens, 0 or more; got {given!r}.")
    fixed = metadata.get("fixed_k")
    if fixed is not None and int(given) != int(fixed):
        raise InputError(f"This task is the one with k={fixed}; got k={given}. Run advbench_prefill with it instead.")
    if int(given) == 0:
        return [{**row, "prefix": "", "prefix_ids": [], "prefix_join": ""} for row in rows]
    return with_prefix(rows, load_tokenizer(metadata), int(given))


def with_prefix(rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, k: int) -> list[dict[str, Any]]:
    """Adds to each row the attack's beginning of the answer.

    Args:
        rows: each with `prompt` and `target`.
        tokenizer: the evaluated model's.
        k: number of target tokens; 0 is no attack.

    Returns:
        The rows with `prefix` (text), `prefix_ids` (its at most k ids) and `prefix_join` (see `exchange_of`).

    Raises:
        InputError: k is negative, or the model would not read exactly these ids from the prefix's text.
    """
    if k < 0:
        raise InputError(f"k is the number of prefilled target tokens and cannot be negative; got {k}.")
    return [dict(row) | _prefix(index, row, tokenizer, k) for index, row in enumerate(rows)]


@lru_cache(maxsize=4)
def _tokenizer(name: str, revision: str | None, trusted: bool) -> PreTrainedTokenizerBase:
    if is_sandbox(name):
        name = str(model_folder(name))
    from ..restore.models.loading import load_tokenizer as load

    return load(name, revision, trusted)


def _prefix(index: int, row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, k: int) -> dict[str, Any]:
    whole = _encode(tokenizer, row["target"])
    ids = whole[:k]
    text = _decode(tokenizer, ids)
    read = _encode(tokenizer, text)
    if read == ids and ids and tokenizer.chat_template:
        read = _encode(tokenizer, _rendered(tokenizer, row["prompt"], text))[-len(ids) :]
    if read != ids:
        raise InputError(
            f"Row {row.get('row', index)}: the first {k} target tokens {ids} are the text {text!r}, which the model "
            f"would read as {read}. Choose another k."
        )
    return {"prefix": text, "prefix_ids": ids, "prefix_join": _join(tokenizer, row["target"], whole, k)}


def _join(tokenizer: PreTrainedTokenizerBase, target: str, whole: list[int], k: int) -> str:
    """A space if the tokenizer loses the one at this place when the target is decoded in two pieces, else nothing."""
    cut = k if 0 < k < len(whole) else 1
    return " " if f"{_decode(tokenizer, whole[:cut])} {_decode(tokenizer, whole[cut:])}" == target else ""


def _rendered(tokenizer: PreTrainedTokenizerBase, prompt: str, prefix: str) -> str:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": prefix}]
    return begun(tokenizer, messages)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
