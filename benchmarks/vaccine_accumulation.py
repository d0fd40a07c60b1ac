"""What Vaccine's official training loop loses under gradient accumulation, measured on the sandbox model.

That loop calls `model.zero_grad()` between the pass that finds the perturbation and the pass that learns, and so wipes
the gradients of the micro-batches before. This script imitates that, and compares the accumulated LoRA gradient with
safebasin's, for the same batches:

    python benchmarks/vaccine_accumulation.py [--model FOLDER] [--rho 2.0] [--batches 8]
"""

import argparse
import random
from typing import Any

import torch
from safebasin.harness.sandbox.build import build_world
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.finetuning.training import train
from safebasin.restore.finetuning.vaccine import AttentionPerturbation
from safebasin.restore.losses.encoding import Batch, Encoded, batches, encode_all, pad_id_of
from safebasin.restore.models.loading import load_base, load_tokenizer, new_adapter
from safebasin.restore.models.parameters import FlatParameters
from safebasin.tasks.sandbox.world import rows
from torch import Tensor

LORA = {"rank": 8, "alpha": 16}
SIZE = 64


def micro_batches(part: list[Encoded], count: int, pad: int) -> list[tuple[Batch, float]]:
    """Micro-batches of equally many rows with their shares of the batch's response tokens."""
    size = len(part) // count
    pieces = [part[begin : begin + size] for begin in range(0, len(part), size)]
    total = sum(row.targets for row in part)
    return [(next(batches(piece, size, pad)), sum(row.targets for row in piece) / total) for piece in pieces]


def accumulated(model: Any, parameters: FlatParameters, pieces: list[tuple[Batch, float]], rho: float) -> Tensor:
    """The gradient by the package's own passes."""
    parameters.zero_grad()
    for batch, share in pieces:
        with AttentionPerturbation(model, rho) as perturbation:
            perturbation.aim(lambda batch=batch: model(**batch).loss)
            (share * model(**batch).loss).backward()
    return parameters.gradient()


def wiped(model: Any, parameters: FlatParameters, pieces: list[tuple[Batch, float]], rho: float) -> Tensor:
    """The same with a backward pass to find the perturbation and `zero_grad` after it."""
    parameters.zero_grad()
    for batch, share in pieces:
        with AttentionPerturbation(model, rho) as perturbation:
            perturbation.aim(lambda batch=batch: model(**batch).loss)
            (share * model(**batch).loss).backward()  # stands for the first pass: its gradients go to .grad ...
            model.zero_grad()  # ... and are wiped, with all that was there
            (share * model(**batch).loss).backward()
    return parameters.gradient()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", help="folder of a model that knows the sandbox's words; default: the sandbox")
    options.add_argument("--rho", type=float, default=2.0)
    options.add_argument("--batches", type=int, default=8)
    given = options.parse_args()
    folder = given.model or str(build_world() / "base")
    tokenizer = load_tokenizer(folder)
    model = new_adapter(load_base(folder, device="cpu"), LORA, seed=0)
    data = encode_all(tokenizer, rows("task_train"), "task_train")
    config = TrainingConfig(learning_rate=1e-3, batch_size=SIZE, micro_batch_size=SIZE, max_steps=10)
    train(model, tokenizer, data, config, seed=0)  # away from B = 0, where A has no gradient
    parameters, pad = FlatParameters(model), pad_id_of(tokenizer)
    random.Random(0).shuffle(data)
    print(f"rho {given.rho:g}, {given.batches} batches of {SIZE} rows; mean (worst) over the batches")
    print("micro-batches  cosine          relative error  length / right length")
    for count in (1, 2, 4, 8, 16):
        found = []
        for i in range(given.batches):
            pieces = micro_batches(data[i * SIZE : (i + 1) * SIZE], count, pad)
            right = accumulated(model, parameters, pieces, given.rho)
            wrong = wiped(model, parameters, pieces, given.rho)
            cosine = torch.cosine_similarity(right, wrong, dim=0)
            found.append((cosine, (wrong - right).norm() / right.norm(), wrong.norm() / right.norm()))
        cosines, errors, lengths = torch.tensor(found).T
        print(
            f"{count:13d}  {cosines.mean():.3f} ({cosines.min():.3f})   {errors.mean():.3f} ({errors.max():.3f})"
            f"   {lengths.mean():.3f}"
        )


if __name__ == "__main__":
    main()
