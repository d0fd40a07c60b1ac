"""Silences the chatter of the libraries, so that what is printed is ours."""

import logging
import os
import warnings

__all__ = ["quiet"]


def quiet() -> None:
    """Turns off progress bars and informational logs of transformers, datasets, lm-eval and the hub."""
    os.environ.setdefault("LMEVAL_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import transformers
    from huggingface_hub.utils.tqdm import disable_progress_bars

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    disable_progress_bars()
    for name in ("lm_eval", "lm-eval", "datasets", "httpx", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for noisy in ("transformers", "peft", "torch", "lm_eval", "accelerate", "vllm"):
        warnings.filterwarnings("ignore", module=rf"{noisy}\.")
