"""Embedding tables that an adapter holds beside its LoRA: of another size than the base's, or trained along."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from .adapter_files import check_adapter
from .files import read_json
from .fitting import rows_of

__all__ = ["changes_base", "state_names", "table_names", "table_rows"]


def table_rows(model: PreTrainedModel, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Rows of the embedding table that an adapter holds, if the model's has another number of them."""
    tables = [table for table in (model.get_input_embeddings(), model.get_output_embeddings()) if table is not None]
    names = [name for name, module in model.named_modules() if any(module is table for table in tables)]
    found = set()
    for key, shape in shapes.items():
        plain = key.removeprefix("base_model.model.").replace(".base_layer", "")
        if any(plain == f"{name}.weight" for name in names):
            found.add(shape[0])
        elif any(plain == f"{name}.lora_embedding_A" for name in names):
            found.add(shape[1])
    return max(found) if found - {rows_of(model)} else None


def changes_base(model: PreTrainedModel, folder: str | Path) -> bool:
    """Whether putting the adapter on the model overwrites its own weights: the adapter holds an embedding table."""
    shapes = check_adapter(folder)
    config = read_json(Path(folder) / "adapter_config.json")
    kept = config.get("modules_to_save") or () if isinstance(config, dict) else ()
    plain = [key.removeprefix("base_model.model.") for key in shapes if "lora_" not in key]
    own = [key for key in plain if key.rpartition(".")[0].rpartition(".")[2] not in kept]
    return bool(own) or table_rows(model, shapes) is not None


def table_names(adapted: Any) -> set[str]:
    """What an adapter that holds the model's embedding tables calls them."""
    return state_names(adapted, with_tables=True) - state_names(adapted, with_tables=False)


def state_names(adapted: Any, with_tables: bool) -> set[str]:
    """What PEFT would save of the adapter, by name, with the model's embedding tables or without."""
    from peft import get_peft_model_state_dict

    return set(get_peft_model_state_dict(adapted, save_embedding_layers=with_tables))
