"""The gate: what enters as a base, an adapter or a tokenizer is looked at whole, and what was found can be shown.

`loading` and `whole` refuse what is unfit as it is loaded. `admit` does the same for a model that is in memory already,
and `examine` loads whatever is named and tells all findings at once, refused or not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError
from .adapter_files import brings_tokenizer, check_adapter
from .chat import Chat, ends_of, read_chat
from .files import check_files, deciding_files, local_folder
from .fitting import fitted, outside, rows_of
from .loading import load_adapter, load_base, load_tokenizer, tokenizer_of
from .tables import table_rows
from .whole import check_finite

__all__ = ["Finding", "Findings", "State", "admit", "examine"]

State = Literal["ok", "note", "refused"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What was looked at, in a few words."""
    state: State
    """`note` works, but decides answers in a way that one should know of."""
    said: str
    """What was found; of what is refused, the reason and what to do."""


@dataclass
class Findings:
    """All that was found about a model and, if one was named, its adapter."""

    model: str
    adapter: str | None = None
    items: list[Finding] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether a run or a restoration would end at one of them."""
        return any(one.state == "refused" for one in self.items)

    def rows(self) -> list[tuple[str, str, str]]:
        """(check, state, what was found) of each, in the order of looking."""
        return [(one.check, one.state, one.said) for one in self.items]

    def add(self, check: str, said: str, state: State = "ok") -> None:
        """Notes a finding."""
        self.items.append(Finding(check, state, said))

    @contextmanager
    def of(self, check: str) -> Iterator[None]:
        """Notes an InputError of the block as a refusal, which ends it."""
        try:
            yield
        except InputError as error:
            self.add(check, str(error), "refused")


def admit(model: Any, tokenizer: Any) -> Any:
    """Looks at a model in memory and returns the tokenizer fitted to it; neither is changed.

    Whether its weights were all loaded can no longer be told: `load_base` and `load_tuned` look at that.

    Args:
        model: a causal LM or a PEFT model.
        tokenizer: its tokenizer.

    Raises:
        InputError: the tokenizer has no usable chat template or ids outside the embedding table, or a weight of the
            base is not finite.
    """
    ready = fitted(tokenizer, rows_of(model))
    base = [name for name, _ in model.named_parameters() if "lora_" not in name]
    check_finite(model, "The model", "Load it again, in a dtype that its weights fit in.", base)
    return ready


def examine(
    model: str,
    adapter: str | Path | None = None,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | None = "cpu",
) -> Findings:
    """Loads a model, and an adapter if there is one, and tells everything that the gate looks at.

    Args:
        model: folder or hub id.
        adapter: PEFT folder.
        revision: of the model, on the hub.
        dtype: as for `load_base`.
        device: as for `load_base`.

    Returns:
        The findings; nothing is raised for what is refused.
    """
    found = Findings(model, None if adapter is None else str(adapter))
    folder = local_folder(model, revision)
    with found.of("files"):
        if folder:
            check_files(folder)
            found.add("files", f"{len(deciding_files(folder))} files decide what it answers; all are whole")
    loaded = _held(found, "weights", lambda: load_base(model, revision, dtype, device))
    if loaded is not None:
        count = sum(parameter.numel() for parameter in loaded.parameters())
        found.add("weights", f"{type(loaded).__name__}, {count:,} parameters: none missing, none left over, all finite")
    tokenizer = _held(found, "tokenizer", lambda: load_tokenizer(model, revision))
    if adapter is not None and loaded is not None:
        loaded = _adapted(found, loaded, adapter)
        if brings_tokenizer(adapter):
            found.add("tokenizer", "the adapter's own is taken", "note")
            tokenizer = _held(found, "tokenizer", lambda: tokenizer_of(model, adapter, revision))
    if loaded is not None and tokenizer is not None:
        _told_of_tokenizer(found, loaded, tokenizer)
        chat = _held(found, "chat template", lambda: read_chat(tokenizer))
        if chat is not None:
            _told_of_chat(found, loaded, tokenizer, chat)
    return found


def _held(found: Findings, check: str, make: Callable[[], Any]) -> Any:
    with found.of(check):
        return make()
    return None


def _adapted(found: Findings, loaded: Any, adapter: str | Path) -> Any:
    with found.of("adapter"):
        shapes = check_adapter(adapter)
        before, rows = rows_of(loaded), table_rows(loaded, shapes)
        adapted = load_adapter(loaded, adapter)
        found.add("adapter", f"{len(shapes)} tensors: none missing, none left over, all finite")
        if rows is not None:
            found.add("adapter", f"holds an embedding table of {rows} rows: the model's {before} are resized", "note")
        if not any(float(p.abs().max()) for name, p in adapted.named_parameters() if "lora_B" in name):
            found.add("adapter", "its B matrices are all zero: it changes nothing", "note")
        return adapted
    return None


def _told_of_tokenizer(found: Findings, model: Any, tokenizer: Any) -> None:
    rows = rows_of(model)
    with found.of("token ids"):
        ready = fitted(tokenizer, rows)
        strays = outside(ready, rows)
        if strays:
            said = f"{len(strays)} lie beyond the table's {rows} rows, such as {next(iter(strays))!r}"
            found.add("token ids", f"{said}: prompts that contain them are refused", "note")
        else:
            found.add("token ids", f"all inside the table of {rows} rows; padding with {ready.pad_token!r}")


def _told_of_chat(found: Findings, model: Any, tokenizer: Any, chat: Chat) -> None:
    opening = repr(chat.opening) if chat.opening else "the end of the user's turn"
    found.add("answers", f"are opened by {opening}")
    if chat.end is None:
        found.add("answers", "the template writes no token at their end: they end at the config's alone", "note")
    names = [str(tokenizer.convert_ids_to_tokens(number)) for number in ends_of(model, tokenizer)]
    given = model.generation_config.eos_token_id
    known = set(given if isinstance(given, list) else [given])
    extra = chat.end is not None and chat.end not in known
    said = f"end at {', '.join(names)}" if names else "end at the token limit alone: no end token is named anywhere"
    said += f"; the configs do not name {chat.end_text}, which the template writes" if extra else ""
    found.add("answers", said, "note" if extra or not names else "ok")
    if chat.thinking:
        inside = "all answers begin inside one" if chat.opens_thinking else "answers may begin with one"
        found.add("thinking", f"blocks {chat.thinking[0]} … {chat.thinking[1]}: {inside}", "note")
    if chat.clock:
        found.add("date", "the template writes today's; it is told a fixed one instead (`date` in a config)", "note")
    if tokenizer.bos_token and not chat.writes_bos:
        found.add("beginning", f"the template does not write {tokenizer.bos_token}", "note")
