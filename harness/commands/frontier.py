"""`safebasin restore --frontier`: one adapter restored under several bounds, and what each of them buys and breaks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ...errors import InputError
from ...tasks.sandbox.location import is_sandbox
from ..config.faults import report
from ..config.load import check_config
from ..config.model import RunConfig
from ..run import RunResult, run

__all__ = ["frontier_config", "read_epsilons", "restore_frontier"]

CONTROLS = ("shrink", "interpolate")
SANDBOX: Mapping[str, Any] = {
    "tasks": {
        "safety": ["sandbox_hrr", "sandbox_overrefusal"],
        "utility": ["sandbox_task", "sandbox_eval_loss", "sandbox_facts", "sandbox_arithmetic"],
    },
    "judges": [{"llama_guard": {"model": "sandbox/guard"}}, {"keywords": {"list": "qi38"}}, {"sandbox_oracle": {}}],
    "batch_size": 64,
}


def read_epsilons(text: str) -> list[float]:
    """Reads `0.003,0.01`.

    Raises:
        InputError: it is no list of numbers.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--frontier '{text}' is no list of numbers, for example 0.003,0.01,0.03.") from error


def frontier_config(
    base: str,
    adapter: Path,
    forget: str,
    retain: str,
    epsilons: Sequence[float],
    settings: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    seed: int,
    columns: Mapping[str, Mapping[str, str]] | None = None,
) -> RunConfig:
    """The run of a frontier: the base, the adapter, and for each epsilon the restoration and two controls.

    Args:
        base: as in a config.
        adapter: PEFT folder.
        forget: where the harmful prompts are.
        retain: where the task rows are.
        epsilons: bounds on the rise of the retain loss, in nats per token.
        settings: of the restoration.
        evaluation: `tasks`, `judges` and what else of a config decides the evaluation; None for the sandbox's own.
        seed: of the restoration.
        columns: of `forget` and of `retain`, where their names do not tell.

    Raises:
        InputError: all that is wrong with it.
    """
    if evaluation is None and not is_sandbox(base):
        raise InputError(
            f"--frontier evaluates every restored adapter, and only the sandbox says how by itself. Give --config with "
            f"a YAML of `tasks` and `judges` for '{base}'."
        )
    meant = {name: dict((columns or {}).get(name, {})) for name in ("forget", "retain")}
    methods = ["base", {"lora": {"adapter": str(adapter)}}, {"curvature": dict(settings)}, *CONTROLS]
    data = {
        "name": "frontier",
        **(SANDBOX if evaluation is None else evaluation),
        "models": [base],
        "methods": methods,
        "finetune": {"dataset": retain, "columns": meant["retain"]},
        "data": {
            "safety": forget,
            "safety_columns": meant["forget"],
            "retain": retain,
            "retain_columns": meant["retain"],
        },
        "frontier": list(epsilons),
        "seeds": [seed],
    }
    config, faults = check_config(data)
    if faults or config is None:
        raise InputError(report(faults, "the frontier"))
    return config


def restore_frontier(config: RunConfig, output: Path, console: Console) -> RunResult:
    """Runs it in `output`, or goes on with it, and says where table and chart are."""
    result = run(config, output, console)
    console.print(
        f"The frontier is in {output}: frontier.csv, frontier-at-equal-loss.csv, frontier.svg", highlight=False
    )
    return result
