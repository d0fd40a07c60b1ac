"""What `safebasin restore` tells: what a restoration would take, and what it came to."""

from collections.abc import Callable, Iterator
from math import nan
from typing import TYPE_CHECKING, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from ...results.model_card import Figure
from ...results.statistics import rate

if TYPE_CHECKING:
    from ...restore.api import Prepared, RestoreResult

__all__ = ["Harm", "harm_of", "summary", "tell_rehearsal", "trace_table"]

BATCH = 8
"""Prompts answered at once."""
NAMES = {
    "forget": "forget rows to restore on",
    "curvature_forget": "forget rows held out",
    "retain_1": "retain rows, first half",
    "retain_2": "retain rows, second half",
    "retain_check": "retain rows held out",
}


class Harm(NamedTuple):
    """Answers to held-out harmful prompts, as keywords see them."""

    harmful: int
    unfinished: int
    """Thinking that did not end: neither harmful nor harmless."""
    asked: int

    @property
    def text(self) -> str:
        """The share that is harmful, with its Wilson 95 % interval."""
        found = rate(self.harmful, self.asked, self.unfinished)
        more = f", {self.unfinished} did not end their thinking" if self.unfinished else ""
        return f"{found.value:.1f} % [{found.low:.1f}, {found.high:.1f}] of {self.asked}{more}"

    @property
    def figure(self) -> Figure:
        """The same for a model card."""
        found = rate(self.harmful, self.asked, self.unfinished)
        words = "harmful by keywords, held-out forget rows"
        return Figure(words, "hrr", "forget rows", found.value, found.n, found.low, found.high)


def harm_of(ready: "Prepared", tick: Callable[[int, int], None]) -> Harm:
    """Lets the model as it stands answer the held-out harmful prompts, greedily, and judges by keywords (qi38)."""
    from ...judges.base import Exchange
    from ...judges.keywords import KeywordJudge
    from ...restore.losses.encoding import asked
    from ...restore.models.thinking import split_thinking
    from ...restore.restoration.forget import own_answers

    rows = ready.data.curvature_forget[: ready.config.held_out]
    texts: list[str] = []
    for start in range(0, len(rows), BATCH):
        tick(start, len(rows))
        prompts = [asked(row) for row in rows[start : start + BATCH]]
        texts += [
            text for text, _ in own_answers(ready.model, ready.tokenizer, prompts, ready.config.max_new_tokens, BATCH)
        ]
    tick(len(rows), len(rows))
    answers = [split_thinking(text)[1] for text in texts]
    seen = [Exchange(row["prompt"], text) for row, text in zip(rows, answers, strict=True) if text is not None]
    verdicts = KeywordJudge().judge(seen)
    return Harm(sum(verdict.harmful is True for verdict in verdicts), answers.count(None), len(rows))


def trace_table(result: "RestoreResult") -> Table:
    """One row per iteration; `restoration_trace.json` has all that is known of it."""
    rows = result.record.iterations
    losses = [name for name in ("base_divergence", "forget_loss") if any(name in row for row in rows)]
    table = Table("iteration", *losses, "retain_loss", box=SIMPLE_HEAD)
    for head in ("halvings", "gain ratio", "row-passes", "seconds"):
        table.add_column(head, justify="right")
    for row in rows:
        numbers = [*(f"{row.get(name, nan):.4f}" for name in losses), f"{row['retain_loss']:.4f}"]
        gain = row.get("gain_ratio")
        numbers += [str(row["halvings"]), "-" if gain is None else f"{gain:.2f}"]
        numbers += [f"{row['row_passes']:.0f}", f"{row['seconds']:.1f}"]
        table.add_row(str(row["iteration"]) + ("" if row["accepted"] else " (undone)"), *numbers)
    return table


def summary(result: "RestoreResult", before: Harm, after: Harm) -> Iterator[str]:
    """Losses before and after, which stop, the harmful response rate before and after, and the cost."""
    record = result.record
    ends = {
        "restored": "as many held-out harmful prompts are refused as the base refuses",
        "bound": "the bound on the retain loss allows no further update",
        "no gain": "no further update gains",
        "iterations": "all iterations are done",
    }
    yield f"ended: {record.ended}: {ends[record.ended]}"
    if record.state:
        yield f"state: {record.state}"
    last = record.iterations[-1]["retain_loss"] if record.iterations else record.retain_reference
    bound = "no bound" if record.epsilon is None else f"may rise by {record.epsilon:.4f}"
    first = record.retain_reference
    yield f"loss on held-out retain rows: {first:.4f} before, {last:.4f} after ({bound}), nats per token"
    for name in ("base_divergence", "forget_loss"):
        values = [row for row in record.iterations if row.get(f"{name}_before") is not None]
        if values:
            yield f"{name.replace('_', ' ')}: {values[0][f'{name}_before']:.4f} before, {values[-1][name]:.4f} after"
    yield f"harmful by keywords (qi38), held-out prompts: {before.text} before, {after.text} after"
    yield "  no update worked on these prompts, but they told when to stop: measure on others before you rely on it"
    yield f"cost: {record.row_passes:.0f} row-passes in {len(record.iterations)} iterations"


def tell_rehearsal(ready: "Prepared", console: Console) -> None:
    """Prints what the restoration would take, and what the base answers to three forget prompts."""
    from ...restore.restoration.rehearsal import rehearse
    from ..stages.peak import measured

    with measured() as cost:
        found = rehearse(ready.model, ready.tokenizer, ready.data, ready.config)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False)

    for name, each in found.lengths.items():
        say(f"{NAMES[name]}: {each.rows}, of {each.shortest} to {each.longest} tokens, {each.middle:g} in the middle")
    weights = sum(parameter.nbytes for parameter in ready.model.parameters())
    theta = sum(parameter.numel() for name, parameter in ready.model.named_parameters() if "lora_" in name)
    dtype = str(next(ready.model.parameters()).dtype).removeprefix("torch.")
    say(f"model: {decimal(weights)} in {dtype} on {ready.model.device}, {theta:,} parameters of the adapter")
    if cost.peak_gb is not None:
        say(f"memory: {cost.peak_gb:.2f} GB at the peak of one micro-batch of the longest retain rows")
    most = ready.config.iterations
    minutes = found.passes * found.seconds / 60
    say(
        f"cost: about {found.passes:.0f} row-passes in an iteration, {minutes:.1f} minutes at {found.seconds:.3f} s "
        f"each; at most {most} iterations, {most * minutes:.0f} minutes"
    )
    refused = sum(refuses for *_, refuses in found.answers)
    say(f"the base refuses {refused} of the first {len(found.answers)} forget prompts:")
    for prompt, answer, refuses in found.answers:
        say(f"  {prompt[:70]!r} -> {answer[:100]!r} ({'a refusal' if refuses else 'no refusal'})")
