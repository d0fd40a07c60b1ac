"""Model cards: README.md with the hub's metadata (`model-index`), and `.eval_results` for the hub's benchmarks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .export import make_folder, replace_text
from .text import markdown, one_line

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

__all__ = ["MARK", "Benchmark", "Card", "Figure", "card_text", "is_ours", "write_card", "write_eval_results"]

MARK = "<!-- Written by safebasin; it is written again while this line is here. -->"
LIMITS = (
    "Nothing is proven safe: each interval says which rates the prompts asked still allow, and for other prompts "
    "(attacks, languages, several turns, sampled answers) no rate was measured.",
    "Harmful knowledge is not removed; how the model answers is changed. Fine-tuning it further may undo that.",
    "It takes the place of no filter, monitoring or review where the model is used.",
)
"""What no restoration does."""


@dataclass(frozen=True)
class Figure:
    """One measured value."""

    measure: str
    """What is counted, for readers."""
    metric: str
    """The same for machines, for example `hrr`."""
    task: str
    """Of lm-eval or of safebasin."""
    value: float
    """In percent where it is a rate."""
    n: int | None = None
    low: float | None = None
    high: float | None = None
    """Ends of the Wilson 95 % interval; None for what has none."""
    others: Mapping[str, str] = field(default_factory=dict)
    """The same of other models, by name: the base, the fine-tuned one."""

    @property
    def text(self) -> str:
        """The value with its interval, if it has one."""
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says."""

    name: str
    base: str
    """Name of the base model: a hub id goes into the metadata; of a folder on a disk, its name alone is told."""
    adapter: bool
    """Whether the folder holds an adapter, not a whole model."""
    done: Sequence[str]
    """What was done, a sentence each."""
    settings: Mapping[str, Any]
    figures: Sequence[Figure] = ()
    judged: str = ""
    """By whom or by what."""
    limits: Sequence[str] = ()
    """What it does not do, besides `LIMITS`."""


@dataclass(frozen=True)
class Benchmark:
    """Where the hub keeps the leaderboard of a task."""

    dataset: str
    """Owner/name."""
    task: str
    """Its id in the data set's eval.yaml."""


def write_card(folder: Path, card: Card) -> bool:
    """Writes README.md into a folder, unless one is there that somebody has made their own.

    Returns:
        Whether it was written.

    Raises:
        InputError: the file cannot be written.
    """
    path = folder / "README.md"
    if path.is_file() and not is_ours(path):
        return False
    text = card_text(card)
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
        replace_text(path, text)
    return True


def is_ours(path: Path) -> bool:
    """Whether a README.md was written here, or is the form that PEFT leaves to be filled in."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return MARK in text or ("# Model Card for Model ID" in text and "[More Information Needed]" in text)


def card_text(card: Card) -> str:
    """The text of README.md; read by `huggingface_hub.ModelCard`."""
    from huggingface_hub import ModelCardData

    results = [_result(figure) for figure in card.figures]
    hub = _is_hub(card.base)
    about = ModelCardData(
        base_model=card.base if hub else None,
        library_name="peft" if card.adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["safebasin", "safety", *(["lora"] if card.adapter else [])],
        model_name=one_line(card.name) if results else None,
        eval_results=results or None,
    )
    blocks = [f"---\n{about.to_yaml()}\n---", MARK, f"# {markdown(card.name)}", "\n\n".join(card.done)]
    blocks += [
        "## Settings",
        _bullets([f"{markdown(key)}: {markdown(_told(value))}" for key, value in card.settings.items()]),
    ]
    blocks += ["## Measured", *_measured(card)]
    blocks += ["## What it does not do", _bullets([*card.limits, *LIMITS])]
    return "\n\n".join(blocks) + "\n"


def _measured(card: Card) -> Iterator[str]:
    if not card.figures:
        yield "Nothing was measured of it yet."
        return
    others = list(dict.fromkeys(name for figure in card.figures for name in figure.others))
    lines = [["", "n", *map(markdown, others), "this model"], [":--", "--:", *["--:"] * (len(others) + 1)]]
    for each in card.figures:
        n = "-" if each.n is None else str(each.n)
        lines.append([_about(each), n, *(each.others.get(name, "-") for name in others), f"**{each.text}**"])
    yield "\n".join("| " + " | ".join(line) + " |" for line in lines)
    yield "Rates in percent, in brackets Wilson 95 % intervals; greedy answers. " + card.judged


def _about(figure: Figure) -> str:
    return f"{figure.measure} ({markdown(figure.task)})" if figure.measure else markdown(figure.task)


def _told(value: Any) -> str:
    """Of a path on the machine that made it, only the name."""
    text = str(value)
    return Path(text).name if text.startswith(("/", "~")) else text


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _is_hub(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith(("/", ".", "~")) and not Path(name).exists()


def _result(figure: Figure) -> "EvalResult":
    from huggingface_hub import EvalResult

    ends = {"n": figure.n, "ci95_low": figure.low, "ci95_high": figure.high}
    return EvalResult(
        task_type="text-generation",
        dataset_type=one_line(figure.task),
        dataset_name=one_line(figure.task),
        metric_type=figure.metric,
        metric_name=figure.measure or one_line(figure.task),
        metric_value=round(figure.value, 6),
        metric_args={key: round(end, 6) for key, end in ends.items() if end is not None} or None,
    )


def write_eval_results(
    folder: Path, figures: Sequence[Figure], benchmarks: Mapping[str, Benchmark], date: str | None, by: str
) -> Path | None:
    """Writes `.eval_results/safebasin.yaml`: one entry for each figure whose task has a benchmark on the hub.

    Args:
        folder: of the model.
        figures: measured of it.
        benchmarks: by task.
        date: when, ISO 8601.
        by: what measured, for the notes.

    Returns:
        The file; None where no task has a benchmark.

    Raises:
        InputError: the file cannot be written.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = [
        EvalResultEntry(
            dataset_id=benchmarks[each.task].dataset,
            task_id=benchmarks[each.task].task,
            value=round(each.value, 4),
            date=date,
            notes=one_line(", ".join([by, f"task {each.task}", *([f"n = {each.n}"] if each.n else []), _ends(each)])),
        )
        for each in figures
        if each.task in benchmarks
    ]
    if not entries:
        return None
    path = make_folder(folder / ".eval_results") / "safebasin.yaml"
    replace_text(path, yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True))
    return path


def _ends(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return "no interval"
    return f"95 % interval {figure.low:.1f} to {figure.high:.1f}"
