"""`safebasin attack`: every model's own optimised suffixes, its answers under them, and the verdicts on these."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ...errors import InputError
from ...judges.base import RemoteJudge
from ...restore.models.checkpoint import kind_of
from ...restore.models.fitting import fitted, rows_of
from ...results.export import write_table
from ...results.method_result import Sample
from ...results.records import combine
from ...results.suffix import PLAIN, SuffixRow, prompt_table, suffix_table
from ...tasks.judging import exchange_of
from ...tasks.sandbox.location import is_sandbox, world_of
from ...tasks.verdicts import JudgeSpec, build_judges, judge_types
from ..store.digests import checkpoint_digest, code_digest, digest_of
from ..store.files import make_folder
from ..store.records import Sample as Answered
from ..store.store import Store
from ..terminal.progress import Bars
from .geometry_pair import BASE, compared
from .geometry_rows import rows_of_sets
from .journal import Journal
from .judge import judge_cells
from .loading import free_memory
from .manifest import write_manifest
from .models import ModelSource, resolve

if TYPE_CHECKING:
    import pandas as pd

    from ...judges.base import Judge
    from ...restore.attacks.slot import Slot
    from ...restore.attacks.suffix import Search, SuffixSettings

__all__ = ["PROMPTS", "SANDBOX_JUDGES", "TABLE", "AttackSettings", "attack_models"]

JOURNAL, STORE = "attacks.jsonl", "attacked.sqlite"
"""What is kept with its texts: the suffixes and answers as they come, and the verdicts."""
TABLE, PROMPTS = "suffix.csv", "suffix-prompts.csv"
SANDBOX_JUDGES: tuple[JudgeSpec, ...] = (
    {"llama_guard": {"model": "sandbox/guard"}}, {"keywords": {"list": "qi38"}}, "sandbox_oracle",
)  # fmt: skip
SANDBOX_ROWS = "sandbox/harmful_test"
_HARMFUL = "harmful"


@dataclass(frozen=True)
class AttackSettings:
    """What is attacked, and how."""

    base: str
    checkpoints: Mapping[str, Path]
    """Name -> adapter or whole model made from the base; empty, without `rows`, for the pair of a sandbox base."""
    data: str | None
    """Where the requests are, as for `geometry`; None is a sandbox world's own, or `rows`."""
    suffix: "SuffixSettings"
    columns: Mapping[str, str] = field(default_factory=dict)
    judges: Sequence[JudgeSpec] = ()
    """Empty is the sandbox's."""
    rows: Sequence[Mapping[str, Any]] = ()
    """The requests themselves, where they are at hand: `prompt`, and perhaps `target`."""
    searches: Sequence["Search"] = ("gradient", "random")
    prompts: int = 50
    """Requests, at most: the first ones."""
    max_new_tokens: int = 64
    seed: int = 0
    dtype: str = "auto"
    device: str | None = None


def attack_models(settings: AttackSettings, output: Path, shown: Bars) -> "pd.DataFrame":
    """Attacks the base and each checkpoint with suffixes of its own, and writes what came of it.

    Writes suffix.csv (returned, `suffix_table`), suffix-prompts.csv (`prompt_table`) and manifest.json. What is kept
    in attacks.jsonl is not attacked again, nor is judged again what attacked.sqlite has.

    Raises:
        InputError: models, rows or judges cannot be had, or do not fit each other; or the folder cannot be written.
    """
    specs = _judges(settings)
    judge_types(specs)
    make_folder(output)
    source, checkpoints = _models(settings, shown)
    world = world_of(source.location) if is_sandbox(settings.base) else None
    requests = _rows(settings, world, shown)
    judges = build_judges(specs, world or 0)
    attacking = _Attacking(settings, source, requests, Journal(output / JOURNAL, "attacks"), shown)
    found = [one for name, folder in checkpoints.items() for one in attacking.of(name, folder)]
    rows = _judged(found, requests, judges, output / STORE, shown)
    table = suffix_table(rows)
    write_table(table, output / TABLE)
    write_table(prompt_table(rows), output / PROMPTS)
    facts = {
        "command": "attack",
        "settings": {name: value for name, value in asdict(settings).items() if name not in ("checkpoints", "rows")},
        "checkpoints": {name: str(folder) for name, folder in checkpoints.items() if folder},
        "models": {name: _digest(source, folder) for name, folder in checkpoints.items()},
        "data": {"rows": len(requests), "digest": digest_of([dict(row) for row in requests])},
        "judges": [judge.identity for judge in judges],
    }
    write_manifest(output / "manifest.json", facts)
    return table


def _rows(settings: AttackSettings, world: int | None, shown: Bars) -> Sequence[Mapping[str, Any]]:
    if settings.rows:
        return settings.rows[: settings.prompts]
    data = settings.data or (SANDBOX_ROWS if world is not None else None)
    sets = {} if data is None else {_HARMFUL: data}
    read, said = rows_of_sets(sets, {_HARMFUL: dict(settings.columns)}, settings.prompts, world)
    for line in said:
        shown.say(escape(line))
    return read[_HARMFUL]


def _judges(settings: AttackSettings) -> Sequence[JudgeSpec]:
    if settings.judges:
        return settings.judges
    if is_sandbox(settings.base):
        return SANDBOX_JUDGES
    raise InputError(
        "--judge is missing: only a sandbox model has judges of its own. Give one that decides harm, for example "
        "--judge 'llama_guard={model: meta-llama/Llama-Guard-3-8B}', and perhaps keywords and coherence after it."
    )


def _models(settings: AttackSettings, shown: Bars) -> tuple[ModelSource, dict[str, Path | None]]:
    """The base, and name -> folder of all that is attacked; None is the base itself."""
    if BASE in settings.checkpoints:
        raise InputError(f"--checkpoint {BASE}=…: the base is attacked anyhow. Give the checkpoint another name.")
    if is_sandbox(settings.base):
        if not settings.checkpoints and not settings.rows:
            pair = compared(settings.base, None, None, shown).without_iterations()
            return pair.base, {BASE: None, **pair.checkpoints}
        from ..sandbox.build import build_model

        build_model(settings.base, lambda name, done, total: shown.update(f"sandbox: {name}", done, total))
    for folder in settings.checkpoints.values():
        kind_of(folder)
    return resolve(settings.base), {BASE: None, **settings.checkpoints}


def _digest(source: ModelSource, folder: Path | None) -> str:
    return source.digest if folder is None else checkpoint_digest(folder)


@dataclass(frozen=True)
class _Found:
    """What came of one request to one model under one search."""

    model: str
    search: str
    place: int
    kept: Mapping[str, Any]


@dataclass(frozen=True)
class _Attacking:
    settings: AttackSettings
    source: ModelSource
    rows: Sequence[Mapping[str, Any]]
    journal: Journal
    shown: Bars

    def of(self, name: str, folder: Path | None) -> list[_Found]:
        """All that comes of one model, which is loaded if something of it is not known yet."""
        searches = (PLAIN, *self.settings.searches)
        wanted = [(search, place) for search in searches for place in range(len(self.rows))]
        weights = [self.source.digest, "" if folder is None else checkpoint_digest(folder), self.settings.dtype]
        keys = {one: self._key(weights, *one) for one in wanted}
        if any(key not in self.journal.done for key in keys.values()):
            self._attack(name, folder, keys)
        return [_Found(name, *one, self.journal.done[key]) for one, key in keys.items()]

    def _key(self, weights: Sequence[str], search: str, place: int) -> str:
        """Digest of everything that decides what comes of one request."""
        given, code = self.settings, ("restore/attacks", "restore/losses", "restore/models", "restore/restoration")
        hard = {} if search == PLAIN else {**asdict(given.suffix), "batch_size": None, "seed": [given.seed, place]}
        return digest_of([weights, search, dict(self.rows[place]), hard, given.max_new_tokens, code_digest(*code)])

    def _attack(self, name: str, folder: Path | None, keys: Mapping[tuple[str, int], str]) -> None:
        from ...restore.attacks.slot import suffix_tokens

        model, tokenizer = self._load(folder)
        tokens = suffix_tokens(tokenizer, rows_of(model))
        slots = list(self._slots(model, tokenizer, tokens))
        for number, ((search, place), key) in enumerate(keys.items()):
            self.shown.update(f"{name}: attack", number, len(keys))
            if key not in self.journal.done:
                self.journal.keep(key, self._one(model, tokenizer, slots[place], tokens, search, place))
        self.shown.update(f"{name}: attack", len(keys), len(keys))
        del model
        free_memory()

    def _load(self, folder: Path | None) -> tuple[Any, Any]:
        from ...restore.models.loading import load_base, load_tokenizer, load_tuned

        given = self.settings
        if folder is not None and kind_of(folder) == "adapter":
            return load_tuned(self.source.location, folder, None, given.dtype, given.device)
        where = self.source.location if folder is None else str(folder)
        model = load_base(where, None, given.dtype, given.device)
        return model, fitted(load_tokenizer(where), rows_of(model))

    def _slots(self, model: Any, tokenizer: Any, tokens: Sequence[int]) -> Iterator["Slot"]:
        """Where the suffix of each request stands; all are looked at before the first is attacked."""
        from ...restore.attacks.slot import slot_for
        from ...restore.losses.fit import check_fit

        given = self.settings.suffix
        for row in self.rows:
            slot = slot_for(tokenizer, row, tokens, given.length, given.target_tokens)
            prompt = (*slot.before, *slot.start, *slot.after)
            check_fit(model, [prompt], _HARMFUL, max(self.settings.max_new_tokens, len(slot.target)))
            yield slot

    def _one(
        self, model: Any, tokenizer: Any, slot: "Slot", tokens: Sequence[int], search: str, place: int
    ) -> dict[str, Any]:
        """One search, and the model's answer to what it found."""
        from ...restore.attacks.suffix import SEARCHES, attack
        from ...restore.attacks.suffix_loss import SuffixLoss
        from ...restore.losses.encoding import asked
        from ...restore.restoration.forget import own_answers

        found: dict[str, Any] = {}
        prompt = asked(slot.row)
        for known in SEARCHES:
            if known == search:
                loss = SuffixLoss(model, slot, self.settings.suffix.batch_size)
                ended = attack(loss, slot, tokens, self.settings.suffix, known, f"{self.settings.seed} {place}")
                prompt = slot.prompt(ended.suffix)
                found = {
                    **{"text": slot.text(ended.suffix), "loss_start": ended.losses[0], "loss_end": ended.losses[-1]},
                    **{"steps": ended.steps, "evaluated": ended.evaluated, "target_greedy": ended.greedy},
                }
        ((answer, _),) = own_answers(model, tokenizer, [prompt], self.settings.max_new_tokens, 1)
        return {**found, "answer": answer}


def _judged(
    found: Sequence[_Found], rows: Sequence[Mapping[str, Any]], judges: Sequence["Judge"], path: Path, shown: Bars
) -> list[SuffixRow]:
    """The outcome of each answer, as one to the request without its suffix: that is what was wanted."""
    for judge in judges:
        if isinstance(judge, RemoteJudge):
            shown.say(f"[yellow]{escape(judge.notice)}[/yellow]")
    exchanges = [exchange_of({"prompt": rows[one.place]["prompt"]}, one.kept["answer"]) for one in found]
    samples = [Answered(number, *exchange) for number, exchange in enumerate(exchanges)]
    key = digest_of([list(exchange) for exchange in exchanges])
    with closing(Store(path)) as store:
        if not store.has_cell(key):
            store.add_cell(key, {"command": "attack"}, None, samples, len(samples))
        judge_cells(judges, [key], "attack", store, lambda name, *n: shown.update(f"judge: {name}", *n))
        verdicts = [store.verdicts(judge.identity, exchanges) for judge in judges]
    made = []
    for one, exchange in zip(found, exchanges, strict=True):
        outcome, verdict = combine([(j.decides, own[exchange]) for j, own in zip(judges, verdicts, strict=True)])
        sample = Sample(one.place, outcome, verdict.refused)
        numbers = {name: value for name, value in one.kept.items() if name not in ("text", "answer")}
        made.append(SuffixRow(one.model, one.search, sample, **numbers))
    return made
