"""A saved LoRA adapter as factors, read and written without loading a model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ...errors import InputError
from .adapter_files import adapter_tensors, carry_tokenizer, check_adapter, check_same_base

__all__ = ["Factors", "LoraFiles", "lora_pairs"]

PREFIX, END = "base_model.model.", ".lora_B.weight"


class Factors(NamedTuple):
    """The update scale * b a of one weight."""

    a: Tensor
    """[r, d_in]"""
    b: Tensor
    """[d_out, r]"""
    scale: float = 1.0

    @property
    def dense(self) -> Tensor:
        """The update [d_out, d_in] in float64."""
        return self.scale * (self.b.double() @ self.a.double())


def lora_pairs(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The A [r, d_in] and B [d_out, r] of every adapted linear module, by the module's name in the base model.

    A and B are told apart by name: by shape they cannot be, where d_out equals the rank.
    """
    ends = [name for name in tensors if name.endswith(END)]
    return {
        name.removeprefix(PREFIX).removesuffix(END): (tensors[name.replace("lora_B", "lora_A")], tensors[name])
        for name in sorted(ends)
    }


@dataclass(frozen=True)
class LoraFiles:
    """A plain LoRA adapter of linear modules: its tensors on the CPU, under the names of its file, and its config."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    folder: Path
    """Where it was read from."""

    @classmethod
    def read(cls, folder: Path) -> "LoraFiles":
        """Reads a PEFT folder.

        Raises:
            InputError: it is none or damaged, or not of a plain LoRA of linear modules on the base as it is.
        """
        check_adapter(folder)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = adapter_tensors(folder)
        if config.get("peft_type") != "LORA" or config.get("use_dora") or not lora_pairs(tensors):
            raise InputError(
                f"The adapter '{folder}' is no plain LoRA of linear modules. Only such can be repaired by this method."
            )
        check_same_base(config)
        return cls(tensors, config, folder)

    @property
    def factors(self) -> dict[str, Factors]:
        """Module -> its factors, the scale as PEFT takes it: alpha / r, or alpha / sqrt(r) with rsLoRA."""
        return {module: Factors(a, b, self._scale(module, len(a))) for module, (a, b) in self.pairs.items()}

    @property
    def pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Module -> its A and B."""
        return lora_pairs(self.tensors)

    @property
    def others(self) -> list[str]:
        """Names of what the adapter changes besides: modules saved whole, biases, embeddings."""
        return sorted(set(self.tensors) - {name for module in self.pairs for name in _names(module)})

    def _scale(self, module: str, rank: int) -> float:
        from peft.utils.other import get_pattern_key

        patterns: dict[str, float] = self.config.get("alpha_pattern") or {}
        alpha = float(patterns.get(get_pattern_key(list(patterns), module), self.config["lora_alpha"]))
        return alpha / (sqrt(rank) if self.config.get("use_rslora") else rank)

    def with_pairs(self, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> "LoraFiles":
        """The same adapter with these A and B in place of its own, of the same rank."""
        changed = {
            name: part for module, pair in pairs.items() for name, part in zip(_names(module), pair, strict=True)
        }
        return LoraFiles({**self.tensors, **changed}, self.config, self.folder)

    def of_scale_one(self, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> "LoraFiles":
        """An adapter of the same modules with these A and B, all of one rank, and scale 1."""
        (rank,) = {len(a) for a, _ in pairs.values()}
        config = {"r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
        return LoraFiles(self.with_pairs(pairs).tensors, {**self.config, **config}, self.folder)

    def save(self, folder: Path, base: str) -> None:
        """Writes a standard PEFT folder, with the tokenizer that it came with; `base` is noted as its base's name."""
        from safetensors.torch import save_file

        tensors = {name: part.contiguous() for name, part in self.tensors.items()}
        save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
        config = {**self.config, "base_model_name_or_path": base, "inference_mode": True}
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        carry_tokenizer(self.folder, folder)


def _names(module: str) -> tuple[str, str]:
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}{END}"
