"""Shapes of 7B and 8B models, for random weights, with the paper's figures for them."""

from typing import Any

from transformers import LlamaConfig, PretrainedConfig, Qwen2Config

COMMON: dict[str, Any] = {"tie_word_embeddings": False, "max_position_embeddings": 4096}
MODELS: dict[str, tuple[type[PretrainedConfig], dict[str, Any], tuple[int, int]]] = {
    "llama-2-7b": (
        LlamaConfig,
        {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 32},
        (399, 16),
    ),
    "llama-3.1-8b": (
        LlamaConfig,
        {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8},
        (433, 18),
    ),
    "qwen2.5-7b": (
        Qwen2Config,
        {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
         "num_attention_heads": 28, "num_key_value_heads": 4},
        (409, 17),
    ),
}  # fmt: skip
"""Configuration, and the paper's seconds per curvature construction and per influence update (table 10, one H100)."""
PAPER_GB = 48.9
"""Of Llama-2-7B (table 9)."""
TINY: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
