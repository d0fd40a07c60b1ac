"""The benchmark of landscapes runs; its figures are for an idle machine, not for tests."""

import os
import subprocess
import sys

from .conftest import ROOT


def test_the_benchmark_runs() -> None:
    script = ROOT / "benchmarks" / "landscape.py"
    sizes = ["--size", "tiny", "--points", "2", "--rounds", "1", "--rows", "4", "--tokens", "12"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, *sizes], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "2 points x 4 rows x 12 tokens, tiny, cpu, 1 threads"
    assert len(lines) == 5
    assert all(line.endswith("% outside forward passes") for line in lines[1:])
