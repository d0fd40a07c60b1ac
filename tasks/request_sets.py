"""Public sets of requests that are one file each: HarmBench, JailbreakBench, StrongREJECT, OR-Bench and SORRY-Bench.

Where they are and what is known of them; `request_rows` loads them. None is contained.
"""

from dataclasses import dataclass

from .hub import HubData

__all__ = ["SETS", "RequestSet"]


@dataclass(frozen=True)
class RequestSet:
    """What is known of one set."""

    title: str
    hub: HubData
    file: str
    """In the hub's repository."""
    key: str
    """Names a local copy in metadata and in `data` of a config: the file or, if it ends in `_dir`, its folder."""
    columns: tuple[str, ...]
    """The request's column, as the original and the hub's copy call it."""
    categories: tuple[str, ...]
    """The same of the category."""
    counts: tuple[int, ...]
    """How many requests it may have: one number for each of its versions."""
    only: tuple[str, str] | None = None
    """A column, and its value in the rows that are asked; where there is no such column, all are."""
    turns: bool = False
    """Whether a request is a list of one text."""
    digest: str | None = None
    """SHA-256 of its requests as `normal` leaves them, sorted, a line each; None where nobody could compute it."""

    @property
    def variable(self) -> str:
        """The environment variable that names a local copy."""
        return _variable(self.key)


def _variable(key: str) -> str:
    return f"SAFEBASIN_{key.upper()}"


def _otherwise(original: str, key: str) -> str:
    return f'Give {original}, as --metadata \'{{"{key}": "/path"}}\' or in ${_variable(key)}.'


def _jailbreakbench(split: str) -> RequestSet:
    return RequestSet(
        f"JailbreakBench's {split} behaviours",
        HubData(
            "JailbreakBench/JBB-Behaviors",
            "886acc352a31533ffbcf4ef22c744658688086fc",
            _otherwise("the folder with its harmful-behaviors.csv and benign-behaviors.csv", "jbb_dir"),
        ),
        f"data/{split}-behaviors.csv",
        "jbb_dir",
        ("Goal",),
        ("Category",),
        (100,),
    )


SETS: dict[str, RequestSet] = {
    "harmbench": RequestSet(
        "HarmBench's standard behaviours",
        HubData(
            "walledai/HarmBench",
            "a777536ffc60bc8317b06380da5b2acf8d6491fd",
            _otherwise(
                "harmbench_behaviors_text_all.csv of the repository centerforaisafety/HarmBench", "harmbench_csv"
            ),
            gated=True,
        ),
        "standard/train-00000-of-00001.parquet",
        "harmbench_csv",
        ("Behavior", "prompt"),
        ("SemanticCategory", "category"),
        (200,),
        only=("FunctionalCategory", "standard"),
        digest="834d725a19786e538261cc82fbd1955d433cad8cf9a76de39643672d067e0e0f",
    ),
    "jbb_harmful": _jailbreakbench("harmful"),
    "jbb_benign": _jailbreakbench("benign"),
    "strongreject": RequestSet(
        "StrongREJECT",
        HubData(
            "walledai/StrongREJECT",
            "df54272b395ce9e584d2f8140519935425d8549f",
            _otherwise("strongreject_dataset.csv of alexandrasouly/strongreject on GitHub", "strongreject_csv"),
            gated=True,
        ),
        "data/train-00000-of-00001.parquet",
        "strongreject_csv",
        ("forbidden_prompt", "prompt"),
        ("category",),
        (313,),
        digest="c10f805743d9ec4c3eaff776b806ccac8eb4e9ef96e3a1c59be2c0db5abd8d83",
    ),
    "or_bench_hard": RequestSet(
        "OR-Bench-Hard-1K",
        HubData(
            "bench-llm/or-bench",
            "e36d8b80e81837c8a8f264bbb2a49f1b32c7e272",
            _otherwise("its or-bench-hard-1k.csv", "or_bench_csv"),
        ),
        "or-bench-hard-1k.csv",
        "or_bench_csv",
        ("prompt",),
        ("category",),
        (1319,),
    ),
    "sorry_bench": RequestSet(
        "SORRY-Bench's base requests",
        HubData(
            "sorry-bench/sorry-bench-202503",
            "612a4e1f45db8adf884fa62318ddf9fa1c6e75e9",
            _otherwise("its question.jsonl", "sorry_bench_jsonl"),
            gated=True,
        ),
        "question.jsonl",
        "sorry_bench_jsonl",
        ("turns",),
        ("category",),
        (440, 450),
        only=("prompt_style", "base"),
        turns=True,
    ),
}
