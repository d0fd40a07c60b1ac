"""`safebasin restore` on a tiny adapter: what it tells before and after, and what it writes."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from rich.console import Console
from safebasin.errors import InputError
from safebasin.harness.commands.cli import main
from safebasin.harness.commands.restored import harm_of
from safebasin.harness.commands.restoring import Wanted, restore_adapter
from safebasin.harness.stages.iterations import iterations_of
from safebasin.restore.api import prepare
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.models.files import file_digest, files_digest
from safebasin.restore.models.loading import load_base, load_tokenizer, load_tuned
from safebasin.restore.restoration.data import split
from safebasin.restore.restoration.rehearsal import passes_of_iteration

from ..conftest import DEVICE
from .aligned import ANSWERED, REFUSED

WEIGHTS = "adapter_model.safetensors"
pytestmark = pytest.mark.filterwarnings("ignore:.*forget rows are few", "ignore:The curvature rests on few")


@pytest.fixture
def wanted(aligned: Path, unlearned: Path, tmp_path: Path) -> Any:
    """Makes what the command is given: 12 harmful prompts, 24 task rows."""
    forget, retain = tmp_path / "forget.jsonl", tmp_path / "retain.jsonl"
    forget.write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in REFUSED))
    retain.write_text("".join(json.dumps(row) + "\n" for row in ANSWERED))

    def make(**changes: Any) -> Wanted:
        given: dict[str, Any] = {
            "base": str(aligned), "adapter": unlearned, "forget": str(forget), "retain": str(retain),
            "output": tmp_path / "out", "columns": {"forget": {}, "retain": {}},
            "settings": {"max_new_tokens": 12, "epsilon": 0.5}, "device": DEVICE,
        }  # fmt: skip
        return Wanted(**{**given, **changes})

    return make


def told(wanted: Wanted, rehearsed: bool = False) -> str:
    shown = StringIO()
    restore_adapter(wanted, Console(file=shown, width=200), rehearsed)
    return shown.getvalue()


def test_the_summary_has_losses_the_stop_and_the_harm_before_and_after(wanted: Any, tmp_path: Path) -> None:
    said = told(wanted())
    record = json.loads((tmp_path / "out" / "restoration_trace.json").read_text())
    assert f"ended: {record['ended']}: " in said
    assert (
        f"retain rows: {record['retain_reference']:.4f} before, {record['iterations'][-1]['retain_loss']:.4f}" in said
    )
    assert f"cost: {record['row_passes']:.0f} row-passes in {len(record['iterations'])} iterations" in said
    assert "held-out prompts: 100.0 % [61.0, 100.0] of 6 before, 0.0 % [0.0, 39.0] of 6 after" in said
    assert "gain ratio" in said
    assert said.rstrip().endswith(f"The restored adapter is in {tmp_path / 'out'}")


def test_a_card_lies_beside_the_adapter_and_decides_nothing(wanted: Any, unlearned: Path, tmp_path: Path) -> None:
    told(wanted())
    out = tmp_path / "out"
    card = ModelCard.load(out / "README.md")
    harm, loss = card.data.eval_results
    assert (harm.metric_type, harm.metric_value, harm.metric_args["n"]) == ("hrr", 0.0, 6)
    assert loss.metric_type == "loss"
    assert "| 6 | 100.0 [61.0, 100.0] | **0.0 [0.0, 39.0]** |" in card.text
    assert "- epsilon: 0.5" in card.text
    assert "not over-refusal, nor other skills" in card.text
    assert str(tmp_path) not in card.content
    assert str(unlearned) not in card.content
    before = files_digest(out)
    (out / "README.md").unlink()
    assert files_digest(out) == before


def test_iterations_are_kept_where_they_are_wanted_and_the_last_is_the_restored_adapter(
    wanted: Any, tmp_path: Path
) -> None:
    told(wanted(keep_iterations=True))
    out = tmp_path / "out"
    record = json.loads((out / "restoration_trace.json").read_text())
    updates = sum(row["accepted"] for row in record["iterations"])
    kept = iterations_of(out)
    assert [path.name for path in kept] == [str(number + 1) for number in range(updates)]
    assert file_digest(kept[-1] / WEIGHTS) == file_digest(out / WEIGHTS)
    assert updates == 1 or file_digest(kept[0] / WEIGHTS) != file_digest(out / WEIGHTS)
    assert not list(tmp_path.glob(".out*"))


def test_the_rehearsal_changes_and_writes_nothing(wanted: Any, tmp_path: Path) -> None:
    said = told(wanted(output=None), rehearsed=True)
    assert "forget rows to restore on: 6, of " in said
    assert "retain rows held out: 6, of " in said
    assert "at most 10 iterations" in said
    assert "the base refuses 3 of the first 3 forget prompts:" in said
    assert said.count("-> 'i cannot' (a refusal)") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forget.jsonl", "retain.jsonl"]
    with pytest.raises(InputError, match="--output is missing"):
        told(wanted(output=None))


@pytest.mark.parametrize("estimator", ["gauss_newton", "fisher", "lbfgs"])
def test_the_passes_of_an_iteration_are_foretold(
    aligned: Path, unlearned: Path, estimator: str, recwarn: pytest.WarningsRecorder
) -> None:
    config = RestoreConfig(
        max_new_tokens=12, epsilon=0.5, iterations=1, pairs=4, min_pairs=1,
        estimator=estimator,  # type: ignore[arg-type]
    )  # fmt: skip
    ready = prepare(str(aligned), unlearned, REFUSED, ANSWERED, config=config, device=DEVICE)
    taken = ready.restore().record.row_passes
    assert 0.4 * taken < passes_of_iteration(ready.data, config) < 2.5 * taken


def test_a_merged_model_answers_as_the_adapter_does(wanted: Any, aligned: Path, tmp_path: Path) -> None:
    told(wanted())
    said = told(wanted(output=tmp_path / "whole", merge=True))
    assert f"The whole restored model is in {tmp_path / 'whole'}" in said
    adapter, _ = load_tuned(str(aligned), tmp_path / "out", device="cpu", dtype="float32")
    whole = load_base(str(tmp_path / "whole"), device="cpu", dtype="float32")
    assert load_tokenizer(str(tmp_path / "whole")).chat_template == load_tokenizer(str(aligned)).chat_template
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        torch.testing.assert_close(whole(input_ids=ids).logits, adapter(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rehearsed", [True, False])
def test_a_quantised_base_is_refused_before_the_restoration_where_it_cannot_be_merged(
    wanted: Any, monkeypatch: pytest.MonkeyPatch, rehearsed: bool
) -> None:
    from safebasin.restore import api

    def loaded(*given: Any, **settings: Any) -> Any:
        model, tokenizer = load_tuned(*given, **settings)
        model.config.quantization_config = {"quant_method": "tiny"}
        return model, tokenizer

    monkeypatch.setattr(api, "load_tuned", loaded)
    monkeypatch.setattr(api.Prepared, "restore", lambda *_: pytest.fail("it is restored all the same"))
    with pytest.raises(InputError, match="loaded quantised"):
        told(wanted(merge=True), rehearsed)


def test_another_tokenizer_is_taken_and_goes_along(wanted: Any, aligned: Path, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer"
    tokenizer = load_tokenizer(str(aligned))
    tokenizer.chat_template = "{# another #}" + tokenizer.chat_template
    tokenizer.save_pretrained(other)
    told(wanted(tokenizer=str(other), settings={"max_new_tokens": 12, "epsilon": 0.5, "iterations": 1}))
    assert load_tokenizer(str(tmp_path / "out")).chat_template == tokenizer.chat_template
    with pytest.raises(InputError, match="tokenizer 'nowhere'"):
        told(wanted(tokenizer="nowhere", output=tmp_path / "other"))


def test_what_cannot_be_is_said_before_a_model_is_loaded(wanted: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("x")
    with pytest.raises(InputError, match="exists already"):
        told(wanted(base="none"))
    with pytest.raises(InputError, match="no such setting"):
        told(wanted(output=tmp_path / "new", settings={"epsilom": 1}))
    with pytest.raises(InputError, match="dtype"):
        told(wanted(output=tmp_path / "new", dtype="float8"))


def test_the_frontier_refuses_what_it_does_not_take(wanted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = wanted()
    command = ["restore", "--base", given.base, "--adapter", str(given.adapter), "--forget", given.forget]
    command += ["--retain", given.retain, "--output", str(given.output), "--frontier", "0.1,0.2", "--merge"]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert "takes none of" in capsys.readouterr().err


def test_harm_counts_unfinished_thinking_apart(wanted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from safebasin.restore.restoration import forget

    class Ready:
        data = split(REFUSED, ANSWERED, None, None, RestoreConfig())
        config = RestoreConfig()
        model = tokenizer = None

    told = iter([("<think>hm</think>i cannot", True), ("<think>hm", False), ("yes", True), ("i cannot", True)] * 2)
    monkeypatch.setattr(forget, "own_answers", lambda m, t, prompts, longest, size: [next(told) for _ in prompts])
    found = harm_of(Ready(), lambda *_: None)  # type: ignore[arg-type]
    assert (found.harmful, found.unfinished, found.asked) == (1, 2, 6)
    assert found.text.endswith("of 6, 2 did not end their thinking")
