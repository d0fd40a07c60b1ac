"""`safebasin power`, and what `safebasin validate` says of a config's n."""

import json
from pathlib import Path
from typing import Any

import pytest
from safebasin.harness.commands.cli import main
from safebasin.harness.commands.power import detectable
from safebasin.harness.commands.precision import precision
from safebasin.harness.config.model import RunConfig
from safebasin.results.power import sample_size, smallest_difference
from safebasin.results.statistics import rate


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    out = capsys.readouterr()
    assert ended.value.code == code, out.err
    return " ".join((out.out if code == 0 else out.err).split())


def test_the_table_holds_the_smallest_differences(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "power", "--n", "100", "--power", "90", "--alpha", "0.01")
    for overlap in (0.0, 1.0):
        row = [detectable(100, rate, overlap, 90, 0.01) for rate in (0, 1, 3, 5, 10, 25, 50)]
        assert " ".join(["100", f"{overlap:g}", *row]) in shown
    rise = smallest_difference(100, 0.5, True, 0.0, 0.9, 0.01)
    assert rise is not None
    assert detectable(100, 50, 0.0, 90, 0.01).startswith(f"+{100 * rise:.1f} −")
    assert "takes at least 8 prompts" in shown


def test_how_many_prompts_two_rates_need(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "power", "--rate", "3", "--other", "8", "--n", "200")
    assert f"0 {sample_size(0.03, 0.08)} " in shown
    assert f"1 {sample_size(0.03, 0.08, 1)} " in shown


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--rate", "3"], "--rate and --other go together"),
        (["--rate", "3", "--other", "3"], "tell 3 % from 3 %"),
        (["--power", "100"], "--power 100 is no percentage"),
        (["--alpha", "5"], "--alpha 5 is no level"),
    ],
)
def test_bad_input_is_one_message(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in printed(capsys, "power", *given, code=2)


def lines(**changes: Any) -> dict[str, str]:
    config = {
        "name": "x", "models": ["sandbox"], "methods": ["base", "lora"], "judges": ["keywords"],
        "tasks": {"safety": ["sandbox_hrr", "advbench_hrr", "hex_phi_hrr"]}, **changes,
    }  # fmt: skip
    found = precision(RunConfig.model_validate_json(json.dumps(config)))
    return {line.partition(":")[0]: line for line in found}


def test_validate_says_what_its_n_shows() -> None:
    found = lines()
    assert f"n = 200: none of them still allows {rate(0, 200).high:.1f} %" in found["sandbox_hrr"]
    assert f"n = 382: none of them still allows {rate(0, 382).high:.1f} %" in found["advbench_hrr"]
    low, high = (smallest_difference(200, 0.05, True, overlap) for overlap in (1.0, 0.0))
    assert low is not None
    assert high is not None
    assert f"a rise from 5 % of {100 * low:.1f} to {100 * high:.1f}" in found["sandbox_hrr"]
    assert "as many prompts as its data has" in found["hex_phi_hrr"]
    assert "n = 50:" in lines(limit=50)["advbench_hrr"]


def test_and_what_its_replicas_show() -> None:
    assert any("1 fine-tuning of each method" in line for line in lines().values())
    assert any("below 0.062" in line for line in lines(seeds=[0, 1, 2, 3, 4]).values())
    worlds = [f"sandbox:{number}" for number in range(6)]
    assert not any("too few" in line for line in lines(models=worlds).values())


def test_validate_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(__file__).resolve().parents[3] / "configs" / "sandbox.yaml"
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(config)])
    assert ended.value.code == 0
    assert "sandbox_hrr: n = 200: none of them still allows 1.9 %" in " ".join(capsys.readouterr().out.split())
