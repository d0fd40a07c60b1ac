"""`tuned`: the trial that refuses most within the allowed loss is kept, and all are told."""

import json
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.harness.config.settings import make_method
from safebasin.registry import available, load
from safebasin.restore.method import post_hoc
from safebasin.restore.methods.tuned import Tuned, _Seen
from safebasin.restore.models.files import files_digest

from .conftest import World, context_of

GRID = [{"strength": strength} for strength in (0.0, 1.0, 30.0)]
pytestmark = pytest.mark.filterwarnings("ignore:.*few")


@pytest.fixture
def world(make_world: Any) -> World:
    found: World = make_world("llama")
    return found


def built(world: World, output: Path, seen: list[_Seen], monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Any:
    """Builds with what each model is seen to do told: the tuned one, the base, and each trial."""
    told = iter(seen)
    monkeypatch.setattr(Tuned, "_seen", lambda *_: next(told))
    output.mkdir()
    given = {"of": "ridge", "settings": {"rows": 4}, "grid": GRID, **settings}
    method = make_method("tuned", given)
    return method.build(context_of(method, world, output))


@pytest.mark.parametrize(
    ("trials", "chosen", "within"),
    [
        ([(50, 1.01), (90, 1.05), (100, 1.3)], 1, True),
        ([(90, 1.05), (90, 1.01), (80, 1.0)], 1, True),  # of equals, the lower loss
        ([(90, 1.2), (100, 1.3), (95, 1.4)], 0, False),  # none within: the lowest loss
    ],
)
def test_the_trial_that_refuses_most_within_the_bound_is_kept(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: Any, chosen: int, within: bool
) -> None:
    seen = [_Seen(10, 1.0), _Seen(100, 2.0), *(_Seen(*one) for one in trials)]
    warned = [] if within else [pytest.warns(UserWarning, match="No setting of ridge keeps the retain loss within 1.1")]
    for context in warned:
        with context:
            result = built(world, tmp_path / "out", seen, monkeypatch, allow=0.1)
    if within:
        result = built(world, tmp_path / "out", seen, monkeypatch, allow=0.1)
    assert result.details["chosen"] == {"rows": 4, **GRID[chosen]}
    assert result.details["within"] is within
    assert [trial["refused"] for trial in result.details["trials"]] == [refused for refused, _ in trials]
    assert result.safety_examples == 4
    json.dumps(result.details)
    alone = tmp_path / "alone"
    alone.mkdir()
    method = post_hoc("ridge", {"rows": 4, **GRID[chosen]})
    method.build(context_of(method, world, alone))
    assert files_digest(tmp_path / "out") == files_digest(alone)


def test_the_budget_cuts_the_list(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [_Seen(10, 1.0), _Seen(100, 2.0), _Seen(20, 1.0), _Seen(30, 1.0)]
    result = built(world, tmp_path / "out", seen, monkeypatch, budget=2)
    assert [trial["settings"]["strength"] for trial in result.details["trials"]] == [0.0, 1.0]
    assert result.details["chosen"]["strength"] == 1.0


def test_a_setting_that_cannot_be_built_is_told_and_the_others_go_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safebasin.restore.methods.ridge import Ridge

    build = Ridge.build

    def failing(self: Any, context: Any) -> Any:
        if self.strength == 0.0:
            raise InputError("no\ngood")
        return build(self, context)

    monkeypatch.setattr(Ridge, "build", failing)
    seen = [_Seen(10, 1.0), _Seen(100, 2.0), _Seen(20, 1.0)]
    result = built(world, tmp_path / "out", seen, monkeypatch, budget=2)
    assert result.details["trials"][0]["failed"] == "no good"
    with pytest.raises(InputError, match="No setting of ridge could be tried: no good"):
        built(world, tmp_path / "none", seen, monkeypatch, budget=1)


def test_what_it_sees_is_the_model(world: World, tmp_path: Path) -> None:
    """At strength 0 nothing changes, and far beyond all strengths the base is left."""
    method = make_method("tuned", {"of": "interpolate", "grid": [{"epsilon": 0.0}], "max_new_tokens": 4})
    result = method.build(context_of(method, world, tmp_path))
    (trial,) = result.details["trials"]
    assert trial["loss"] == pytest.approx(result.details["tuned"]["loss"], rel=1e-4)
    assert result.details["base"]["loss"] != result.details["tuned"]["loss"]


def test_every_list_is_of_settings_that_the_method_takes() -> None:
    for name in available("methods"):
        for settings in getattr(load("methods", name), "grid", None) or ():
            post_hoc(name, settings)
    assert {name for name in available("methods") if hasattr(load("methods", name), "grid")} >= {"resta", "curvature"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"of": "lora"}, "lora is a method of stage fine-tuning"),
        ({"of": "tuned"}, "not of itself"),
        ({"of": "ridge", "grid": [{"strenght": 1}]}, "no setting 'strenght'"),
        ({"budget": 0}, "budget=0"),
    ],
)
def test_what_cannot_be_tuned_is_said(settings: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_method("tuned", settings)
