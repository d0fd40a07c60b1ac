"""Every task of ours refuses lm-eval's two caches, and looks for its judges before anything is generated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml
from safebasin.errors import InputError
from safebasin.tasks import checked
from safebasin.tasks.catalog import tasks_dir
from safebasin.tasks.checked import CheckedTask
from safebasin.tasks.judging import JUDGES_VARIABLE, deferred

Evaluate = Callable[..., dict[str, Any]]


def test_every_task_of_ours_is_one_that_refuses() -> None:
    configs = [load_yaml(path) for path in sorted(tasks_dir().rglob("*.yaml"))]
    ours = {config["task"]: config.get("class") for config in configs if isinstance(config["task"], str)}
    computed = {"sandbox_arithmetic", "sandbox_facts", "sandbox_playful", "sandbox_task"}  # lm-eval's own class
    assert len(ours) > 20
    assert {name for name, made_by in ours.items() if not (made_by and issubclass(made_by, CheckedTask))} <= computed


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("cache", ["cache_requests", "use_cache"])
def test_lm_evals_caches_are_refused(
    cache: str, chat: bool, xstest_csv: Path, tiny_chat_model: Callable[..., Path], evaluate: Evaluate, tmp_path: Path
) -> None:
    given: dict[str, Any] = {cache: str(tmp_path / "answers") if cache == "use_cache" else True}
    with pytest.raises(InputError, match=f"xstest_safe cannot use --{cache}"):
        evaluate(tiny_chat_model(), ["xstest_safe"], {"xstest_csv": str(xstest_csv)}, apply_chat_template=chat, **given)


def test_a_cache_that_is_the_models_own_is_used(
    xstest_csv: Path,
    tiny_chat_model: Callable[..., Path],
    evaluate: Evaluate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = str(tmp_path / "a_rank_of_answers")
    monkeypatch.setenv(JUDGES_VARIABLE, '["keywords"]')
    monkeypatch.setattr(checked, "SIGNED_CACHES", {cache})
    settings: dict[str, Any] = {"gen_kwargs": {"max_gen_toks": 1}, "limit": 1, "use_cache": cache}
    evaluate(tiny_chat_model(), ["xstest_safe"], {"xstest_csv": str(xstest_csv)}, **settings)
    assert list(tmp_path.glob("a_rank_of_answers_rank*.db"))


@pytest.fixture
def nothing_is_generated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests came to the model; each answers nothing."""
    asked: list[int] = []

    def generate(model: Any, requests: list[Any], **_: Any) -> list[str]:
        asked.append(len(requests))
        return ["" for _ in requests]

    monkeypatch.setattr(HFLM, "generate_until", generate)
    return asked


def test_a_judge_that_cannot_be_had_is_told_before_anything_is_generated(
    xstest_csv: Path,
    tiny_chat_model: Callable[..., Path],
    evaluate: Evaluate,
    monkeypatch: pytest.MonkeyPatch,
    nothing_is_generated: list[int],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv(JUDGES_VARIABLE, json.dumps([{"llama_guard": {"model": str(tmp_path / "nowhere")}}]))
    settings: dict[str, Any] = {"gen_kwargs": {"max_gen_toks": 1}, "limit": 2}
    with pytest.raises(InputError, match="nowhere"):
        evaluate(tiny_chat_model(), ["xstest_safe"], {"xstest_csv": str(xstest_csv)}, **settings)
    assert nothing_is_generated == []
    with deferred():  # nobody will be asked, so nobody is looked for
        evaluate(tiny_chat_model(), ["xstest_safe"], {"xstest_csv": str(xstest_csv)}, **settings)
    assert nothing_is_generated == [2]
