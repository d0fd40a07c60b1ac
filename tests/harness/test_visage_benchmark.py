"""The benchmark of the sweep runs; its figures are for an idle machine, not for tests."""

import os
import subprocess
import sys

from .conftest import ROOT


def test_the_benchmark_runs() -> None:
    script = ROOT / "benchmarks" / "visage.py"
    sizes = ["--size", "tiny", "--points", "2", "--rounds", "1", "--prompts", "6", "--tokens", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, *sizes], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "2 points x 6 prompts x 3 tokens, tiny, cpu, 1 threads"
    assert lines[1].split()[-4:] == ["1.00", "x", "as", "fast"]
    assert all("% outside generation" in line for line in lines[2:4])
