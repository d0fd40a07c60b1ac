"""`safebasin lm-eval` and plain `lm_eval`, as processes; and the caches that the former refuses."""

import json
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lm_eval.utils
import pytest
from safebasin.errors import InputError
from safebasin.harness.commands import lm_eval_command, lm_eval_model
from safebasin.harness.commands.cli import main
from safebasin.harness.commands.lm_eval_command import _check_caches, _prepare
from safebasin.restore.models.loading import load_tokenizer
from safebasin.restore.models.thinking import end_thinking_at
from safebasin.tasks.catalog import tasks_dir
from safetensors.torch import load_file, save_file

from ...conftest import guard

NO_SOCKETS = """
import socket, sys
class Refused(socket.socket):
    def __init__(self, family=-1, *given, **named):
        if family != socket.AF_UNIX:
            raise AssertionError("a socket was opened")
        super().__init__(family, *given, **named)
def refuse(*given, **named):
    raise AssertionError("a name was looked up")
socket.socket, socket.getaddrinfo, socket.create_connection = Refused, refuse, refuse
from safebasin.harness.commands.cli import main
main(sys.argv[1:])
"""
TINY_CHAT_MODEL = Callable[..., Path]


@pytest.fixture
def judged(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a process that judges by keywords and is not told to be offline."""
    kept = {key: value for key, value in environment.items() if not key.endswith("_OFFLINE")}
    return {**kept, "SAFEBASIN_JUDGES": '[{"keywords": {"list": "gcg29"}}, "coherence"]', "OMP_NUM_THREADS": "1"}


def arguments(model: Path, metadata: dict[str, str], output: Path, *more: str) -> list[str]:
    return [
        *("--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--device", "cpu", "--tasks", "xstest"),
        *("--metadata", json.dumps(metadata), "--apply_chat_template", "--limit", "5", "--batch_size", "4"),
        *("--gen_kwargs", "max_gen_toks=4", "--log_samples", "--output_path", str(output), *more),
    ]


def outcome(folder: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The results and samples that a run of lm-eval wrote."""
    (results,) = folder.rglob("results_*.json")
    samples = {
        path.name.split("_2")[0]: [json.loads(line) for line in path.read_text().splitlines()]
        for path in folder.rglob("samples_*.jsonl")
    }
    return json.loads(results.read_text())["results"], samples


def test_both_commands_give_the_same_and_offline_opens_no_socket(
    tmp_path: Path, tiny_chat_model: TINY_CHAT_MODEL, xstest_csv: Path, judged: dict[str, str]
) -> None:
    ours, plain = tmp_path / "ours", tmp_path / "plain"
    metadata = {"xstest_csv": str(xstest_csv)}
    given = arguments(tiny_chat_model(), metadata, ours, "--offline", "--use_cache", str(tmp_path / "answers"))
    commands = [
        [sys.executable, "-c", NO_SOCKETS, "lm-eval", *given],
        [
            *(str(Path(sys.executable).with_name("lm_eval")), "--include_path", str(tasks_dir())),
            *arguments(tiny_chat_model(), metadata, plain),
        ],
    ]
    offline = [judged, {**judged, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}]
    running = [
        subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command, env in zip(commands, offline, strict=True)
    ]
    for process in running:
        printed, _ = process.communicate(timeout=guard())
        assert process.returncode == 0, printed
        assert "over_refusal" in printed
    (results, samples), (plain_results, plain_samples) = outcome(ours), outcome(plain)
    assert results == plain_results
    for task in ("samples_xstest_safe", "samples_xstest_unsafe"):
        assert [row["doc_id"] for row in samples[task]] == [0, 1, 2, 3, 4]
        assert [row["filtered_resps"] for row in samples[task]] == [
            row["filtered_resps"] for row in plain_samples[task]
        ]
        assert "verdict" in json.loads(samples[task][0]["filtered_resps"][0][0])
    assert isinstance(results["xstest_unsafe"]["under_refusal_stderr,judged"], float)


def test_offline_without_the_data_is_one_message(
    tmp_path: Path, tiny_chat_model: TINY_CHAT_MODEL, judged: dict[str, str]
) -> None:
    cache = {"HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-c", NO_SOCKETS, "--offline", "lm-eval", *arguments(tiny_chat_model(), {}, tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=judged | cache, capture_output=True, text=True, timeout=guard())
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "Paul/XSTest (commit f600c99) cannot be loaded" in done.stderr
    assert "xstest_csv" in done.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--cache_requests", "true"], "--cache_requests cannot be used here"),
        (["--cache_requests=refresh"], "--cache_requests cannot be used here"),
        (["--cache_r"], "--cache_requests cannot be used here"),
        (["--samples", '{"xstest_safe": [1]}'], "lm-eval cannot use these arguments: If --samples is not None"),
        (["--config", "none.yaml"], "Config file not found"),
    ],
)
def test_what_is_refused_is_said_in_one_message(
    tmp_path: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(lm_eval.utils, "setup_logging", lambda: None)
    with pytest.raises(SystemExit) as stop:
        main(["lm-eval", *arguments(tmp_path, {}, tmp_path / "out", *more)])
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in " ".join(message.split())
    assert "Traceback" not in message


def test_plain_lm_eval_stops_where_a_cache_may_hold_another_models_answers(
    tmp_path: Path, tiny_chat_model: TINY_CHAT_MODEL, xstest_csv: Path, judged: dict[str, str]
) -> None:
    given = arguments(tiny_chat_model(), {"xstest_csv": str(xstest_csv)}, tmp_path / "out")
    command = [str(Path(sys.executable).with_name("lm_eval")), "--include_path", str(tasks_dir()), *given]
    command += ["--use_cache", str(tmp_path / "answers")]
    done = subprocess.run(command, cwd=tmp_path, env=judged, capture_output=True, text=True, timeout=guard())
    assert done.returncode != 0
    assert "cannot use --use_cache" in done.stderr
    assert not (tmp_path / "out").exists()


def config_of(cache: Path, model: Path, **more: str) -> Any:
    return SimpleNamespace(
        cache_requests={}, use_cache=str(cache), model="hf", model_args={"pretrained": str(model), **more}
    )


def test_a_cache_of_answers_belongs_to_one_model(tmp_path: Path, tiny_chat_model: TINY_CHAT_MODEL) -> None:
    first, second, cache = tiny_chat_model(), tiny_chat_model(seed=1), tmp_path / "caches" / "answers"
    for _ in range(2):
        _check_caches(config_of(cache, first))
    for other in (config_of(cache, second), config_of(cache, first, revision="x")):
        with pytest.raises(InputError, match=r"holds the answers of hf .* Give each model a cache of its own"):
            _check_caches(other)
    _check_caches(config_of(tmp_path / "caches" / "other", second))


def test_other_weights_in_the_same_folder_are_another_model(tmp_path: Path) -> None:
    folder, cache = tmp_path / "model", tmp_path / "answers"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    _check_caches(config_of(cache, folder))
    (folder / "model.safetensors").write_bytes(b"2")
    with pytest.raises(InputError, match="holds the answers of"):
        _check_caches(config_of(cache, folder))


def test_a_cache_that_nobody_signed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "answers_rank0.db").touch()
    with pytest.raises(InputError, match="nobody knows whose answers"):
        _check_caches(config_of(tmp_path / "answers", tmp_path))


def test_our_tasks_come_before_the_users(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"tasks: [xstest]\ninclude_path: [{tmp_path}/a, {tmp_path}/b]\n")
    listing = Namespace(command="ls", include_path="mine")
    configured = Namespace(command="run", config=str(tmp_path / "c.yaml"), include_path=None)
    for given, others in ((listing, ["mine"]), (configured, [f"{tmp_path}/a", f"{tmp_path}/b"])):
        _prepare(given)
        assert given.include_path == [str(tasks_dir()), *others]


def test_our_models_are_registered_beside_lm_evals(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval._cli import HarnessCLI
    from lm_eval.api.registry import get_model

    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(lm_eval.utils, "setup_logging", lambda: None)
    monkeypatch.setattr(HarnessCLI, "parse_args", lambda self: Namespace(command="ls"))
    monkeypatch.setattr(HarnessCLI, "execute", lambda self, given: None)
    lm_eval_command.lm_eval([])
    assert get_model("safebasin") is lm_eval_model.SafebasinLM
    assert get_model("hf").__name__ == "HFLM"


def test_the_sandbox_is_a_model(tiny_chat_model: TINY_CHAT_MODEL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_eval_model, "build_model", lambda name: None)
    monkeypatch.setattr(lm_eval_model, "model_folder", lambda name: tiny_chat_model())
    for name in ("sandbox/unaligned", str(tiny_chat_model())):
        model = lm_eval_model.SafebasinLM(pretrained=name, device="cpu")
        assert model.tok_encode("abc") == [*model.tok_encode("ab"), *model.tok_encode("c")]
    with pytest.raises(InputError, match="needs a number as --batch_size"):
        lm_eval_model.SafebasinLM(pretrained="sandbox", batch_size="auto:4")


def test_a_model_that_is_not_whole_is_refused(tiny_chat_model: TINY_CHAT_MODEL, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_chat_model(), tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"is not whole: 1 weights .* 'model.layers.1.mlp.up_proj.weight'"):
        lm_eval_model.SafebasinLM(pretrained=str(folder), device="cpu")


def test_answers_end_where_the_template_ends_a_turn(tiny_chat_model: TINY_CHAT_MODEL, tmp_path: Path) -> None:
    """Not only at the token that the configs name."""
    folder = Path(shutil.copytree(tiny_chat_model(), tmp_path / "model"))
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = tokenizer.chat_template.replace("</s>", "<|system|>")  # a special token of the table
    tokenizer.save_pretrained(folder)
    model = lm_eval_model.SafebasinLM(pretrained=str(folder), device="cpu")
    wanted = sorted(tokenizer.convert_tokens_to_ids(["</s>", "<|system|>"]))
    assert model.model.generation_config.eos_token_id == wanted


@pytest.mark.parametrize("end", ["</why>", "3"])
def test_the_end_of_thinking_is_taken_as_lm_eval_takes_it(tiny_chat_model: TINY_CHAT_MODEL, end: str) -> None:
    """As text or as a token's number; the answers keep their thinking until they are stored."""
    try:
        model = lm_eval_model.SafebasinLM(pretrained=str(tiny_chat_model()), device="cpu", think_end_token=end)
        assert model.think_end_token is None
        thinking = model.thinking
        assert thinking is not None
        assert (thinking.end, thinking.required) == ("<|assistant|>" if end == "3" else end, True)
    finally:
        end_thinking_at(None)
