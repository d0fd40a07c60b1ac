"""A run: build every adapter, let every checkpoint answer, judge all answers, write the leaderboard.

Whatever is finished is found again by the digest of what made it, so a run that was stopped goes on where it was.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ..restore.models.chat import writing_date
from ..restore.models.thinking import ending_thinking
from ..results.export import replace_text
from .building import build_all
from .config.data import said
from .config.model import RunConfig
from .config.naming import slug
from .engines.choice import choose
from .executors.choice import executor_for
from .executors.local import Local
from .generating import generate_all
from .judging import judge_all
from .plan import make_plan
from .preparing import prepare
from .relapsing import relapse_all
from .stages.estimates import rough
from .stages.folder import MANIFEST, PLAN, check_kept, name_of, open_store
from .stages.generate import task_infos
from .stages.judge import judged_as
from .stages.leaks import left_out
from .stages.manifest import write_manifest
from .stages.models import described
from .stages.report import report
from .state import RunState
from .store.files import locked, make_folder, sweep
from .terminal.console import safe_console
from .terminal.progress import bars
from .terminal.quiet import quiet
from .terminal.whole import Stage, Whole

__all__ = ["RunResult", "run"]


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    folder: Path
    failures: Mapping[str, str]
    """Build id -> reason."""
    bad_input: bool
    """Whether some failure was the input's fault."""

    @property
    def exit_code(self) -> int:
        """0: all done; 1: some cell failed; 2: some cell failed because of bad input."""
        return 0 if not self.failures else 2 if self.bad_input else 1


def run(config: RunConfig, folder: Path, console: Console | None = None, store: Path | None = None) -> RunResult:
    """Runs a leaderboard in `folder`, or goes on with it.

    Args:
        config: a validated config (`load_config`).
        folder: the run folder; made where it does not exist.
        console: where progress and the table go.
        store: folder of a store shared with other runs.

    Raises:
        InputError: folder or store cannot be written, another process works in the folder, or a model cannot be had.
        StorageError: the disk is full, or the store is damaged; what was finished is kept.
    """
    console = console or safe_console()
    plan = make_plan(config)
    make_folder(folder)
    quiet()
    with locked(folder, wait=False), writing_date(config.date), ending_thinking(config.think_end_token):
        sweep(folder / "checkpoints")
        check_kept(folder, store)
        replace_text(folder / PLAN, plan.to_json())
        opened = open_store(folder, store)
        try:
            with bars(console) as shown, executor_for(config, folder) as executor:
                state = RunState(plan, config, folder, opened, shown, task_infos(config), choose(config))
                for line in (*said(config), *left_out(config)):
                    shown.say(escape(line))
                prepare(state, executor.do, Local().do)
                state.whole = shown.follow(_whole(state))
                build_all(state, executor.do)
                generate_all(state, executor.do)
                relapse_all(state, executor.do)
                judge_all(state, executor.do, executor.far)
                state.whole.end()
                shown.tell_whole()
                _write_manifest(state)
        finally:
            opened.close()
    report(folder, console, store)
    return RunResult(folder, state.failures, state.bad_input)


def _whole(state: RunState) -> Whole:
    """The stages of the run, with what each will take, about."""
    plan, guesses = state.plan, rough(state.plan, state.models)
    judges = sum(len(own) for own in state.judges.values())
    stages = [
        Stage("build", len(plan.builds), "checkpoints", "", guesses.build),
        Stage("answer", len(plan.cells), "cells", "responses", guesses.answer),
        Stage("relapse", plan.attacks, "fine-tunings", "", guesses.relapse),
        Stage("judge", judges, "judges", "verdicts", guesses.judge),
    ]
    return Whole(stages, time.monotonic)


def _write_manifest(state: RunState) -> None:
    for cell in state.plan.every_cell:
        reason = state.failures.get(cell.build or cell.model)
        if reason:
            state.store.assign(state.plan.digest, name_of(cell), None, f"failed: {reason}")
    write_manifest(
        state.folder / MANIFEST,
        {
            "plan": state.plan.digest,
            "seeds": list(state.config.seeds),
            "models": described(state.models),
            "checkpoints": {name: checkpoint.digest for name, checkpoint in state.checkpoints.items()},
            "doses": {f"{slug(m)}-seed{seed}": asdict(dose) for (m, seed), dose in state.doses.items()},
            "judges": [
                judge.identity
                for world in state.judges
                for judge in state.store.judges(judged_as(state.plan.digest, world))
            ],
            "remote_judges": {judge.identity: judge.spent for judge in state.remote},
            "engine": state.engine,
            "left_out": left_out(state.config),
            "failures": state.failures,
            "environment": {"SAFEBASIN_CACHE": bool(os.environ.get("SAFEBASIN_CACHE"))},
        },
    )
