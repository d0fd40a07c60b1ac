"""A run on a Ray cluster of several nodes, one of which dies: the same leaderboard, and no response twice."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest
from safebasin.harness.config.model import RunConfig
from safebasin.harness.stages.folder import read_store

from ...conftest import guard
from .conftest import answers, arm, ran, table

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
MEMORY = 80 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A driver's node without cores, and two that work."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster

    quiet = {"include_dashboard": False, "object_store_memory": MEMORY}
    made = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 0, **quiet})
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=MEMORY)
    ray.init(address=made.address, log_to_driver=False, configure_logging=False)
    yield made
    ray.shutdown()
    made.shutdown()


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])


def node_of(cluster: Any, process: int) -> Any:
    """The node whose raylet is an ancestor of a process."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in cluster.list_all_nodes()}
    while process not in raylets and process > 1:
        process = parent(process)
    return raylets[process]


def soon(found: Callable[[], list[Path]], over: Callable[[], bool]) -> Path:
    end = time.monotonic() + guard()
    while not found() and time.monotonic() < end and not over():
        time.sleep(0.02)
    return found()[0]


def test_a_node_that_dies_changes_nothing(cluster: Any, given: RunConfig, local: Path, place: Path) -> None:
    """It dies while a checkpoint answers, after another one of the same model has."""
    tasks, folder, ended = place / "tasks", place / "ray", []
    arm(tasks)

    def drive() -> None:
        try:
            ended.append(ran(given, folder, executor="ray"))
        except Exception as error:  # noqa: BLE001  # the test raises it
            ended.append(error)
        finally:
            (tasks / "open").touch()

    driver = Thread(target=drive)
    driver.start()
    waits = soon(lambda: sorted(tasks.glob("waits-*")), lambda: bool(ended))
    victim = node_of(cluster, int(waits.name.removeprefix("waits-")))
    before = len(answers(folder))
    cluster.remove_node(victim, allow_graceful=False)
    (tasks / "open").touch()
    driver.join(guard())
    (tasks / "armed").unlink()
    if isinstance(ended[0], Exception):
        raise ended[0]
    result, said = ended[0]

    assert result.failures == {}, said
    assert "it goes on with another worker" in said
    assert before > 0, "what was answered before the death is kept"
    pd.testing.assert_frame_equal(table(folder), table(local))
    assert answers(folder) == answers(local)
    assert [*(folder / "parts").glob("*.jsonl"), *(folder / "waiting").glob("*")] == []
    store = read_store(folder, None)
    assert len(store.counts()) == 1, "the driver alone writes the store"
    store.close()


def test_a_finished_run_is_found_finished(cluster: Any, given: RunConfig, local: Path, place: Path) -> None:
    """Resources and executor decide nothing of what is measured: a run goes on with another executor."""
    before = answers(local)
    result, said = ran(given, local, executor="ray", resources={"cpus": 1, "workers": 2})
    assert result.failures == {}, said
    assert answers(local) == before


def test_nothing_imports_ray_or_submitit_unless_it_is_asked_for(given: RunConfig, tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['ray'] = sys.modules['submitit'] = None\n"
        "import importlib, pkgutil, safebasin\n"
        "for name in ('run', 'commands.cli', 'executors.remote', 'executors.ray_cluster', 'executors.slurm'):\n"
        "    importlib.import_module(f'safebasin.harness.{name}')\n"
        "from pathlib import Path\n"
        "from safebasin.harness.config.model import RunConfig\n"
        "from safebasin.harness.run import run\n"
        "config = RunConfig.model_validate_json(Path(sys.argv[1]).read_text())\n"
        "assert run(config, Path(sys.argv[2])).failures == {}\n"
    )
    (tmp_path / "config.json").write_text(
        given.model_copy(update={"models": given.models[:1], "methods": given.methods[:1]}).model_dump_json()
    )
    command = [sys.executable, "-c", code, str(tmp_path / "config.json"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=guard(), check=False)
    assert done.returncode == 0, done.stderr
