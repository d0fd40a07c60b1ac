"""`repair`: any post-hoc method on a model in memory."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..errors import InputError
from .config.settings import RestoreConfig
from .config.training import TrainingConfig
from .method import BuildContext, Tick, post_hoc
from .models.adapter_files import check_same_base
from .models.checkpoint import kind_of
from .models.loading import save_adapter
from .restoration.data import Rows, present, split_forget, split_retain

__all__ = ["REPAIRED", "Repaired", "repair"]

REPAIRED = "repaired"
"""Name of the repaired adapter on the model; the one that it was made of stays beside it."""


@dataclass(frozen=True)
class Repaired:
    """A model with its repaired adapter, active, and how it came about."""

    model: Any
    """The PEFT model that was given."""
    adapter: str
    """Name of the repaired adapter on it; `model.set_adapter` goes back to the tuned one."""
    safety_examples: int
    """Number of distinct harmful prompts used."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the method tells of itself."""

    def save_pretrained(self, folder: str | Path, base: str | None = None) -> None:
        """Saves the repaired adapter as a standard PEFT folder; `base` is noted as its base model's name."""
        self.model.set_adapter(self.adapter)
        save_adapter(self.model, folder, base)


def repair(
    peft_model: Any,
    method: str,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    forget: Rows = (),
    retain: Rows = (),
    base: str | None = None,
    unaligned: str | None = None,
    finetune: TrainingConfig | None = None,
    seed: int = 0,
    on_progress: Tick = lambda what, done, total: None,
    **settings: Any,
) -> Repaired:
    """Repairs a fine-tuned LoRA adapter by a post-hoc method, as a run's config does with `{method: {settings}}`.

    The method works on a copy of the adapter and loads the base anew from where it came, so that there must be room for
    two; nothing of the model in memory is changed but that the repaired adapter is put on it, beside the tuned one.

    Args:
        peft_model: a PEFT model with one active LoRA adapter.
        method: a post-hoc method (`safebasin list methods`).
        tokenizer: saved for the method where it is not the base's own.
        forget: harmful prompts, as for `restore`; with `refusal` where the base's own are not wanted.
        retain: rows with `prompt` and `response` of the task to keep.
        base: folder or hub id of the base; None takes the name that the adapter's config notes.
        unaligned: folder of the base before its alignment, for methods that compare the two.
        finetune: optimizer settings for methods that train; None is the defaults of `TrainingConfig`.
        seed: decides splits and whatever is drawn.
        on_progress: called with (what is being done, steps done, steps in all).
        settings: of the method.

    Raises:
        InputError: no such post-hoc method or setting, rows that it needs are missing, the base cannot be loaded, the
            result is a whole model, or anything that the method raises. The model is as it was.
    """
    made = post_hoc(method, settings)
    config = peft_model.peft_config[peft_model.active_adapter]
    check_same_base(vars(config))
    found = base or config.base_model_name_or_path
    if not found:
        raise InputError("The adapter does not say what its base is. Give base=, a folder or hub id.")
    parameter = next(peft_model.get_base_model().parameters())
    dtype = str(parameter.dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory(prefix="safebasin-repair-") as scratch:
        tuned, output = Path(scratch) / "tuned", Path(scratch) / REPAIRED
        tuned.mkdir()
        output.mkdir()
        save_adapter(peft_model, tuned)
        if tokenizer is not None:
            tokenizer.save_pretrained(str(tuned))
        context = BuildContext(
            base=found, revision=config.revision, output=output, finetune=finetune or TrainingConfig(),
            lora=_lora(config), data=_data(made, forget, retain, seed), parent=tuned, unaligned=unaligned, seed=seed,
            tick=on_progress, dtype=dtype if parameter.is_floating_point() else "auto",
            device=str(parameter.device),
        )  # fmt: skip
        built = made.build(context)
        if kind_of(output) == "full":
            raise InputError(
                f"With these settings {method} makes a whole model, which cannot be put on this one. Use other "
                "settings, or `safebasin run`."
            )
        _put(peft_model, output)
    return Repaired(peft_model, REPAIRED, built.safety_examples, built.details)


def _lora(config: Any) -> dict[str, Any]:
    targets = config.target_modules
    modules = targets if isinstance(targets, str) else sorted(targets)
    return {"rank": config.r, "alpha": config.lora_alpha, "dropout": 0.0, "target_modules": modules}


def _data(method: Any, forget: Rows, retain: Rows, seed: int) -> dict[str, Rows]:
    """The sets that the method needs, split as `restore` does; `safety` is all harmful prompts.

    Raises:
        InputError: rows that they are made of are missing, or too few.
    """
    sizes = {name: getattr(method, name) for name in ("forget_size", "check_size") if hasattr(method, name)}
    config, needs = RestoreConfig(seed=seed, **sizes), set(method.needs)
    sets: dict[str, Rows] = {}
    if needs & {"forget", "curvature_forget", "safety"}:
        if not forget:
            raise InputError(f"{method.name} needs harmful prompts. Give forget=, rows with the column prompt.")
        sets["safety"] = [{**row, "response": row.get("refusal")} for row in present(forget)]
        sets |= split_forget(forget, None, config)
    if needs & {"retain_1", "retain_2", "retain_check"}:
        if not retain:
            raise InputError(
                f"{method.name} needs rows of the task. Give retain=, with the columns prompt and response."
            )
        sets |= split_retain(retain, None, config)
    if others := sorted(needs - set(sets)):
        raise InputError(f"{method.name} needs rows of {', '.join(others)}, which only a run has. Use `safebasin run`.")
    return {name: sets[name] for name in method.needs}


def _put(peft_model: Any, folder: Path) -> None:
    if REPAIRED in peft_model.peft_config:
        peft_model.delete_adapter(REPAIRED)
    training = peft_model.training
    peft_model.load_adapter(str(folder), REPAIRED)
    peft_model.set_adapter(REPAIRED)
    peft_model.train(training)
