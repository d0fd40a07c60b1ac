"""The files of a model or adapter folder: which of them decide answers, their digest, and whether they are whole."""

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import InputError

__all__ = ["check_files", "deciding_files", "digests_of", "file_digest", "files_digest", "local_folder"]

_NO_SUFFIXES = frozenset(
    ".md .png .jpg .jpeg .gif .svg .pdf .log .csv .jsonl .lock .gguf .onnx .msgpack .h5 .ot .pth .pt .zip .tfevents"
    .split()
)  # fmt: skip
_NO_NAMES = ("license", "licence", "notice", "use_policy", "readme")
_TRAINING = frozenset(
    "trainer_state.json training_args.bin training_args.json all_results.json train_results.json eval_results.json "
    "optimizer.bin scheduler.bin provenance.json restoration_trace.json sandbox.json"
    .split()
)  # fmt: skip
"""What trainers, and we ourselves, write beside a model: nothing that loads or generates reads it."""
_VOLATILE = ("_name_or_path", "transformers_version", "peft_version", "base_model_name_or_path")
_NORMALISED = ("config.json", "adapter_config.json", "generation_config.json")
_POINTER = b"version https://git-lfs.github.com/spec/"


def deciding_files(folder: Path) -> list[Path]:
    """Every file that loading, tokenizing, templating or generating may read, in order of their names.

    All files of the folder count but those known to be read by nothing (documents, other formats, what trainers leave
    behind); of subfolders, templates (`chat_templates/`), Python modules, and weights that an index names. Where there
    are safetensors, transformers and PEFT do not read `*.bin`.
    """
    found = {path for path in folder.iterdir() if path.is_file() and _decides(path)}
    found |= {path for path in folder.rglob("*.py") if not path.relative_to(folder).parts[0].startswith(".")}
    found |= set((folder / "chat_templates").glob("*.jinja"))
    found |= {folder / name for path in found.copy() if path.name.endswith(".index.json") for name in _shards(path)}
    safe = any(path.suffix == ".safetensors" for path in found)
    return sorted(path for path in found if path.is_file() and not (safe and path.suffix == ".bin"))


def _decides(path: Path) -> bool:
    name = path.name.lower()
    known = (
        name in _TRAINING or name.endswith("_report.json") or name.startswith((".", *_NO_NAMES)) or "tfevents" in name
    )
    return not known and path.suffix.lower() not in _NO_SUFFIXES


def _shards(index: Path) -> list[str]:
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError):  # `check_files` says what is wrong with it
        return []
    return sorted({str(file) for file in named.values()}) if isinstance(named, dict) else []


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; a file that has not changed is read once per process."""
    about = path.stat()
    return _digest(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, changed: int) -> str:
    """Size and time of change are there to miss the cache when the file was replaced."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_of(folder: Path) -> dict[str, str]:
    """Name of each deciding file -> SHA-256 of what it says; where the folder lies, and who wrote it, does not count.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder '{folder}'. Give the folder of a model or an adapter.")
    return {
        str(path.relative_to(folder)): _settings_digest(path) if path.name in _NORMALISED else file_digest(path)
        for path in deciding_files(folder)
    }


def files_digest(folder: Path) -> str:
    """One SHA-256 over `digests_of` (64 hex digits).

    Raises:
        InputError: as `digests_of`.
    """
    return hashlib.sha256(json.dumps(digests_of(folder), sort_keys=True).encode()).hexdigest()


def _settings_digest(path: Path) -> str:
    try:
        settings = read_json(path)
    except InputError:  # loading will say what is wrong with it
        return file_digest(path)
    if isinstance(settings, dict):
        settings = {key: value for key, value in settings.items() if key not in _VOLATILE}
        if path.name == "adapter_config.json":  # PEFT keeps names of modules in sets, whose order changes
            settings = {
                key: sorted(value, key=str) if isinstance(value, list) else value for key, value in settings.items()
            }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        InputError: it cannot be read, is a Git-LFS pointer, or no JSON.
    """
    try:
        _check_pointer(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        what = "is empty" if not path.stat().st_size else f"is no JSON, in line {error.lineno}: {error.msg}"
        raise InputError(f"'{path}' {what}. {_AGAIN}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is no text in UTF-8 ({error.reason} at byte {error.start}). {_AGAIN}") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}. {_AGAIN}") from error


_AGAIN = "The file is damaged or incomplete: copy or download it again."


def check_files(folder: Path) -> None:
    """Looks at every deciding file before anything is loaded, reading only the headers of weights.

    Raises:
        InputError: a file is a Git-LFS pointer, is empty, cut off or no JSON, or an index and its shards differ.
    """
    for path in deciding_files(folder):
        _check_pointer(path)
        if path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".safetensors":
            tensor_names(path)
        elif not path.stat().st_size and path.suffix in (".bin", ".model"):
            raise InputError(f"'{path}' is empty. {_AGAIN}")
    for index in sorted(folder.glob("*.safetensors.index.json")):
        _check_index(index, dict(_mapped(index)))


def _check_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise InputError(
                f"'{path}' is a Git-LFS pointer, not the file itself: the folder was cloned without its large files. "
                f"Run `git lfs install && git lfs pull` in '{path.parent}'."
            )


def tensor_names(path: Path) -> set[str]:
    """The names of the tensors in a safetensors file.

    Raises:
        InputError: it is cut off, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return set(file.keys())
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise InputError(f"'{path}' ({size} bytes) cannot be read as safetensors: {error}. {_AGAIN}") from error


def integer_tensors(path: Path) -> list[str]:
    """The names of the tensors of whole numbers in a safetensors file, those that no parameter is aside.

    Raises:
        InputError: as `tensor_names`.
    """
    from safetensors import safe_open

    names = sorted(name for name in tensor_names(path) if name.endswith(".weight"))
    with safe_open(str(path), framework="pt") as file:
        return [name for name in names if str(file.get_slice(name).get_dtype()).startswith(("I", "U"))]


def _mapped(index: Path) -> Iterator[tuple[str, str]]:
    content = read_json(index)
    named = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(named, dict) or not named:
        raise InputError(f"'{index}' has no weight_map of tensors to files. {_AGAIN}")
    yield from ((str(name), str(file)) for name, file in named.items())


def _check_index(index: Path, files: dict[str, str]) -> None:
    if (index.parent / index.name.removesuffix(".index.json")).is_file():
        return  # transformers reads the one file, not the index
    for file in sorted(set(files.values())):
        path = index.parent / file
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise InputError(f"'{index}' names the file {file}, which lies outside of the folder. It is not read.")
        if not path.is_file():
            raise InputError(f"'{index}' names the file {file}, which is missing. Copy or download it too.")
        listed, held = {name for name, other in files.items() if other == file}, tensor_names(path)
        if listed - held:
            raise InputError(
                f"'{path}' lacks {len(listed - held)} tensors that '{index.name}' says it holds, such as "
                f"'{min(listed - held)}'. {_AGAIN}"
            )


def local_folder(name: str, revision: str | None = None) -> Path | None:
    """The folder of a model: the one named, or where the hub's cache holds its config; None where it does not."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        held = [
            try_to_load_from_cache(name, file, revision=revision) for file in ("config.json", "adapter_config.json")
        ]
    except HFValidationError:  # no name of the hub's form
        return None
    return next((Path(path).parent for path in held if isinstance(path, str)), None)
