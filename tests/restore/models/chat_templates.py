"""Chat templates of models that think, in the shapes that their makers give them, made small."""

__all__ = ["CHOSEN", "OFF", "RESPONSE", "SYSTEM", "Shape"]

from typing import NamedTuple


class Shape(NamedTuple):
    """A template with the tokens that it needs."""

    template: str
    tokens: tuple[str, ...] = ()
    marks: tuple[str, str] = ("<think>", "</think>")


_OTHERS = "{{ '<|' + m.role + '|>' + m.content + '</s>' }}"
_CUT = (
    "{% set ns = namespace(said=m.content) %}"
    "{% if '</think>' in ns.said %}{% set ns.said = ns.said.split('</think>')[-1].lstrip() %}{% endif %}"
)
_EACH = "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
CHOSEN = Shape(
    _EACH + _CUT + "{{ '<|assistant|>\\n' }}{% if loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{{ ns.said + '</s>' }}{% else %}" + _OTHERS + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
"""The model may think, and is told not to; the last finished answer has an empty block, earlier ones none (Qwen3)."""
OFF = Shape(
    _EACH + _CUT + "{{ '<|assistant|>' + ns.said + '</s>' }}{% else %}" + _OTHERS + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% if enable_thinking is defined and enable_thinking %}"
    "{{ '<think>\\n' }}{% else %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)
"""Answers are opened by an empty block that is not written before finished ones (EXAONE)."""
RESPONSE = Shape(
    _EACH + "{{ '<|assistant|><|START_RESPONSE|>' + m.content + '<|END_RESPONSE|></s>' }}{% else %}"
    + _OTHERS + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}"
    "{% if reasoning is defined and not reasoning %}{{ '<|START_THINKING|><|END_THINKING|>' }}{% endif %}{% endif %}",
    ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)  # fmt: skip
"""Tokens around the thinking, and around the answer (Cohere)."""
SYSTEM = Shape(
    "{{ bos_token }}{{ '[S]Draft in [THINK]thoughts[/THINK], never in <think>.[/S]' }}{% for m in messages %}"
    "{{ '[I]' + m.content + '[/I]' if m.role == 'user' else m.content + '</s>' }}{% endfor %}",
    ("[THINK]", "[/THINK]", "[I]", "[/I]", "[S]", "[/S]"),
    ("[THINK]", "[/THINK]"),
)
"""A system message speaks of the marks; the end of the user's turn opens the answer (Magistral)."""
