"""Damage done to model folders: files cut, keys renamed, JSON edited; the same for the same number."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

__all__ = ["mutate"]

Damage = Callable[[Path, random.Random], str]
"""Changes a folder, and says what it did."""
WRONG: list[Any] = [None, 0, -1, 3, 7.5, "x", "", [], {}, True, [1, "a"], {"a": 1}, 1e9, "llama", [[0]]]
PREFIXES = ("module.", "_orig_mod.", "model.", "base_model.model.", "transformer.")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _cut(folder: Path, draw: random.Random) -> str:
    path = draw.choice(_files(folder))
    content = path.read_bytes()
    keep = draw.choice([0, 1, 7, len(content) // 2, draw.randrange(len(content) or 1), max(len(content) - 1, 0)])
    path.write_bytes(content[:keep])
    return f"{path.name} cut to {keep} bytes"


def _deleted(folder: Path, draw: random.Random) -> str:
    path = draw.choice(_files(folder))
    path.unlink()
    return f"{path.name} deleted"


def _replaced(folder: Path, draw: random.Random) -> str:
    path, other = draw.sample(_files(folder), 2)
    path.write_bytes(
        draw.choice([b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", other.read_bytes(), b"{}"])
    )
    return f"{path.name} replaced"


def _bytes(folder: Path, draw: random.Random) -> str:
    path = draw.choice(_files(folder))
    content = bytearray(path.read_bytes())
    places = [draw.randrange(min(len(content), draw.choice([64, 4096, len(content)]))) for _ in range(4)]
    for place in places:
        content[place] = draw.randrange(256)
    path.write_bytes(bytes(content))
    return f"{path.name}: bytes {places} changed"


def _encoding(folder: Path, draw: random.Random) -> str:
    path = draw.choice([path for path in _files(folder) if path.suffix in (".json", ".jinja")])
    path.write_text(path.read_text(encoding="utf-8"), encoding=draw.choice(["utf-16", "utf-8-sig", "utf-32"]))
    return f"{path.name} in another encoding"


def _weights(folder: Path) -> Path:
    return next(path for path in _files(folder) if path.suffix == ".safetensors")


def _keys(folder: Path, draw: random.Random) -> str:
    path = _weights(folder)
    tensors: dict[str, Any] = load_file(path)
    name = draw.choice(sorted(tensors))
    kind = draw.choice(["prefix", "prefix of one", "renamed", "dropped", "added", "copied"])
    prefix = draw.choice(PREFIXES)
    if kind == "prefix":
        tensors = {prefix + key: value for key, value in tensors.items()}
    elif kind == "added":
        tensors["extra.weight"] = torch.zeros(2)
    elif kind == "copied":
        tensors[name + "_copy"] = tensors[name].clone()
    else:
        value = tensors.pop(name)
        new = {"prefix of one": prefix + name, "renamed": name[:-1] + "x"}.get(kind)
        if new:
            tensors[new] = value
    save_file(tensors, path, metadata={"format": "pt"})
    return f"{path.name}: {kind} ({name})"


def _values(folder: Path, draw: random.Random) -> str:
    path = _weights(folder)
    tensors: dict[str, Any] = load_file(path)
    name = draw.choice(sorted(tensors))
    kind = draw.choice(["nan", "inf", "longer", "transposed", "flat", "empty", "integers", "half"])
    value = tensors[name]
    if kind in ("nan", "inf"):
        value.view(-1)[draw.randrange(value.numel())] = float(kind)
    tensors[name] = {
        "longer": lambda: torch.cat([value, value[:1]]), "transposed": lambda: value.T.contiguous(),
        "flat": lambda: value.reshape(-1), "empty": lambda: value[:0], "integers": value.int, "half": value.half,
    }.get(kind, lambda: value)()  # fmt: skip
    save_file(tensors, path, metadata={"format": "pt"})
    return f"{path.name}: {name} {kind}"


def _json(folder: Path, draw: random.Random) -> str:
    path = draw.choice([path for path in _files(folder) if path.suffix == ".json"])
    content = json.loads(path.read_text(encoding="utf-8"))
    at, key = _place(content, draw)
    if key is None:
        return f"{path.name} as it was"
    if draw.random() < 0.4:
        del at[key]
        what = "deleted"
    else:
        at[key] = draw.choice(WRONG)
        what = repr(at[key])
    path.write_text(json.dumps(content))
    return f"{path.name}: {key!r} {what}"


def _place(content: Any, draw: random.Random) -> tuple[Any, Any]:
    """A container inside a JSON value, and one of its keys."""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(min(len(content), 50)))
        if not keys:
            return content, None
        key = draw.choice(keys)
        inner = content[key]
        if not isinstance(inner, dict | list) or not inner or draw.random() < 0.4:
            return content, key
        content = inner


def _template(folder: Path, draw: random.Random) -> str:
    path = folder / "chat_template.jinja"
    text = path.read_text(encoding="utf-8")
    begin = draw.randrange(len(text))
    end = min(len(text), begin + draw.choice([1, 2, 9, 30]))
    path.write_text(text[:begin] + draw.choice(["", "{%", "}}", "x"]) + text[end:], encoding="utf-8")
    return f"chat_template.jinja without {text[begin:end]!r}"


_DAMAGES: list[Damage] = [_cut, _deleted, _replaced, _bytes, _encoding, _keys, _values, _json, _json, _json]


def mutate(folder: Path, number: int) -> str:
    """Damages a folder of a model or an adapter once, by a number, and says how."""
    draw = random.Random(f"mutated model {number}")
    damages = [*_DAMAGES, _template] if (folder / "chat_template.jinja").is_file() else _DAMAGES
    return draw.choice(damages)(folder, draw)
