"""Named settings, from Python, from a run's config and from the command line."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.harness.commands.cli import main
from safebasin.harness.config.settings import make_method
from safebasin.restore.config.presets import PRESETS
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.methods.curvature import Curvature

from ..aligned import ANSWERED, REFUSED


def settings(config: RestoreConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(config)}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_settings(name: str) -> None:
    config = RestoreConfig.from_preset(name)
    assert settings(config).items() >= PRESETS[name].items()
    changed = RestoreConfig.from_preset(name, iterations=7)
    assert settings(changed) == {**settings(config), "iterations": 7}


def test_the_default_is_the_default_and_the_others_are_not() -> None:
    assert RestoreConfig.from_preset("default") == RestoreConfig()
    assert len({str(RestoreConfig.from_preset(name)) for name in PRESETS}) == 3
    assert (RestoreConfig().estimator, RestoreConfig().ascend, RestoreConfig().refusals) == ("gauss_newton", 0.0, 1.0)


def test_presets_name_settings_that_differ_from_the_defaults() -> None:
    """Or that take back what the paper's preset, which the literal one begins with, has changed."""
    default, paper = settings(RestoreConfig()), PRESETS["paper"]
    for name in PRESETS:
        idle = {key for key, value in PRESETS[name].items() if default[key] == value == paper.get(key, value)}
        assert not idle, name


def test_the_presets_of_the_paper_ascend_the_forget_loss_by_pairs() -> None:
    for name in ("paper", "paper_literal"):
        config = RestoreConfig.from_preset(name)
        assert (config.ascend, config.refusals, config.retain, config.estimator) == (1.0, 0.0, 0.0, "lbfgs")
        assert (config.adaptive, config.stop, config.iterations) == (False, "none", 3)
    assert RestoreConfig.from_preset("paper").epsilon == 0.1
    literal = RestoreConfig.from_preset("paper_literal")
    assert (literal.epsilon, literal.epsilon_share) == (None, None)


@pytest.mark.parametrize("gone", ["cg_iterations", "cg_tolerance", "keep_graphs", "shrink_in", "refused_share"])
def test_settings_that_are_gone_are_unknown(gone: str) -> None:
    with pytest.raises(InputError, match=rf"curvature.{gone}: unknown setting"):
        make_method("curvature", {gone: 1})


def test_an_unknown_preset_is_refused_with_what_was_meant() -> None:
    with pytest.raises(InputError, match=r"no preset 'papr' of the restoration\. Did you mean 'paper'"):
        RestoreConfig.from_preset("papr")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"refusals": 0.0}, "ascend and refusals are both 0, so there is nothing to restore; give one of them"),
        (
            {"epsilon_share": None},
            "retain=None needs a bound above 0, not epsilon_share=None; give retain a weight, or 0",
        ),
        (
            {"epsilon_share": 0.0},
            "retain=None needs a bound above 0, not epsilon_share=0.0; give retain a weight, or 0",
        ),
        ({"epsilon": 0.0}, "retain=None needs a bound above 0, not epsilon=0.0; give retain a weight, or 0"),
        ({"scale": "euclid"}, "scale=euclid needs max_update, the length of an update"),
        ({"stop": "base_loss", "forget_target": "refusal"}, "stop=base_loss needs a forget loss that is raised"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        RestoreConfig(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"estimator": "hessian"}, "estimator='hessian' must be one of lbfgs, fisher, gauss_newton"),
        ({"stop": "soon"}, "stop='soon' must be one of none, base_loss, refused"),
        ({"refusals": -1.0}, "refusals=-1.0 must be a number of at least 0"),
        ({"epsilon_share": -0.1}, "epsilon_share=-0.1 must be a number of at least 0, or null"),
        ({"held_out": 0}, "held_out=0 must be a whole number of at least 1"),
        ({"product_tolerance": -1}, "product_tolerance=-1 must be a number of at least 0"),
        ({"damping": 0.0}, "damping=0.0 must be a number above 0"),
        ({"products": 0}, "products=0 must be a whole number of at least 1"),
        ({"layer_radius": 0}, "layer_radius=0 must be a number above 0, or null"),
        ({"retain": -0.5}, "retain=-0.5 must be a number of at least 0, or null"),
        ({"project": 1.5}, "project=1.5 must be a whole number"),
        ({"powell": 1}, "powell=1 must be true or false"),
        ({"adaptive": "yes"}, "adaptive='yes' must be true or false"),
    ],
)
def test_bad_values_are_refused_with_the_value_and_what_it_may_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        RestoreConfig(**given)
    assert said in str(caught.value)


def test_a_run_s_config_may_name_a_preset() -> None:
    made: Any = make_method("curvature", {"preset": "paper", "epsilon": 0.05, "probe_rates": [0.1, 0.2]})
    assert isinstance(made, Curvature)
    assert settings(made) == settings(RestoreConfig.from_preset("paper", epsilon=0.05, probe_rates=(0.1, 0.2)))
    assert make_method("curvature", {"preset": "default"}) == make_method("curvature", {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"preset": "papers"}, r"curvature: There is no preset 'papers' .* Did you mean 'paper'"),
        ({"preset": 3}, r"curvature: There is no preset '3'"),
        ({"preset": ["paper"]}, r"curvature: There is no preset"),
        ({"preset": "paper", "epsilonn": 1.0}, r"curvature.epsilonn: unknown setting\. Did you mean 'epsilon'"),
        ({"preset": "paper", "epsilon": "high"}, r"curvature.epsilon: must be a number"),
        ({"preset": "paper", "ascend": 0.0}, r"curvature: .*both 0, so there is nothing to restore"),
    ],
)
def test_what_is_wrong_with_a_preset_is_one_message(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_method("curvature", given)


def test_a_preset_of_a_method_without_any_is_an_unknown_setting() -> None:
    with pytest.raises(InputError, match=r"shrink.preset: unknown setting"):
        make_method("shrink", {"preset": "paper"})


@pytest.fixture
def arguments(aligned: Path, unlearned: Path, tmp_path: Path) -> list[str]:
    """Of the command line, without settings."""
    for name, given in (("forget", REFUSED), ("retain", ANSWERED)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, given)))
    files = ["--forget", tmp_path / "forget.jsonl", "--retain", tmp_path / "retain.jsonl"]
    command = ["restore", "--base", aligned, "--adapter", unlearned, *files, "--output", tmp_path / "out"]
    return [str(argument) for argument in command]


@pytest.mark.filterwarnings("ignore:.*forget rows are few", "ignore:The curvature rests on few")
@pytest.mark.parametrize("preset", PRESETS)
def test_the_command_line_takes_a_preset(
    arguments: list[str], preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"preset": preset, "iterations": 1, "max_new_tokens": 10, "curv_tol": "1.0e-12", "epsilon": 0.1}
    chosen = [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, *chosen])
    assert stop.value.code == 0
    trace = json.loads((tmp_path / "out" / "restoration_trace.json").read_text())
    expected = RestoreConfig.from_preset(preset, iterations=1, max_new_tokens=10, curv_tol=1e-12, epsilon=0.1)
    assert trace["config"] == json.loads(json.dumps(settings(expected)))
    assert ("forget_loss" if preset != "default" else "base_divergence") in capsys.readouterr().out


@pytest.mark.parametrize("given", ["preset=papr", "presett=paper", "preset=[paper]"])
def test_the_command_line_refuses_a_wrong_one(
    arguments: list[str], given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--set", given])
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert "preset" in message
    assert "Traceback" not in message
