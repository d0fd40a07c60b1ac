"""`safebasin lm-eval`: lm-eval's own command line with our tasks and models in it, and three of its traps closed."""

import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...tasks.catalog import tasks_dir
from ..store.digests import digest_of, files_digest

__all__ = ["MODELS", "lm_eval"]

MODELS = {"safebasin": "safebasin.harness.commands.lm_eval_model:SafebasinLM"}
"""lm-eval's name of a model -> module and class."""
_FOLDERS = ("pretrained", "peft", "delta", "lora_local_path", "tokenizer")
"""Model arguments that may name a folder with weights."""


def lm_eval(arguments: Sequence[str]) -> None:
    """Runs lm-eval with the arguments of its own command line.

    Raises:
        InputError: lm-eval cannot use the arguments, or they ask for a cache that may answer for something else.
    """
    import lm_eval.models  # noqa: F401  # before ours are registered: lm-eval fills its registry only while it is empty
    from lm_eval._cli import HarnessCLI
    from lm_eval.api.registry import model_registry
    from lm_eval.utils import setup_logging

    for name, target in MODELS.items():
        model_registry.register(name, target=target)
    setup_logging()
    sys.argv = ["lm-eval", *arguments]
    from ...tasks.judging import deferred

    parser = HarnessCLI()
    given = parser.parse_args()
    _prepare(given)
    try:
        with _samples_by_document(), deferred() if getattr(given, "predict_only", False) else nullcontext():
            parser.execute(given)
    except ValueError as error:
        if not str(error).startswith("Tasks not found"):
            raise
        raise InputError(f"{error}. `safebasin lm-eval ls tasks` lists all, `safebasin list tasks` ours.") from None


@contextmanager
def _samples_by_document() -> Iterator[None]:
    """Puts logged samples in the order of their documents; lm-eval has them data-parallel rank by rank."""
    from lm_eval import evaluator

    evaluate = evaluator.simple_evaluate

    def ordered(*arguments: Any, **settings: Any) -> Any:
        results = evaluate(*arguments, **settings)
        for samples in ((results or {}).get("samples") or {}).values():
            samples.sort(key=lambda sample: (sample["filter"], sample["doc_id"]))
        return results

    evaluator.simple_evaluate = ordered
    try:
        yield
    finally:
        evaluator.simple_evaluate = evaluate


def _prepare(given: Namespace) -> None:
    """Puts our tasks before the user's folder, and looks at the caches of a run."""
    folder = getattr(given, "include_path", None)
    if given.command == "run":
        from lm_eval.config.evaluate_config import EvaluatorConfig

        try:
            config = EvaluatorConfig.from_cli(given)
        except (ValueError, TypeError, FileNotFoundError) as error:
            raise InputError(f"lm-eval cannot use these arguments: {error}") from error
        _check_caches(config)
        folder = config.include_path
    others = [folder] if isinstance(folder, str) else list(folder or [])
    given.include_path = [str(tasks_dir()), *others]


def _check_caches(config: Any) -> None:
    from ...tasks.checked import SIGNED_CACHES

    if config.cache_requests:
        raise InputError(
            "--cache_requests cannot be used here: that cache knows nothing of a task's data, template and prefix, and "
            "would run old prompts. Leave the option out."
        )
    if config.use_cache:
        _claim_cache(Path(config.use_cache), str(config.model), config.model_args or {})
        SIGNED_CACHES.add(str(config.use_cache))


def _claim_cache(path: Path, model: str, arguments: Mapping[str, Any]) -> None:
    """Notes whose answers the cache at `path` holds.

    Raises:
        InputError: it holds another model's, or nobody knows whose.
    """
    owner = {"model": model, "arguments": {key: str(arguments[key]) for key in sorted(arguments)}}
    owner["weights"] = {
        key: files_digest(Path(str(arguments[key])))
        for key in _FOLDERS
        if Path(str(arguments.get(key, ""))).is_dir() and arguments.get(key)
    }
    note = path.with_name(f"{path.name}.owner.json")
    noted = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
    if noted is None and any(path.parent.glob(f"{path.name}_rank*.db")):
        raise InputError(f"--use_cache {path}: nobody knows whose answers it holds ({note} is missing). {_ANOTHER}")
    if noted is not None and noted["digest"] != digest_of(owner):
        raise InputError(
            f"--use_cache {path} holds the answers of {_shown(noted)}, which lm-eval would give for "
            f"{_shown(owner)} as well. {_ANOTHER}"
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({**owner, "digest": digest_of(owner)}, indent=1) + "\n", encoding="utf-8")


_ANOTHER = "Give each model a cache of its own."


def _shown(owner: Mapping[str, Any]) -> str:
    arguments = ",".join(f"{key}={value}" for key, value in owner["arguments"].items())
    weights = f" with weights {digest_of(owner['weights'])[:12]}" if owner["weights"] else ""
    return f"{owner['model']} ({arguments}){weights}"
