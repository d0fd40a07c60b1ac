"""One of the ranks of a data-parallel evaluation: python two_ranks.py COMMAND RANK RANKS FOLDER XSTEST_CSV.

COMMAND is `lm_eval` or `safebasin`. lm-eval's own models are data-parallel on several GPUs only, so this has its own.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import model_registry
from safebasin.tasks.catalog import tasks_dir


class EchoLM(LM):  # type: ignore[misc]
    """Answers every request with the request, refusing those whose number is odd."""

    device = torch.device("cpu")

    def __init__(self, rank: int, ranks: int, **settings: Any) -> None:
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


def run(command: str, rank: int, ranks: int, folder: Path, xstest_csv: str) -> None:
    from lm_eval.__main__ import cli_evaluate
    from safebasin.harness.commands.cli import main

    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    model_registry.register("echo", target=EchoLM)
    given = [
        *("--model", "echo", "--model_args", f"rank={rank},ranks={ranks}", "--tasks", "xstest_safe", "--limit", "7"),
        *("--metadata", json.dumps({"xstest_csv": xstest_csv, "tokenizer": "none"})),
        *("--log_samples", "--output_path", str(folder)),
    ]
    if command == "safebasin":
        main(["lm-eval", *given])
    else:
        sys.argv = ["lm_eval", "--include_path", str(tasks_dir()), *given]
        cli_evaluate()


if __name__ == "__main__":
    name, *numbers = sys.argv[1:4]
    run(name, int(numbers[0]), int(numbers[1]), Path(sys.argv[4]), sys.argv[5])
