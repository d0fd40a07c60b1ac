"""A method at the best of a few settings: the same number of trials for every method, so that no row is favoured."""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ... import registry
from ...errors import InputError
from ..method import BuildContext, Built, Grid, Stage, post_hoc
from ..unlearning.config import check_settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Tuned"]


class _Seen(NamedTuple):
    """A model on the validation prompts and the retain check rows."""

    refused: float
    """Percent."""
    loss: float
    """Nats per token."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Builds a post-hoc method at a few settings and keeps the one that refuses most within an allowed loss.

    The settings tried are the first `budget` of the method's own `grid`, the published or default ones first.
    Validation prompts are of no other set; that they are refused is told by how an answer begins, not by the run's
    judges.
    """

    name: ClassVar[str] = "tuned"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Another post-hoc method at the best of a few settings, chosen on validation prompts."
    paper: ClassVar[str] = "none: a comparison at equal effort of this project"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("validation", "retain_check")
    """And what the method needs."""

    of: str = "interpolate"
    """The method."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of it that all trials have."""
    grid: Grid | None = None
    """Settings to try; null takes the method's own list."""
    budget: int = 6
    """Trials, at most."""
    allow: float = 0.05
    """How much the loss on the retain check rows may rise, as a share of what fine-tuning gained on them."""
    prompts: int = 64
    """Validation prompts, at most."""
    max_new_tokens: int = 64
    """Length of the answers to them."""

    def __post_init__(self) -> None:
        check_settings(self, counts=("budget", "prompts", "max_new_tokens"), not_negative=("allow",))
        if self.of == self.name:
            raise InputError("tuned chooses settings of another method, not of itself.")
        needs = [split for trial in self.trials for split in post_hoc(self.of, trial).needs]
        object.__setattr__(self, "needs", tuple(dict.fromkeys([*needs, *Tuned.needs])))

    @property
    def trials(self) -> list[dict[str, Any]]:
        """The settings that are tried, in order."""
        listed = getattr(registry.load("methods", self.of), "grid", ({},)) if self.grid is None else self.grid
        return [{**self.settings, **each} for each in listed][: self.budget]

    def build(self, context: BuildContext) -> Built:
        """Builds every trial from `context.parent`, and saves the one chosen.

        Raises:
            InputError: there is no parent, no trial can be built, or the rows are unusable.
        """
        if context.parent is None:
            raise InputError("The method tuned repairs a fine-tuned model, and none was given. Run lora first.")
        tuned, base = self._starts(context, context.parent)
        limit = tuned.loss + self.allow * max(base.loss - tuned.loss, 0.0)
        with TemporaryDirectory(prefix="safebasin-tuned-") as scratch:
            tried = list(self._tried(context, Path(scratch)))
            sound = [one for one in tried if "failed" not in one]
            if not sound:
                raise InputError(f"No setting of {self.of} could be tried: {tried[0]['failed']}")
            within = [one for one in sound if one["loss"] <= limit]
            if within:
                best = min(within, key=lambda one: (-one["refused"], one["loss"]))
            else:
                best = min(sound, key=lambda one: one["loss"])
                warnings.warn(
                    f"No setting of {self.of} keeps the retain loss within {limit:.4f} nats per token; the one with "
                    f"the lowest, {best['loss']:.4f}, is taken.",
                    stacklevel=2,
                )
            shutil.copytree(Path(scratch) / str(best["trial"]), context.output, dirs_exist_ok=True)
        details = {
            "of": self.of, "chosen": best["settings"], "within": bool(within), "limit": limit, "trials": tried,
            "tuned": tuned._asdict(), "base": base._asdict(),
        }  # fmt: skip
        return Built(safety_examples=max(one["safety_examples"] for one in sound), details=details)

    def _starts(self, context: BuildContext, parent: Path) -> tuple[_Seen, _Seen]:
        """The fine-tuned model, and the base."""
        from ..models.checkpoint import load_start
        from ..models.reference import as_base

        model, tokenizer = load_start(
            context.base, parent, context.lora, context.seed, context.revision, context.dtype, context.device
        )
        tuned = self._seen(model, tokenizer, context)
        with as_base(model):
            return tuned, self._seen(model, tokenizer, context)

    def _tried(self, context: BuildContext, scratch: Path) -> Iterator[dict[str, Any]]:
        from ..models.checkpoint import kind_of, load_checkpoint_model
        from ..models.loading import load_tokenizer, tokenizer_of

        for number, settings in enumerate(self.trials):
            folder = scratch / str(number)
            folder.mkdir()
            tick = _named(context, f"trial {number + 1} of {len(self.trials)}")
            about: dict[str, Any] = {"trial": number, "settings": dict(settings)}
            try:
                built = post_hoc(self.of, settings).build(replace(context, output=folder, tick=tick))
            except InputError as error:  # one setting may be unusable, as where it leaves nothing to merge
                yield {**about, "failed": " ".join(str(error).split())}
                continue
            model = load_checkpoint_model(
                context.base, folder, context.revision, context.dtype, context.device, parent=context.parent
            )
            whole = kind_of(folder) == "full"
            tokenizer = load_tokenizer(str(folder)) if whole else tokenizer_of(context.base, folder, context.revision)
            seen = self._seen(model, tokenizer, context)
            yield {**about, **seen._asdict(), "safety_examples": built.safety_examples}

    def _seen(self, model: Any, tokenizer: "PreTrainedTokenizerBase", context: BuildContext) -> _Seen:
        import torch

        from ..losses.encoding import asked, encode_all, pad_id_of
        from ..losses.objective import TokenMeanLoss
        from ..models.fitting import fitted, rows_of
        from ..models.parameters import FlatParameters
        from ..restoration.forget import looks_like_refusal, own_answers

        tokenizer, size = fitted(tokenizer, rows_of(model)), context.finetune.micro_batch_size
        rows = encode_all(tokenizer, context.data["retain_check"], "retain_check", context.max_length)
        unused = FlatParameters([("none", torch.nn.Parameter(torch.zeros(1)))])  # no gradient is asked for
        loss = TokenMeanLoss(model, unused, rows, size, pad_id_of(tokenizer), "retain check").loss()
        asks = [asked(row) for row in context.data["validation"][: self.prompts]]
        answers = own_answers(model, tokenizer, asks, self.max_new_tokens, size)
        return _Seen(100 * sum(looks_like_refusal(text) for text, _ in answers) / len(answers), loss)


def _named(context: BuildContext, trial: str) -> Any:
    return lambda what, done, total: context.tick(f"{trial}: {what}", done, total)
