"""`restore`: the curvature-aware restoration of any LoRA adapter, in memory or from folder to folder."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..errors import InputError
from .config.settings import RestoreConfig
from .models.adapter_files import carry_tokenizer
from .models.checkpoint import save_full
from .models.files import digests_of, local_folder
from .models.loading import load_tuned
from .models.merge import check_untied, merged
from .restoration.data import RestorationData, Rows, split
from .restoration.loop import Tick
from .restoration.problem import RestoreResult, restore_on

__all__ = ["Prepared", "RestoreResult", "check_free", "prepare", "restore", "restore_folder"]


def restore(
    peft_model: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    forget: Rows,
    retain: Rows,
    retain_check: Rows | None = None,
    curvature_forget: Rows | None = None,
    config: RestoreConfig | None = None,
    inplace: bool = True,
    on_progress: Tick | None = None,
) -> RestoreResult:
    """Restores the safety of a fine-tuned LoRA adapter.

    Goes back to the base model's own refusals of harmful prompts, along the inverse curvature of the loss, until as
    many held-out ones are refused as by the base, while the loss on held-out retain rows stays within its bound.

    Args:
        peft_model: a PEFT model with one active LoRA or rsLoRA adapter; it need not be trainable. The base may be
            quantised, spread over devices or partly offloaded.
        tokenizer: its tokenizer, with a chat template.
        forget: harmful prompts: rows with `prompt` and, optionally, a `refusal` to go back to (else the base's own) and
            an affirmative `target` (for `ascend`).
        retain: rows with `prompt` and `response` of the task to keep.
        retain_check: rows to enforce epsilon on; split off `retain` by default.
        curvature_forget: harmful prompts that no update works on: they tell when it is done, and with pairs they probe
            curvature; split off `forget` by default.
        config: settings; `RestoreConfig.from_preset("paper")` has the paper's.
        inplace: False leaves `peft_model` alone and restores a copy of the adapter (the base's weights are shared).
        on_progress: called with (what is being done, steps done, steps in all).

    Raises:
        InputError: bad input, or a loss that is not finite; the model is as it was. After any other interruption it
            is as after the last accepted update. Ctrl-C takes effect as the next forward pass begins.
    """
    config = config or RestoreConfig()
    data = split(forget, retain, retain_check, curvature_forget, config)
    return restore_on(peft_model, tokenizer, data, config, inplace=inplace, on_progress=on_progress)


@dataclass(frozen=True)
class Prepared:
    """A tuned model from folders, with the rows of its restoration."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    data: RestorationData
    config: RestoreConfig
    base: str
    adapter: str | Path
    own_tokenizer: bool = False
    """Whether the tokenizer is another than that of base or adapter."""

    def restore(self, on_progress: Tick | None = None, on_update: Callable[[int], None] | None = None) -> RestoreResult:
        """As `restore`, in place.

        Args:
            on_progress: see there.
            on_update: called with the number of the iteration, from 1, after each accepted update.

        Raises:
            InputError: as `restore`.
        """
        return restore_on(
            self.model, self.tokenizer, self.data, self.config, on_progress=on_progress, on_update=on_update
        )

    def save(self, result: RestoreResult, output: str | Path, merge: bool = False) -> None:
        """Saves the restored adapter to a new folder, which appears only when complete.

        Args:
            result: of `restore`.
            output: the folder.
            merge: whether the whole model is saved instead, the adapter merged into it; it is gone from `model` then.

        Raises:
            InputError: the adapter cannot be merged into the base as it is loaded.
        """
        output = Path(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        try:
            if merge:
                self.check_mergeable()
                save_full(merged(self.model), self.tokenizer, partial)
                result.record.save(partial)
            else:
                result.save_pretrained(partial, self.base)
                carry_tokenizer(self.adapter, partial)
                if self.own_tokenizer:
                    self.tokenizer.save_pretrained(str(partial))
            partial.chmod(0o755)  # mkdtemp makes folders private
            os.replace(partial, output)
        except BaseException:  # whatever ends it, no half-written folder stays
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def check_mergeable(self) -> None:
        """What `save` with `merge` needs, for whoever wants to know before the restoration.

        Raises:
            InputError: the base is loaded quantised, or the adapter changes one end of a table that the model uses for
                both embedding and output.
        """
        if getattr(self.model.config, "quantization_config", None) is not None:
            raise InputError(
                f"'{self.base}' is loaded quantised: merging would round the update away. Give the base in 16 or 32 "
                "bits, or leave --merge out."
            )
        check_untied(self.model)


def prepare(
    base: str,
    adapter: str | Path,
    forget_rows: Rows,
    retain_rows: Rows,
    *,
    retain_check: Rows | None = None,
    curvature_forget: Rows | None = None,
    config: RestoreConfig | None = None,
    tokenizer: str | None = None,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | None = None,
) -> Prepared:
    """Loads a base model and an adapter folder, and splits the rows.

    Args:
        base: folder or hub id.
        adapter: PEFT folder.
        forget_rows: as for `restore`, like `retain_rows`, `retain_check`, `curvature_forget` and `config`.
        retain_rows: see there.
        retain_check: see there.
        curvature_forget: see there.
        config: see there.
        tokenizer: folder or hub id of another tokenizer than that beside the adapter, or the base's.
        revision: of the base, on the hub.
        dtype: of the base: auto, float32, bfloat16 or float16.
        device: where to; None is the accelerator if there is one.

    Raises:
        InputError: whatever splitting or loading raises.
    """
    config = config or RestoreConfig()
    data = split(forget_rows, retain_rows, retain_check, curvature_forget, config)
    model, found = load_tuned(base, adapter, revision, dtype, device, trainable=True, tokenizer=tokenizer)
    _warn_of_other_base(model, base)
    return Prepared(model, found, data, config, base, adapter, tokenizer is not None)


def restore_folder(
    base: str,
    adapter: str | Path,
    forget_rows: Rows,
    retain_rows: Rows,
    output: str | Path,
    *,
    retain_check: Rows | None = None,
    curvature_forget: Rows | None = None,
    config: RestoreConfig | None = None,
    tokenizer: str | None = None,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | None = None,
    on_progress: Tick | None = None,
) -> RestoreResult:
    """Loads a base model and an adapter folder, restores, and saves to a new folder, which appears only when complete.

    The arguments are those of `prepare`.

    Raises:
        InputError: `output` holds something already, or anything that `restore` or loading raises.
    """
    check_free(output)
    ready = prepare(
        base, adapter, forget_rows, retain_rows, retain_check=retain_check, curvature_forget=curvature_forget,
        config=config, tokenizer=tokenizer, revision=revision, dtype=dtype, device=device,
    )  # fmt: skip
    result = ready.restore(on_progress)
    ready.save(result, output)
    return result


def check_free(output: str | Path) -> None:
    """What is restored goes to a folder of its own.

    Raises:
        InputError: `output` holds something already.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"The output '{output}' exists already. Give a new folder, or remove it.")


def _warn_of_other_base(model: Any, base: str) -> None:
    noted = model.peft_config[model.active_adapter].base_model_name_or_path
    if noted and not _same_base(noted, base):
        warnings.warn(f"The adapter was trained on '{noted}', not on '{base}'; their shapes fit.", stacklevel=3)


def _same_base(noted: str, given: str) -> bool:
    """Whether two names are of one folder, or of folders with the same weights."""
    one, other = local_folder(noted), local_folder(given)
    if noted == given or one is None or other is None:
        return noted == given
    return one.resolve() == other.resolve() or _weights(one) == _weights(other)


def _weights(folder: Path) -> list[str]:
    return sorted(digest for name, digest in digests_of(folder).items() if name.endswith((".safetensors", ".bin")))
