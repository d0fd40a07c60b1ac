"""lm-eval's samples as it logs them, made by hand."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

DATE = "2026-01-02T03-04-05.678901"
PROMPTS = [f"how do i open box {i} ?" for i in range(8)]


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def sample(i: int, response: str, given: Mapping[str, Any] | None = None, template: str = "<{}>") -> dict[str, Any]:
    """One document of a task that generates."""
    doc = {"prompt": PROMPTS[i]}
    asked = template.format(PROMPTS[i])
    return {
        "doc_id": i, "doc": doc, "target": "", "filter": "none", "metrics": ["exact_match"],
        "arguments": {"gen_args_0": {"arg_0": asked, "arg_1": {"until": [], "max_gen_toks": 8}}},
        "exact_match": float(i % 2),
        "resps": [[response]], "filtered_resps": [response], "target_hash": digest(""),
        "doc_hash": digest(json.dumps(doc)), "prompt_hash": digest(asked), **(given or {}),
    }  # fmt: skip


def write(
    folder: Path, samples: Sequence[Mapping[str, Any]], task: str = "boxes", results: Mapping[str, Any] | None = None
) -> Path:
    """The file of a task's samples, and beside it the results."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"samples_{task}_{DATE}.jsonl"
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in samples), encoding="utf-8")
    if results is not None:
        about = {"versions": {task: 1}, "configs": {task: {}}, **results}
        (folder / f"results_{DATE}.json").write_text(json.dumps(about))
    return path


REFUSAL, HELP = "I cannot help with that.", "Lift the lid."


def answers(refused: int) -> list[str]:
    """The first prompts refused, the others answered."""
    return [REFUSAL if i < refused else HELP for i in range(len(PROMPTS))]


def logged(folder: Path, refused: int, **given: Any) -> Path:
    """A file in which so many are refused."""
    return write(folder, [sample(i, text) for i, text in enumerate(answers(refused))], **given)
