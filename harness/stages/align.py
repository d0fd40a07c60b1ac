"""The align stage: a base that refuses nothing becomes one that does, once, in the cache, before anything is built.

The result is an ordinary model folder. It lies under the digest of what it is made from: the model, settings, rows and
code; so runs that align alike share it, and everything built on it has its weights' digest in its own key.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...restore.method import Tick
from ...restore.models.files import digests_of
from ...tasks.sandbox.location import cache_folder, world_of
from ..config.alignment import AlignConfig
from ..config.data import aligned_safety_rows, benign_rows
from ..config.model import ModelSpec, RunConfig
from ..store.digests import code_digest, digest_of, files_digest
from ..store.files import finished_folder
from .leaks import check_benign, check_leaks
from .models import ALIGNED, ModelSource, aligned_from, resolve
from .peak import measured

__all__ = ["find_model", "model_of"]

_CODE = (
    "restore/alignment", "restore/finetuning/training.py", "restore/finetuning/whole.py", "restore/losses/encoding.py",
    "restore/models", "restore/restoration/forget.py",
)  # fmt: skip


def model_of(spec: ModelSpec, config: RunConfig, tick: Tick) -> ModelSource:
    """The base of a model of a run: found, fetched, and aligned where the config says so.

    Raises:
        InputError: it cannot be had; or the alignment's rows are unusable or measured on, or it diverges.
    """
    found = find_model(spec, config)
    return found or _aligned(spec, spec.align or AlignConfig(), config, tick)


def find_model(spec: ModelSpec, config: RunConfig) -> ModelSource | None:
    """As `model_of`, but nothing is trained: None where the alignment is still to be made.

    Raises:
        InputError: as `model_of`.
    """
    given = resolve(spec.id, spec.revision, spec.unaligned)
    if spec.align is None:
        return given
    made_from, *_ = _ingredients(spec.align, given, config)
    folder = _folder(made_from)
    about = aligned_from(folder)
    sound = about is not None and about["digest"] == files_digest(folder)
    return _source(given, folder) if sound else None


def _source(given: ModelSource, folder: Path) -> ModelSource:
    """The aligned model in `folder` in place of the one given, which becomes its unaligned one."""
    return replace(
        given,
        location=str(folder),
        revision=None,
        digest=files_digest(folder),
        files=digests_of(folder),
        unaligned=given.unaligned or given,
    )


def _folder(made_from: dict[str, Any]) -> Path:
    return cache_folder() / "aligned" / digest_of(made_from)[:16]


def _ingredients(
    align: AlignConfig, given: ModelSource, config: RunConfig
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """What decides the aligned model; the harmful rows; the benign rows."""
    world = world_of(given.name)
    harmful, benign = aligned_safety_rows(align, config, world), benign_rows(align, config, world)
    made_from = {
        "base": given.digest,
        "settings": align.model_dump(mode="json", exclude={"benign", "columns"}),
        "safety": digest_of(harmful),
        "benign": digest_of(benign),
        "dtype": config.dtype,
        "date": str(config.date),
        "think_end_token": config.think_end_token,
        "code": code_digest(*_CODE),
    }
    return made_from, harmful, benign


def _aligned(spec: ModelSpec, settings: AlignConfig, config: RunConfig, tick: Tick) -> ModelSource:
    from ...restore.alignment.align import Alignment, align

    given = resolve(spec.id, spec.revision, spec.unaligned)
    made_from, harmful, benign = _ingredients(settings, given, config)
    check_leaks({"safety": harmful}, config, given.location)
    check_benign(benign, config, given.location)
    how = Alignment(
        training=settings.training(),
        deep=settings.deep,
        questions=settings.questions,
        contrast=settings.contrast,
        answers=settings.answers,
        answer_tokens=settings.answer_tokens,
        generate_batch=config.batch_size,
        seed=settings.seed,
        dtype=config.dtype,
        device=config.device,
    )
    folder = _folder(made_from)
    with finished_folder(folder) as scratch:
        with measured() as cost:
            built = align(given.location, harmful, benign, how, scratch, tick)
        about = {
            "stage": "align",
            "key": digest_of(made_from),
            "digest": files_digest(scratch),
            "minutes": cost.minutes,
            "peak_gb": cost.peak_gb,
            "safety_examples": built.safety_examples,
            "details": dict(built.details),
            "made_from": made_from,
        }
        (scratch / ALIGNED).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return _source(given, folder)
