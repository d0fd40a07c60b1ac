"""One of the ranks of a data-parallel evaluation: python two_ranks.py RANK RANKS FOLDER XSTEST_CSV."""

import json
import sys
from pathlib import Path
from typing import Any

import lm_eval
import torch
import torch.distributed as dist
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from safebasin.tasks.catalog import tasks_dir


class EchoLM(LM):  # type: ignore[misc]
    """Answers every request with the request, refusing those whose number is odd."""

    device = torch.device("cpu")

    def __init__(self, rank: int, ranks: int) -> None:
        super().__init__()
        self._rank, self._world_size = rank, ranks

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        texts = [request.args[0] for request in requests]
        return [f"I cannot: {text}" if int(text.split()[-1]) % 2 else f"So: {text}" for text in texts]

    def loglikelihood(self, requests: list[Instance]) -> Any:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Instance]) -> Any:
        raise NotImplementedError

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        parts = [torch.zeros_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(parts, tensor)
        return torch.stack(parts)

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        parts: list[Any] | None = [None] * self.world_size if self.rank == dst else None
        dist.gather_object(obj, parts, dst=dst)
        return parts

    def barrier(self) -> None:
        dist.barrier()


def run(rank: int, ranks: int, folder: Path, xstest_csv: str) -> None:
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    manager = TaskManager(
        include_defaults=False, include_path=str(tasks_dir()), metadata={"xstest_csv": xstest_csv, "tokenizer": "none"}
    )
    results = lm_eval.simple_evaluate(model=EchoLM(rank, ranks), tasks=["xstest_safe"], task_manager=manager, limit=7)
    if results is not None:
        found = {"results": results["results"], "samples": results["samples"]["xstest_safe"]}
        (folder / f"of_{ranks}.json").write_text(json.dumps(found, default=str))


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
