"""What Safe LoRA's adapter becomes under three readings of the official code, on a real adapter.

1. Number mode in two passes (one to find the threshold, one to project): with the published code's untouched copy for
   the second pass, and without such a copy, where matrices of the first pass are projected twice (B <- C C B).
2. Number mode by "cosine <= N-th smallest cosine, rounded": how many matrices ties add.
3. Telling A from B by shape[0] == r: which matrices are projected where some module has as many outputs as the rank.

    python benchmarks/safe_lora_double_projection.py [--base FOLDER --unaligned FOLDER --adapter FOLDER] [--number 4]

Without an adapter one is trained on the sandbox (about 10 seconds).
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.finetuning.projection import Projected, choose, project, project_all
from safebasin.restore.method import BuildContext
from safebasin.restore.methods.lora import Lora
from safebasin.restore.models.lora_files import lora_pairs
from safebasin.restore.models.weight_files import WeightFiles
from safebasin.tasks.sandbox.location import model_folder
from safebasin.tasks.sandbox.world import rows
from safetensors.torch import load_file

FIRST_PASSES = (0.3, 0.5)
"""Threshold of the official first pass, and one at which it projects something here."""
Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]
Tensors = dict[str, torch.Tensor]


def trained(base: str, folder: Path) -> Path:
    """Trains the sandbox's plain LoRA."""
    settings = TrainingConfig(learning_rate=1.1e-3, batch_size=64, micro_batch_size=64, schedule="constant")
    lora = {"rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
    Lora().build(BuildContext(base, None, folder, settings, lora, {"task_train": rows("task_train")}, device="cpu"))
    return folder


def off(wrong: Tensors, right: Tensors) -> float:
    """Relative distance of the two adapters' B matrices, over all modules."""
    distance = sum(float((wrong[name] - right[name]).norm() ** 2) for name in right) ** 0.5
    return distance / sum(float(each.norm() ** 2) for each in right.values()) ** 0.5


def report_passes(pairs: Pairs, found: list[Projected], v: Tensors, number: int, first: float) -> None:
    before, once = {name: b for name, (_, b) in pairs.items()}, {each.module: each.b for each in found}
    chosen, early = choose(found, "number", first, number), choose(found, "threshold", first, number)
    right = {name: once[name] if name in chosen else before[name] for name in before}
    rounded = {each.module: round(each.cosine or 0, 5) for each in found}
    limit = sorted(rounded.values())[number - 1]
    with_copy = {name: once[name] if rounded[name] <= limit else before[name] for name in before}
    after = {name: once[name] if name in early else before[name] for name in before}
    without = {name: project(v[name], after[name], "fro", 1) if name in chosen else after[name] for name in before}
    print(f"number mode, {number} of {len(found)} matrices; the first pass (threshold {first}) projects {len(early)}")
    print(f"  second pass from an untouched copy (published code): adapter differs by {off(with_copy, right):.1e}")
    print(f"  second pass on the first pass's result (no copy)   : adapter differs by {off(without, right):.1e}")
    for name in sorted(chosen & early):
        ratios = [float(each[name].norm() / before[name].norm()) for each in (right, without)]
        print(f"    {name}: ||CB||/||B|| {ratios[0]:.4f}, ||CCB||/||B|| {ratios[1]:.4f}")
    print(f"  matrices added by ties at five decimals: {sum(value <= limit for value in rounded.values()) - number}")


def report_shapes(pairs: Pairs) -> None:
    for rank in sorted({b.shape[0] for _, b in pairs.values()}):
        taken = sum(b.shape[0] != rank for _, b in pairs.values())
        print(
            f"shape[0] == r at rank {rank}: {taken} of {len(pairs)} matrices are recognised as B; by name {len(pairs)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "unaligned", "adapter"):
        parser.add_argument(f"--{name}", default=None)
    parser.add_argument("--number", type=int, default=4)
    chosen = parser.parse_args()
    base = chosen.base or str(model_folder("sandbox"))
    aligned, unaligned = WeightFiles(base), WeightFiles(chosen.unaligned or str(model_folder("sandbox/unaligned")))
    with TemporaryDirectory() as scratch:
        folder = Path(chosen.adapter) if chosen.adapter else trained(base, Path(scratch))
        pairs = lora_pairs(load_file(folder / "adapter_model.safetensors"))
    v = {name: aligned.read(f"{name}.weight") - unaligned.read(f"{name}.weight") for name in pairs}
    found = project_all(pairs, v.__getitem__, "fro", 1)
    for each in found:
        print(f"{each.module:32} cosine {each.cosine:.5f}  ||CB||/||B|| {each.ratio:.4f}")
    for first in FIRST_PASSES:
        report_passes(pairs, found, v, chosen.number, first)
    report_shapes(pairs)


if __name__ == "__main__":
    main()
