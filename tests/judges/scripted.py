"""Miniature judges of any format: a tokenizer with whole answers as tokens, and a model that says them by a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WORDS = (
    "how to make a kite lamp cake zap with paper glue and i cannot help that sorry first then take use it one two three"
)
SPECIAL = ["<s>", "<pad>", "<unk>", "<end>", "<turn>", "<go>"]
Follows = Mapping[str, str | tuple[str, str, str]]
"""Word -> the next one; or (the next one, another, the word of the prompt that makes it the other)."""


def tokenizer_of(template: str | None, pieces: Sequence[str], text: str = "") -> Any:
    """A word-level tokenizer that knows `pieces` as one token each, and the words of `text`; `<s>` opens any text."""
    import re

    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    longest_first = sorted(pieces, key=len, reverse=True)
    pattern = "|".join([*(re.escape(piece) for piece in longest_first), r"\s|\w+|[^\w\s]"])
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    words = [piece for piece, _ in split.pre_tokenize_str(f"{template or ''} {text} {WORDS}\n .,:!'")]
    listed = dict.fromkeys([*SPECIAL, *pieces, *words])
    core = Tokenizer(models.WordLevel({piece: at for at, piece in enumerate(listed)}, unk_token="<unk>"))
    core.pre_tokenizer, core.decoder = split, decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    core.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", pad_token="<pad>", unk_token="<unk>", eos_token="<end>"
    )
    tokenizer.chat_template = template
    return tokenizer


def save_scripted(folder: Path, tokenizer: Any, follows: Follows) -> Path:
    """Saves tokenizer and a Llama of one layer: embeddings are one-hot, attention counts the words that choose."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    token = tokenizer.get_vocab()
    choosing = sorted({rule[2] for rule in follows.values() if isinstance(rule, tuple)})
    size = len(token) + len(choosing) + (len(token) + len(choosing)) % 2
    config = LlamaConfig(
        vocab_size=len(token), hidden_size=size, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=300, tie_word_embeddings=False, bos_token_id=token["<s>"], eos_token_id=token["<end>"],
        pad_token_id=token["<pad>"],
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    layer, head = model.model.layers[0], model.lm_head.weight
    place = {word: len(token) + at for at, word in enumerate(choosing)}
    with torch.no_grad():
        for matrix in (
            model.model.embed_tokens.weight,
            layer.self_attn.v_proj.weight,
            layer.mlp.down_proj.weight,
            head,
        ):
            matrix.zero_()
        model.model.embed_tokens.weight.fill_diagonal_(1.0)
        layer.self_attn.o_proj.weight.copy_(torch.eye(size))
        for word, at in place.items():
            layer.self_attn.v_proj.weight[at, token[word]] = 3.0
        for word, rule in follows.items():
            if isinstance(rule, tuple):
                usual, other, by = rule
                head[token[other]] = -30.0  # everywhere but here
                head[token[other], token[word]] = 0.8
                head[token[other], len(token) :] = 0.0
                head[token[other], place[by]] = 1.0
                head[token[usual], token[word]] = 1.0
            else:
                head[token[rule], token[word]] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def shares_by_hand(folder: Path, ids: Sequence[int], words: Sequence[str | Sequence[str]]) -> list[float]:
    """Probabilities of the words after `ids`, renormalised: one forward pass, without the judge's code.

    A word may have several spellings; those that the vocabulary has are added up.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        found = model(torch.tensor([list(ids)])).logits[0, -1].softmax(-1)
    token = tokenizer.get_vocab()
    spellings = [[word] if isinstance(word, str) else word for word in words]
    sums = [sum(float(found[token[one]]) for one in several if one in token) for several in spellings]
    return [each / sum(sums) for each in sums]
