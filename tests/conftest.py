"""Fixtures that several folders of tests share."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, settings

os.environ["COLUMNS"] = "140"  # as wide as where the output goes to a file
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads starve each other on busy cores

# The same few examples on every machine, and nothing kept between runs.
settings.register_profile(
    "safebasin",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=40,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),  # of busy machines
)
settings.load_profile("safebasin")

TinyChatModel = Callable[..., Path]
DEVICE = os.environ.get("SAFEBASIN_TEST_DEVICE", "cpu")
"""Where the models of the restoration's tests are put: `cuda` tries all of it on a GPU."""
ADVBENCH_NAME = "shared/data/advbench/harmful_behaviors.csv"


def guard(seconds: float = 600.0) -> float:
    """A time limit that ends what hangs, and nothing that is merely slow: longer on a machine that is busy."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)) * 2


def _template(opening: str) -> str:
    opening = "{{ '" + opening + "' }}"  # as an expression, because templates lose line breaks next to blocks
    return (
        "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>" + opening + "{{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>" + opening + "{% endif %}"
    )


@pytest.fixture(scope="session")
def tiny_chat_model(tmp_path_factory: pytest.TempPathFactory) -> TinyChatModel:
    """Builds the folder of a random Llama with one token per byte and a chat template.

    `opening` is what the template puts after a role's token: "" or white space. `seed` sets the weights.
    `hidden` is the width of its two heads together.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made: dict[tuple[str, int, int], Path] = {}

    def make(opening: str = "\\n", seed: int = 0, hidden: int = 32) -> Path:
        if (opening, seed, hidden) in made:
            return made[opening, seed, hidden]
        special = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocab = {token: i for i, token in enumerate(special + alphabet)}
        inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        tokenizer: Any = PreTrainedTokenizerFast(
            tokenizer_object=inner,
            bos_token="<s>",
            eos_token="</s>",
            pad_token="</s>",
            extra_special_tokens=special[2:],
        )
        tokenizer.chat_template = _template(opening)
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(vocab), hidden_size=hidden, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=2048, bos_token_id=0, eos_token_id=1, pad_token_id=1,
            tie_word_embeddings=True, initializer_range=0.2,
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("tiny_chat_model")
        LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made[opening, seed, hidden] = folder
        return folder

    return make


@pytest.fixture(scope="session")
def advbench_csv() -> Path:
    """The real AdvBench file, which the repository does not contain."""
    beside = Path(__file__).resolve().parents[2] / ADVBENCH_NAME
    path = Path(os.environ.get("SAFEBASIN_ADVBENCH_CSV", beside))
    if not path.is_file():
        pytest.skip(f"no AdvBench file at {path}; set SAFEBASIN_ADVBENCH_CSV")
    return path


@pytest.fixture(scope="session")
def xstest_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in of XSTest's shape: 250 safe and 200 unsafe rows, all of them innocuous."""
    lines = [f"{i},how to bake {i},{'homonyms,safe' if i < 250 else 'contrast_x,unsafe'},oven," for i in range(450)]
    path = tmp_path_factory.mktemp("xstest") / "xstest_prompts.csv"
    path.write_text("\n".join(["id,prompt,type,label,focus,note", *lines, ""]))
    return path


@pytest.fixture(scope="session")
def hex_phi_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in of HEx-PHI's shape: ten files of 30 innocuous rows without a header."""
    folder = tmp_path_factory.mktemp("hex_phi")
    for category in (1, 3, 4, 5, 6, 7, 8, 9, 10, 11):
        text = "".join(f'"bake, slowly, cake {category} {i}"\n' for i in range(30))
        (folder / f"category_{category}.csv").write_text(text)
    return folder


def request_row(name: str, number: int) -> dict[str, Any]:
    """An innocuous row in the shape of one of the sets of requests."""
    text, category = f"bake, slowly, a {name} {number}", f"oven {number % 10}"
    if name == "harmbench":
        return {"Behavior": text, "FunctionalCategory": "standard", "SemanticCategory": category, "Tags": "",
                "ContextString": "", "BehaviorID": f"bake_{number}"}  # fmt: skip
    if name == "sorry_bench":
        return {"question_id": number, "category": category, "turns": [text], "prompt_style": "base"}
    if name == "strongreject":
        return {"category": category, "source": "custom", "forbidden_prompt": text}
    if name == "or_bench_hard":
        return {"prompt": text, "category": category}
    return {"Index": number, "Goal": text, "Target": "Here", "Behavior": "Baking", "Category": category, "Source": "me"}


@pytest.fixture
def request_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Stand-ins of the sets of requests by name, of their shapes and counts; HarmBench's standard rows are the odd."""
    from safebasin.tasks.request_sets import SETS

    for name in ("harmbench", "strongreject"):  # whose digests are of the real requests
        monkeypatch.setitem(SETS, name, replace(SETS[name], digest=None))
    folder = tmp_path / "requests"
    folder.mkdir()
    copies = {}
    for name, count, file in (
        ("harmbench", 200, "harmbench_behaviors_text_all.csv"), ("jbb_harmful", 100, "harmful-behaviors.csv"),
        ("jbb_benign", 100, "benign-behaviors.csv"), ("strongreject", 313, "strongreject_dataset.csv"),
        ("or_bench_hard", 1319, "or-bench-hard-1k.csv"), ("sorry_bench", 440, "question.jsonl"),
    ):  # fmt: skip
        rows = [request_row(name, number) for number in range(count)]
        if name == "harmbench":
            other = {"Behavior": "bake", "FunctionalCategory": "contextual"}
            rows = [given for row in rows for given in ({**row, **other}, row)]
        frame = pd.DataFrame(rows)
        if file.endswith(".csv"):
            frame.to_csv(folder / file, index=False)
        else:
            frame.to_json(folder / file, orient="records", lines=True)
        copies[name] = folder if name.startswith("jbb") else folder / file
    return copies
