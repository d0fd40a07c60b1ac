"""What is known by name of models, data and devices: for the hours of a run that none of them is at hand for."""

from .costs import Rows, Size, Speed

__all__ = ["CAPACITY", "DEVICES", "REQUESTS", "ROWS", "known_requests", "known_size"]

DEVICES = {"h100": Speed(3.4e14, 2.4e12, 1e-5)}
"""Products as in gradients of a 7B model in bfloat16 (docs/performance.md); memory and calls are assumed."""
CAPACITY = {"h100": 80e9}
"""Bytes of memory."""
_PARAMETERS = {  # millions, layers; of these shapes (benchmarks/restore_shapes.py)
    "meta-llama/Llama-2-7b-chat-hf": (6738, 32),
    "meta-llama/Llama-3.1-8B-Instruct": (8030, 32),
    "meta-llama/Llama-Guard-3-8B": (8030, 32),
    "Qwen/Qwen2.5-7B-Instruct": (7616, 28),
    "meta-llama/Llama-2-70b-chat-hf": (68_977, 80),
    "meta-llama/Llama-3.1-70B-Instruct": (70_554, 80),
    "Qwen/Qwen2.5-72B-Instruct": (72_706, 80),
}
_BYTES = 2
REQUESTS = {
    **{"advbench_hrr": (382, 1), "advbench_prefill": (382, 1), "hex_phi_hrr": (300, 1)},
    **{"xstest_safe": (250, 1), "xstest_unsafe": (200, 1), "visage": (80, 63), "visage_small": (20, 18)},
    **{"dolly_eval_loss": (200, 2), "alpaca_eval_loss": (200, 2), "gsm8k": (1319, 1), "arc_challenge": (1172, 4)},
    **{"toxigen": (940, 2), "truthfulqa_mc2": (817, 7), "boolq": (3270, 2), "boolq_fewshot": (3270, 4)},
    **{"arc_easy_fewshot": (2376, 8), "arc_challenge_fewshot": (1172, 8), "piqa_fewshot": (1838, 4)},
    **{"hellaswag_fewshot": (10042, 8), "winogrande_fewshot": (1267, 4)},
}
"""Documents of a task, and requests for each: one for each choice, of few-shot tasks twice that, of a loss two."""
ROWS = {"dolly": Rows(13_587, 190), "alpaca": Rows(50_578, 110)}
"""Rows to fine-tune on (all but those that are held out); how many tokens one has is assumed."""


def known_requests(task: str, limit: int | None) -> int | None:
    """Requests of a task whose data are not at hand, of `limit` documents at most; None of tasks that are not known."""
    if task not in REQUESTS:
        return None
    documents, each = REQUESTS[task]
    return min(documents, limit or documents) * each


def known_size(name: str) -> Size | None:
    """The size of a model of this name, in bfloat16; None of others."""
    millions, layers = _PARAMETERS.get(name, (0, 0))
    return Size(millions * 10**6, millions * 10**6 * _BYTES, layers) if millions else None
