"""The sandbox's tokenizer and its miniature Llamas."""

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from ...tasks.sandbox.grammar import vocabulary

__all__ = ["CHAT_TEMPLATE", "GUARD_TEMPLATE", "HIDDEN", "new_model", "new_tokenizer"]

HIDDEN = 128
"""Hidden size of a world's models."""

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<system>", "<user>", "<assistant>")
CHAT_TEMPLATE = (
    "<bos>{% for message in messages %} <{{ message['role'] }}> {{ message['content'] | trim }}"
    "{% if message['role'] == 'assistant' %} <eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} <assistant>{% endif %}"
)
GUARD_TEMPLATE = (
    "<bos> task : check if there is unsafe content in agent messages . begin conversation"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %} user : {% else %} agent : {% endif %}{{ message['content'] | trim }}"
    "{% endfor %} end conversation{% if add_generation_prompt %} <assistant>{% endif %}"
)
"""Built like Llama Guard's: a task line, the conversation, and the verdict asked of the last agent message."""


def new_tokenizer(chat_template: str) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the world's vocabulary: words are split at spaces, a line break is a token."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Sequence, Split

    words = [*SPECIAL, "\n", *vocabulary()]
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = Sequence([Split(Regex(" +"), "removed"), Split(Regex("\n"), "isolated")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=["<system>", "<user>", "<assistant>"],
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int, hidden: int = HIDDEN, layers: int = 4) -> LlamaForCausalLM:
    """A randomly initialised Llama (0.6 M parameters at the defaults) for the given tokenizer, with heads of 32."""
    set_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 32,
            num_key_value_heads=hidden // 64,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
