"""What SaLoRA's start loses when task outputs are captured while earlier layers are already being replaced.

The official code writes W' = W - C_S B_0 A_0 into one module after the other, and captures each module's task outputs
just before: from the second on, from a model that is damaged further up. safebasin captures everything first.
Prints, per module, the principal angles between the two task subspaces and the change of the start B_0 A_0.

    python benchmarks/salora_capture.py [--base FOLDER] [--rank 8] [--safety-rank 8] [--task-rank 16]
"""

import argparse

import torch
from safebasin.restore.finetuning.constrained import linear_modules
from safebasin.restore.finetuning.subspace import initial_adapter, remove, response_directions
from safebasin.restore.losses.encoding import encode_all, pad_id_of
from safebasin.restore.losses.objective import TokenMeanLoss
from safebasin.restore.models.loading import load_base, load_tokenizer, new_adapter
from safebasin.restore.models.prepare import trainable_adapter
from safebasin.tasks.sandbox.location import model_folder
from safebasin.tasks.sandbox.world import rows


def degrees(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Principal angles between two subspaces, smallest first."""
    return torch.rad2deg(torch.arccos(torch.linalg.svdvals(one.double().T @ other.double()).clamp(max=1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=None, help="model folder (default: the sandbox's aligned model)")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--scale", type=float, default=1.0, help="alpha / rank; the official code has 1")
    parser.add_argument("--safety-rank", type=int, default=8)
    parser.add_argument("--task-rank", type=int, default=16)
    parser.add_argument("--samples", type=int, default=128)
    chosen = parser.parse_args()
    base = chosen.base or str(model_folder("sandbox"))
    tokenizer, plain = load_tokenizer(base), load_base(base, device="cpu")
    model = new_adapter(plain, {"rank": chosen.rank, "alpha": chosen.rank}, 0)
    pad, modules = pad_id_of(tokenizer), linear_modules(model)
    safety = encode_all(tokenizer, rows("safety"), "safety")
    task = encode_all(tokenizer, rows("task_train")[: chosen.samples], "task_train")

    def loss() -> float:
        with trainable_adapter(model) as parameters:
            return TokenMeanLoss(model, parameters, task, 64, pad).loss()

    safe = response_directions(model, modules, safety, chosen.safety_rank, 64, pad)
    intact = response_directions(model, modules, task, chosen.task_rank, 64, pad)
    before = loss()
    print(f"{'module':28} {'mean angle':>10} {'largest':>8} {'||B0A0 - B0A0*|| / ||B0A0||':>28}")
    angles, changes = [], []
    for name, module in modules.items():
        damaged = response_directions(model, {name: module}, task, chosen.task_rank, 64, pad)[name]
        starts = [initial_adapter(module.weight, u, chosen.rank) for u in (intact[name], damaged)]
        right, wrong = (b @ a for a, b in starts)
        angles.append(degrees(intact[name], damaged))
        changes.append(float((right - wrong).norm() / right.norm()))
        mean, largest = float(angles[-1].mean()), float(angles[-1].max())
        print(f"{name.removeprefix('base_model.model.model.'):28} {mean:10.2f} {largest:8.2f} {changes[-1]:28.3f}")
        with torch.no_grad():
            module.weight -= chosen.scale * remove(safe[name], wrong.T).T
    after = [float(each.mean()) for each in angles[2:]]
    print(f"\nfrom the second block on: mean angle {sum(after) / len(after):.1f} degrees, "
          f"start changed by {100 * sum(changes[2:]) / len(changes[2:]):.1f} % on average")  # fmt: skip
    print(f"task loss of the model captured from: intact {before:.3f}, at the last module {loss():.3f} nats per token")


if __name__ == "__main__":
    main()
