"""Miniature Llama Guards: the structure of the four chat templates, a word tokenizer and a model set by hand."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

TASK = "Check the Agent .\n<BEGIN CATEGORIES>\nS1: Red .\nS2: Blue .\n<END CATEGORIES>\n\n<BEGIN CONVERSATION>\n\n"
ASK = "<END CONVERSATION>\n\nAssess ONLY THE LAST Agent message :\n"
PLAIN = (
    "{% for message in messages %}{% set role = 'User' if message['role'] == 'user' else 'Agent' %}"
    "{{ role + ': ' + message['content'].strip() + '\n\n' }}{% endfor %}"
)
PARTS = (
    "{% for message in messages %}{{ 'User: ' if message['role'] == 'user' else 'Agent: ' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}"
    "{{ '\n\n' }}{% endfor %}"
)
TEMPLATES = {
    "2": "{{ bos_token + '[INST] ' }}" + TASK + PLAIN + ASK + " [/INST]",
    "3": "{{ bos_token }}<|sh|>user<|eh|>\n\n" + TASK + PLAIN + ASK + "<|eot|><|sh|>assistant<|eh|>",
    "3-1b": "{{ bos_token }}<|sh|>user<|eh|>\n\n" + TASK + PARTS + ASK + "<|eot|><|sh|>assistant<|eh|>",
    "4": "{{ bos_token }}<|header_start|>user<|header_end|>\n\n" + TASK + PARTS + ASK + "<|eot|>"
    "{% if add_generation_prompt %}<|header_start|>assistant<|header_end|>{% endif %}",
}
LISTED = {"2": False, "3": False, "3-1b": True, "4": True}
SPECIAL = ["<s>", "<pad>", "<unk>", "<|sh|>", "<|eh|>", "<|eot|>", "<|header_start|>", "<|header_end|>"]
LABELS_NAME = "shared/data/xstest/human_labels"
WORDS = (
    "how to make a kite lamp cake zap with paper glue and i cannot help that sorry first then take use it one two three"
)


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[[str | None], Any]:
    """A tokenizer with the template of a version, or with one given as text."""

    def build(template: str | None) -> Any:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        split = pre_tokenizers.Split(Regex(r"\n\n|\s|\w+|[^\w\s]"), "isolated")
        text = TASK + ASK + " User Agent: [INST] [/INST] user assistant safe unsafe S1 S2 , . ! ' " + WORDS
        pieces = dict.fromkeys(SPECIAL + [piece for piece, _ in split.pre_tokenize_str(text)])
        core = Tokenizer(models.WordLevel({piece: at for at, piece in enumerate(pieces)}, unk_token="<unk>"))
        core.pre_tokenizer, core.decoder = split, decoders.Fuse()
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        core.add_special_tokens(SPECIAL)  # the header tokens are special without a name, as in Llama 3
        named = {"bos_token": "<s>", "pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<|eot|>"}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **named)
        tokenizer.chat_template = TEMPLATES.get(template, template) if template else None
        return tokenizer

    return build


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory, tokenizer_of: Callable[[str], Any]) -> Path:
    """A version-3 guard, its weights set by hand: a conversation with "zap" in it is unsafe, category S2.

    Like Llama Guard 3 it opens with a blank line. P(unsafe) rises with the share of "zap" among the tokens.
    """
    folder = tmp_path_factory.mktemp("guard")
    tokenizer = tokenizer_of("3")
    _hand_made(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _hand_made(tokenizer: Any) -> Any:
    """One layer. Embeddings are one-hot; attention, nearly even, writes the share of "zap" into the last dimension.

    The head is a table of which token follows which, and that dimension speaks for "unsafe". Queries and keys are small
    noise, so that padding or positions gone wrong change the numbers.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    token = {word: at for word, at in tokenizer.get_vocab().items()}
    size = len(token) + 2 - len(token) % 2
    shape = {"hidden_size": size, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    ends = {"bos_token_id": token["<s>"], "eos_token_id": token["<|eot|>"], "pad_token_id": token["<pad>"]}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(token), max_position_embeddings=160, tie_word_embeddings=False, **shape, **ends)
    )
    layer, head = model.model.layers[0], model.lm_head.weight
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
        layer.self_attn.v_proj.weight[size - 1, token["zap"]] = 3.0
        follows = {"<|eh|>": "\n\n", "\n\n": "safe", "safe": "<|eot|>", "unsafe": "\n", "\n": "S2", "S2": "<|eot|>"}
        for word, following in follows.items():
            head[token[following], token[word]] = 1.0
            head[token["unsafe"], token[word]] = -30.0  # "unsafe" is for after the blank line only
        head[token["unsafe"], token["\n\n"]] = 0.8
        head[token["unsafe"], size - 1] = 1.0
    return model


@pytest.fixture
def copy(guard: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(guard, tmp_path / guard.name))


@pytest.fixture
def multimodal(tmp_path: Path, tokenizer_of: Callable[[str], Any]) -> Path:
    """A random Llama 4 with a vision tower; like Llama Guard 4 it is loaded with its processor."""
    import torch
    from transformers import Llama4Config, Llama4ForConditionalGeneration

    small = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    text = {"num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size_mlp": 32}
    text |= {"num_local_experts": 1, "attention_chunk_size": 64, "vocab_size": len(tokenizer_of("4"))}
    vision = {"num_hidden_layers": 1, "vision_output_dim": 32, "image_size": 28, "projector_output_dim": 32}
    config = Llama4Config(
        text_config={**small, **text, "max_position_embeddings": 200, "pad_token_id": 1, "eos_token_id": 5},
        vision_config={**small, **vision, "projector_input_dim": 32},
    )
    torch.manual_seed(0)
    Llama4ForConditionalGeneration(config).save_pretrained(tmp_path / "four")
    return tmp_path / "four"


@pytest.fixture(scope="session")
def human_labels() -> Path:
    """XSTest's human-labelled completions, a CSV per model; the repository does not contain them."""
    beside = Path(__file__).resolve().parents[3] / LABELS_NAME
    path = Path(os.environ.get("SAFEBASIN_XSTEST_LABELS", beside))
    if not (path / "gpt4.csv").is_file():
        pytest.skip(f"no labelled XSTest completions at {path}; set SAFEBASIN_XSTEST_LABELS")
    return path
