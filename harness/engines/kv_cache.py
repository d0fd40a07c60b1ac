"""The keys and values of a generation, in buffers with room to grow.

transformers' `DynamicCache` copies all of them for every new token: in a large batch on a CPU, most of the time.
"""

from inspect import signature
from typing import Any

from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer

__all__ = ["GrowingLayer", "growing_cache"]


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` whose `keys` and `values` [rows, heads, tokens, head size] are the filled part of buffers."""

    _rooms: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends keys and values of new tokens, and returns all there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._rooms = None
        used, rooms = self.get_seq_length(), self._rooms or (None, None)
        self.keys, keys = _appended(used, self.keys, key_states, rooms[0])
        self.values, values = _appended(used, self.values, value_states, rooms[1])
        self._rooms = keys, values
        return self.keys, self.values


def _appended(used: int, held: Tensor | None, new: Tensor, room: Tensor | None) -> tuple[Tensor, Tensor]:
    """All states and their buffer: `room` if `held` is its beginning and `new` fits behind, else a larger one.

    Beam search and the like replace `held` by a tensor of its own.
    """
    length = used + new.shape[-2]
    begins = held is not None and room is not None and used and held.data_ptr() == room.data_ptr()
    if room is None or not begins or len(new) != len(room) or room.shape[-2] < length:
        room = new.new_empty((*new.shape[:-2], length + max(32, length // 8), new.shape[-1]))
        if held is not None and used:
            room.narrow(-2, 0, used).copy_(held)
    room.narrow(-2, used, new.shape[-2]).copy_(new)
    return room.narrow(-2, 0, length), room


def growing_cache(model: Any) -> dict[str, DynamicCache]:
    """What to give to `generate` so that it makes the same tokens with fewer copies.

    Args:
        model: one that generates.

    Returns:
        An empty `past_key_values` for one call; nothing where the model would not use transformers' default cache, or
        has no layer in it that would grow.
    """
    model = model.get_base_model() if isinstance(model, PeftModel) else model
    chosen = model.generation_config.cache_implementation
    own = type(model)._prepare_cache_for_generation is not GenerationMixin._prepare_cache_for_generation
    if chosen or own or model.config.is_encoder_decoder or not model._supports_default_dynamic_cache():
        return {}
    if "past_key_values" not in signature(model.forward).parameters:
        return {}
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    if not any(type(layer) is DynamicLayer for layer in cache.layers):
        return {}
    growing: type[Any] = GrowingLayer
    cache.layers = [growing() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return {"past_key_values": cache}
