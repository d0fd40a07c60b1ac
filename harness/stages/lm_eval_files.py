"""A run in lm-eval's own files: results_*.json and samples_*.jsonl, as `lm_eval --log_samples` would have left them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...judges.base import Exchange
from ...restore.models.chat import writing_date
from ...restore.models.thinking import ending_thinking
from ...results.export import make_folder, replace_text
from ...results.method_result import ROLES
from ...results.records import Outcome, Verdict, combine
from ...results.text import visible
from ...tasks.catalog import TaskInfo
from ..config.naming import slug
from ..plan import Cell, Plan, Row
from ..store.store import Sample, Store
from .asking import Asked, Asker, Requests, asker_for, requests_of
from .folder import load_plan, name_of, read_store
from .generate import task_infos
from .models import resolve
from .tabled import decided_of, each_judged

__all__ = ["export_lm_eval"]

JUDGED_FILTER = "judged"
"""Under which our tasks' YAMLs have the judges."""


class _Scored(NamedTuple):
    """What one cell is in a results file."""

    values: Mapping[str, Any]
    """`metric,filter` -> value, with standard errors."""
    requests: Requests
    hashes: str = ""
    """lm-eval's over all samples; empty where there are none."""


def export_lm_eval(folder: Path, output: Path, store_path: Path | None = None) -> list[Path]:
    """Writes a folder for each row of a run with what lm-eval would have written of it.

    Results are those that the run kept: of judged tasks all metrics with their standard errors, of others the headline
    metric. Samples are of judged tasks. Prompts, documents and their hashes are made anew by the model's tokenizer from
    the task's data, which must be at hand. Of a model that thinks, responses are without the thinking. Sweeps of
    weights are left out: lm-eval has no place for them.

    Args:
        folder: of the run.
        output: where the folders go.
        store_path: folder of a store shared with other runs.

    Returns:
        The files written.

    Raises:
        InputError: nothing of the run is finished, a tokenizer or a task's data are not at hand or not those of the
            run, or a file cannot be written.
    """
    plan = load_plan(folder)
    infos, written = task_infos(plan.config), []
    date = datetime.now().isoformat().replace(":", "-")  # noqa: DTZ005  # as lm-eval names its files
    with (
        closing(read_store(folder, store_path)) as store,
        writing_date(plan.config.date),
        ending_thinking(plan.config.think_end_token),
    ):
        assigned = store.assignments(plan.digest)
        asks = lru_cache(maxsize=None)(asker_for)
        for row in plan.rows:
            keys = {cell: assigned.get(name_of(cell), (None, ""))[0] for cell in plan.cells if cell.row == row}
            done = {cell: key for cell, key in keys.items() if key and cell.role != "visage"}
            if done:
                where = make_folder(output / _name(plan, row))
                written += _write(
                    _Run(plan, folder, store, infos), row, done, where, date, asks(_tokenizer(folder, row))
                )
    if not written:
        raise InputError(f"Nothing of the run in {folder} is finished yet. Run `safebasin run` first.")
    return written


class _Run(NamedTuple):
    plan: Plan
    folder: Path
    store: Store
    infos: Mapping[str, TaskInfo]


def _name(plan: Plan, row: Row) -> str:
    """Of a row's folder. A model that lies in a folder is called by that alone, unless another is called so too."""
    from lm_eval.utils import sanitize_model_name

    short = {spec.id: Path(spec.id).name if Path(spec.id).is_absolute() else spec.id for spec in plan.config.models}
    model = short[row.model] if [*short.values()].count(short[row.model]) == 1 else row.model
    return str(sanitize_model_name(f"{model}__{row.label}__seed{row.seed}"))


def _tokenizer(folder: Path, row: Row) -> Path:
    """The folder of the tokenizer that a row was asked with: of its checkpoint, if one lies there, or of the base."""
    checkpoint = folder / "checkpoints" / (row.build or "")
    if row.build and (checkpoint / "tokenizer_config.json").is_file():
        return checkpoint
    linked = folder / "models" / slug(row.model)
    return linked.resolve() if linked.exists() else Path(resolve(row.model).location)


def _write(run: _Run, row: Row, done: Mapping[Cell, str], where: Path, date: str, asker: Asker) -> list[Path]:
    scored, written = {}, []
    for cell, key in done.items():
        requests = requests_of(asker, run.infos[cell.task], run.plan.config)
        if cell.role in ROLES:
            path = where / f"samples_{cell.task}_{date}.jsonl"
            samples = [*_samples(run, cell, key, requests)]
            replace_text(path, "".join(_line(sample) for sample in samples))
            scored[cell.task] = _judged(requests, samples)
            written.append(path)
        else:
            scored[cell.task] = _Scored(_headline(run, cell, key, requests), requests)
    path = where / f"results_{date}.json"
    replace_text(path, _line(_results(run, row, scored, asker), indent=2))
    return [*written, path]


def _line(value: Any, indent: int | None = None) -> str:
    """JSON as lm-eval writes it; halves of characters, which no file in UTF-8 can hold, are named."""
    from lm_eval.utils import handle_non_serializable

    text = json.dumps(value, indent=indent, default=handle_non_serializable, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "".join(visible(char) if "\ud800" <= char <= "\udfff" else char for char in text)
    return text + "\n"


def _samples(run: _Run, cell: Cell, key: str, requests: Requests) -> Iterator[dict[str, Any]]:
    """lm-eval's records of a judged cell, by document."""
    asked = {each.doc_id: each for each in requests.asked}
    for _, sample, said in each_judged(run.plan, run.folder, run.store, cell, key):
        about = asked.get(sample.doc_id)
        if about is None or str(about.doc["prompt"]) != sample.prompt:
            raise InputError(
                f"{name_of(cell)}: document {sample.doc_id} of the task is not the one that was answered "
                f"({sample.prompt[:60]!r}). Give the data of the run, as `data` in its plan.json says."
            )
        known = decided_of(said)
        if not known:
            raise InputError(f"{name_of(cell)}: document {sample.doc_id} is not judged yet. Run `safebasin run` again.")
        outcome, verdict = combine(known)
        facets = sorted(frozenset().union(*(decides for decides, _ in known)))
        yield _sample(about, sample, requests.task, _note(outcome, verdict, facets, _continuation(about, sample)))


def _note(outcome: Outcome, verdict: Verdict, facets: Sequence[str], response: str) -> dict[str, Any]:
    """What our filter notes of a response (`tasks.judging`)."""
    return {"outcome": outcome.value, "verdict": asdict(verdict), "facets": facets, "response": response}


def _continuation(asked: Asked, sample: Sample) -> str:
    """What the model itself wrote: the response without the beginning that was forced on it."""
    from ...tasks.judging import exchange_of

    rest = sample.response.removeprefix(asked.doc.get("prefix") or "")
    whole = Exchange(sample.prompt, sample.response)
    tries = (rest.removeprefix(asked.doc.get("prefix_join") or ""), rest, sample.response)
    return next((text for text in tries if exchange_of(asked.doc, text) == whole), sample.response)


def _sample(asked: Asked, sample: Sample, task: Any, note: dict[str, Any]) -> dict[str, Any]:
    from lm_eval.utils import handle_non_serializable, hash_string

    text = json.dumps(note, ensure_ascii=False)
    metrics = task.process_results(asked.doc, [text])
    whole = json.dumps(asked.doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return {
        "doc_id": sample.doc_id,
        "doc": asked.doc,
        "target": str(asked.target),
        "arguments": {
            f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(args)} for i, args in enumerate(asked.arguments)
        },
        "resps": [[note["response"]]],
        "filtered_resps": [[text]],
        "filter": JUDGED_FILTER,
        "metrics": [*metrics],
        "doc_hash": hash_string(whole),
        "prompt_hash": hash_string(asked.arguments[0][0]),
        "target_hash": hash_string(str(asked.target)),
        **metrics,
    }


def _arguments(args: Sequence[Any]) -> dict[str, Any]:
    return {f"arg_{place}": part for place, part in enumerate(args)}


def _judged(requests: Requests, samples: Sequence[Mapping[str, Any]]) -> _Scored:
    """Means and their standard errors over documents, by lm-eval's own functions."""
    from lm_eval.api.metrics import mean, mean_stderr
    from lm_eval.utils import hash_string

    values: dict[str, Any] = {}
    for metric in samples[0]["metrics"]:
        found = [sample[metric] for sample in samples]
        values[f"{metric},{JUDGED_FILTER}"] = mean(found)
        values[f"{metric}_stderr,{JUDGED_FILTER}"] = mean_stderr(found) if len(found) > 1 else "N/A"
    hashes = "".join(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples)
    return _Scored(values, requests, hash_string(hashes))


def _headline(run: _Run, cell: Cell, key: str, requests: Requests) -> dict[str, Any]:
    value, _ = run.store.metric(key)
    name = run.infos[cell.task].metric or next(iter(requests.task.aggregation()))
    return {f"{name},none": value, f"{name}_stderr,none": "N/A"}


def _results(run: _Run, row: Row, scored: Mapping[str, _Scored], asker: Asker) -> dict[str, Any]:
    from lm_eval.utils import hash_string

    config, template = run.plan.config, str(asker.tokenizer.chat_template)
    tasks = {name: each.requests.task for name, each in scored.items()}
    documents = {name: each.requests.documents for name, each in scored.items()}
    name = _name(run.plan, row)
    return {
        "results": {
            task: {"alias": task, "sample_len": documents[task], **each.values} for task, each in scored.items()
        },
        "group_subtasks": {task: [] for task in scored},
        "configs": {name: task.dump_config() for name, task in tasks.items()},
        "versions": {name: task.VERSION for name, task in tasks.items()},
        "n-shot": {name: task.config.num_fewshot or 0 for name, task in tasks.items()},
        "higher_is_better": {name: task.higher_is_better() for name, task in tasks.items()},
        "n-samples": {
            name: {"original": len(task.eval_docs), "effective": documents[name]} for name, task in tasks.items()
        },
        "config": {
            "model": "safebasin",
            "model_args": {"pretrained": row.model, "method": row.label, "seed": row.seed, "dtype": config.dtype},
            "batch_size": config.batch_size,
            "limit": config.limit,
            "fewshot_seed": 1234,
        },
        "lm_eval_version": version("lm_eval"),
        "transformers_version": version("transformers"),
        "safebasin_version": version("safebasin"),
        "task_hashes": {task: each.hashes for task, each in scored.items() if each.hashes},
        "model_source": "safebasin",
        "model_name": name,
        "model_name_sanitized": name,
        "fewshot_as_multiturn": True,
        "chat_template": template,
        "chat_template_sha": hash_string(template),
    }
