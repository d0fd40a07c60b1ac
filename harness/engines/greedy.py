"""Greedy decoding on a CPU by the model's forward pass alone, in a batch that shrinks as its rows end.

transformers' `generate` takes about a quarter longer per token for a tiny model, and goes on computing rows that have
ended. On a GPU a smaller batch saves nothing and may round differently, so there it stays.
"""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from peft import PeftModel, PeftType
from torch import Tensor
from transformers import GenerationMixin

from .kv_cache import GrowingLayer, growing_cache

__all__ = ["ends_of_greedy", "greedy"]

_SILENT = frozenset(
    "bos_token_id eos_token_id pad_token_id transformers_version _from_model_config max_length max_new_tokens "
    "do_sample temperature top_p top_k use_cache output_attentions output_hidden_states".split()
)
"""What a model's generation settings may say without a word in greedy decoding to a length given."""
_OURS = ("prepare_inputs_for_generation", "_update_model_kwargs_for_generation", "_sample")


def ends_of_greedy(model: Any, settings: Mapping[str, Any]) -> list[int]:
    """The tokens that end an answer, where `greedy` makes those that `generate` would; nothing where it may not.

    Args:
        model: on its device, perhaps with an adapter.
        settings: of the generation.
    """
    asked = settings.get("do_sample") is False and settings.keys() <= {"do_sample", "attention_mask", "temperature"}
    if not asked or model.device.type != "cpu" or not _is_plain(model):
        return []
    model = _inside(model)
    ends = model.generation_config.eos_token_id
    told = model.generation_config.to_diff_dict().keys()
    own = [name for name in _OURS if getattr(type(model), name) is not getattr(GenerationMixin, name)]
    layers = getattr(growing_cache(model).get("past_key_values"), "layers", [])
    if ends is None or own or not told <= _SILENT or not layers or any(type(one) is not GrowingLayer for one in layers):
        return []
    return [ends] if isinstance(ends, int) else list(ends)


def _is_plain(model: Any) -> bool:
    """Whether an adapter, if there is one, does its work in the forward pass alone."""
    if not isinstance(model, PeftModel):
        return True
    config = model.active_peft_config
    return config.peft_type == PeftType.LORA and not getattr(config, "alora_invocation_tokens", None)


def _inside(model: Any) -> Any:
    return model.get_base_model() if isinstance(model, PeftModel) else model


@torch.inference_mode()
def greedy(model: Any, ids: Tensor, mask: Tensor, length: int, ends: list[int], pad: int) -> Tensor:
    """Continues each row by its likeliest tokens, to its end or to `length` tokens with the prompt.

    Args:
        model: one for which `ends_of_greedy` found tokens.
        ids: [rows, tokens], padded on the left.
        mask: of the same shape, 1 at tokens and 0 at padding.
        length: of the result.
        ends: tokens that end a row.
        pad: what follows an end.

    Returns:
        [rows, at most `length` tokens]: as many as the longest row takes.
    """
    model = _inside(model)
    made = torch.cat([ids, ids.new_full((len(ids), length - ids.shape[1]), pad)], dim=1)
    cache = growing_cache(model)["past_key_values"]
    few = {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    rows, open_, last = torch.arange(len(ids)), torch.ones(len(ids), dtype=torch.bool), torch.tensor(ends)
    for at in range(ids.shape[1], length):
        out = model(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True, **few
        )
        chosen = out.logits[:, -1].float().argmax(-1)
        made[rows[open_], at] = chosen[open_]
        open_ &= ~torch.isin(chosen, last)
        if not open_.any():
            return made[:, : at + 1]
        if 4 * int(open_.sum()) <= 3 * len(rows):
            rows, chosen, mask, places = rows[open_], chosen[open_], mask[open_], places[open_]
            cache.batch_select_indices(open_.nonzero()[:, 0])
            open_ = open_[open_]
        ids, places = chosen[:, None], places[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones((len(mask), 1))], dim=1)
    return made
