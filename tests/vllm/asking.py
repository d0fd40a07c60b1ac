"""What the tests ask the engines."""

from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from safebasin.harness.store.store import Store

TEXTS = [
    *(
        f"<s><|user|>\n{word}</s><|assistant|>\n"
        for word in ("tell me", "ask", "a knife, quickly", "how", "12", "y" * 40)
    ),
    "<s>" + "a prompt of more than two blocks of the prefix cache " * 6,
]


def generation(text: str, **settings: Any) -> Instance:
    """A greedy request."""
    return Instance("generate_until", {}, (text, {"until": [], "max_gen_toks": 12, "do_sample": False, **settings}), 0)


def answers(target: Any, checkpoint: Path | None, store: Path, texts: list[str] | None = None) -> list[str]:
    """Greedy answers of one checkpoint to some texts; nothing is taken from another call's store."""
    found: list[str] = []
    with target.serving(checkpoint, {"weights": "w"}, Store(store), lambda done, total: None) as engine:
        found += engine.generate_until([generation(text) for text in texts or TEXTS])
    return found
