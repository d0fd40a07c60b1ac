"""What the answers and the judging of one row of the demo cost, beside those of an older commit, in turns in one run.

    python benchmarks/demo.py [--against e89ed29] [--rounds 3] [--rows base] [--threads 1]

Each turn is a process of its own that imports the commit, runs the sandbox's leaderboard with these rows into a folder
whose checkpoints are made already, and times the stages apart: the world, imports and the report are not in them. The
processor's seconds are those of all threads and processes. It also compares what both answered and judged, which can
only agree as long as both commits train the same world.
"""

import argparse
import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STAGES = {"generate_all": "answers", "judge_all": "judging"}  # of older commits with a line before the name
Figures = dict[str, tuple[float, float]]
"""Of a stage: seconds by the clock, and of the processor."""


def spent() -> tuple[float, float]:
    """Seconds by the clock, and of the processor in this process and in those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)


def turn(order: str) -> None:
    """One run in this process, by the package that PYTHONPATH leads to; prints its figures."""
    from rich.console import Console
    from safebasin.harness import run as running
    from safebasin.harness.config.load import load_config

    folder, config, overrides = json.loads(order)
    figures: Figures = {}

    def timed(name: str, stage: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*given: Any) -> None:
            before = spent()
            stage(*given)
            figures[name] = tuple(now - then for now, then in zip(spent(), before, strict=True))  # type: ignore[assignment]

        return wrapped

    for function, name in STAGES.items():
        found = function if hasattr(running, function) else f"_{function}"
        setattr(running, found, timed(name, getattr(running, found)))
    done = running.run(load_config(Path(config), overrides), Path(folder), Console(quiet=True))
    if done.failures:
        sys.exit(str(done.failures))
    print(json.dumps(figures))


def run_turn(package: Path, folder: Path, given: argparse.Namespace, overrides: list[str]) -> Figures:
    """One turn in a process that imports the package from the folder `package`."""
    for old in folder.glob("store.sqlite*"):
        old.unlink()
    order = json.dumps([str(folder), str(package / "safebasin" / "configs" / "sandbox.yaml"), overrides])
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": str(given.threads)}
    command = [sys.executable, str(Path(__file__).resolve()), "--turn", order]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True, cwd=folder)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def package_of(tree: Path, folder: Path) -> Path:
    """A folder from which `import safebasin` finds the tree."""
    folder.mkdir()
    (folder / "safebasin").symlink_to(tree)
    return folder


def contents(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Texts by what was asked, and verdicts by their key; without the code's digest and the probabilities."""
    with sqlite3.connect(folder / "store.sqlite") as db:
        answers = {}
        for parts, text in db.execute("SELECT parts, answer FROM responses WHERE kind = 'generate_until'"):
            asked = {key: value for key, value in json.loads(parts).items() if key != "code"}
            answers[json.dumps(asked, sort_keys=True)] = text
        verdicts = {
            key: json.loads(text) | {"score": 0} for key, text in db.execute("SELECT key, verdict FROM verdicts")
        }
    return answers, verdicts


def show(times: dict[str, list[Figures]]) -> None:
    """Medians of each tree, and the ratio of the first to the second."""
    for stage in STAGES.values():
        for place, what in enumerate(("clock", "processor")):
            old, new = ([figures[stage][place] for figures in turns] for turns in times.values())
            ratios = [a / b for a, b in zip(old, new, strict=True)]
            print(
                f"{stage:8} {what:10} {median(old):7.1f} s -> {median(new):7.1f} s   "
                f"{median(ratios):.2f} x [{min(ratios):.2f}, {max(ratios):.2f}]"
            )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--against", "e89ed29"), ("--rows", "base")):
        options.add_argument(name, default=default)
    for name, number in (("--rounds", 3), ("--threads", 1)):
        options.add_argument(name, type=int, default=number)
    options.add_argument("--turn", help=argparse.SUPPRESS)
    options.add_argument("overrides", nargs="*", help="further settings, as for safebasin run")
    given = options.parse_args()
    if given.turn:
        turn(given.turn)
        return
    with TemporaryDirectory() as scratch, ExitStack() as undo:
        tree = Path(scratch) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), given.against], check=True)
        undo.callback(subprocess.run, [*git, "remove", "--force", str(tree)], check=True)
        trees = {"old": package_of(tree, Path(scratch) / "old"), "new": package_of(ROOT, Path(scratch) / "new")}
        overrides = [f"methods=[{given.rows}]", *given.overrides]
        times: dict[str, list[Figures]] = {name: [] for name in trees}
        folders = {name: Path(scratch) / f"run-{name}" for name in trees}
        for folder in folders.values():
            folder.mkdir()
        for _ in range(given.rounds):
            for name, package in trees.items():
                times[name].append(run_turn(package, folders[name], given, overrides))
        show(times)
        both = zip(*(contents(folder) for folder in folders.values()), strict=True)
        for what, (old, new) in zip(("answers", "verdicts"), both, strict=True):
            print(f"{len(old)} {what}, {sum(old[key] != new.get(key) for key in old)} differ")


if __name__ == "__main__":
    main()
