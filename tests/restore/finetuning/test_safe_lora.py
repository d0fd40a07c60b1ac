import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.registry import load
from safebasin.restore.finetuning.projection import choose, cosine, project, project_all
from safebasin.restore.finetuning.pseudo_unaligned import harmful_difference
from safebasin.restore.method import BuildContext
from safebasin.restore.methods.safe_lora import REPORT_FILE, SafeLora
from safebasin.restore.models import weight_files
from safebasin.restore.models.loading import load_adapter, load_base
from safetensors.torch import load_file
from torch import Tensor

from ...conftest import DEVICE

RANK = 8  # v_proj has as many outputs
VARIANTS = ["fro", "spectral", "topk", "drop"]


def close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).norm() <= 1e-5 * other.norm())


def matrices(seed: int = 0, outputs: int = 12, inputs: int = 20, rank: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(outputs, inputs), torch.randn(rank, inputs), torch.randn(outputs, rank)


def dense_c(v: Tensor, variant: str, k: int) -> Tensor:
    v = v.double()
    if variant == "topk":
        u = torch.linalg.svd(v)[0][:, :k]
        return u @ u.T
    norms = {"fro": v.norm(), "spectral": torch.linalg.svdvals(v)[0] ** 2, "drop": torch.inf}
    return v @ v.T / norms[variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_projection_equals_the_dense_formula(variant: Any) -> None:
    v, a, b = matrices()
    c = dense_c(v, variant, k=4)
    cb = project(v, b, variant, k=4)
    assert close(cb.double(), c @ b.double()) or variant == "drop"
    if variant == "drop":
        assert not cb.any()
        assert cosine(a, b, cb) is None
        return
    update = b.double() @ a.double()
    expected = torch.cosine_similarity((c @ update).flatten(), update.flatten(), dim=0)
    assert cosine(a, b, cb) == pytest.approx(float(expected), abs=1e-6)


def test_topk_has_no_more_directions_than_the_difference() -> None:
    v, _, b = matrices()
    low = v[:, :1] @ v[:1]
    assert close(project(low, b, "topk", 5), project(low, b, "topk", 1))


def test_the_cosine_does_not_depend_on_the_size_of_the_difference_but_fro_does() -> None:
    v, a, b = matrices()
    small, large = project(0.01 * v, b, "fro", 1), project(v, b, "fro", 1)
    assert cosine(a, b, small) == pytest.approx(cosine(a, b, large))
    assert close(small, 0.01 * large)
    assert close(project(0.01 * v, b, "spectral", 1), project(v, b, "spectral", 1))


@pytest.mark.parametrize("number", [1, 2, 5])
def test_number_takes_exactly_the_smallest_cosines(number: int) -> None:
    differences = {f"m{i}": matrices(i)[0] for i in range(5)}
    pairs = {name: matrices(i + 9)[1:] for i, name in enumerate(differences)}
    pairs["m4"] = pairs["m3"]  # a tie
    differences["m4"] = differences["m3"]
    found = project_all(pairs, differences.__getitem__, "fro", 1)
    chosen = choose(found, "number", 0.0, number)
    ranked = sorted(found, key=lambda each: (each.cosine or 0, each.module))
    assert chosen == {each.module for each in ranked[:number]}
    assert choose(found, "threshold", ranked[number - 1].cosine or 0, 1) >= chosen
    with pytest.raises(InputError, match="number=6 is more than the 5"):
        choose(found, "number", 0.0, 6)


def test_an_update_or_difference_of_zero_is_left_alone() -> None:
    v, a, b = matrices()
    pairs = {"no_update": (a, 0 * b), "no_difference": (a, b), "both": (a, b)}
    found = project_all(pairs, lambda name: 0 * v if name == "no_difference" else v, "fro", 1)
    assert choose(found, "threshold", 1.0, 1) == {"both"}
    with pytest.raises(InputError, match="same weights"):
        project_all(pairs, lambda name: 0 * v, "fro", 1)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders of a tiny Qwen2, which has biases on q, k and v."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    def make(seed: int, hidden: int = 32, shards: str = "1GB") -> Path:
        torch.manual_seed(seed)
        config = Qwen2Config(
            vocab_size=50, hidden_size=hidden, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=hidden // 8, num_key_value_heads=1, tie_word_embeddings=True, initializer_range=0.2,
        )  # fmt: skip
        model = Qwen2ForCausalLM(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
        folder = tmp_path_factory.mktemp("qwen")
        model.save_pretrained(folder, max_shard_size=shards)
        return folder

    return make


@pytest.fixture(scope="module")
def prepared(qwen: Callable[..., Path], context: Any, tmp_path_factory: pytest.TempPathFactory) -> BuildContext:
    """A random adapter on a Qwen2 whose v_proj has as many outputs as the adapter's rank."""
    from peft import LoraConfig, get_peft_model

    base = qwen(0)
    model = get_peft_model(load_base(str(base), device=DEVICE), LoraConfig(r=RANK, target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    folder = tmp_path_factory.mktemp("parent")
    model.save_pretrained(folder)
    return context(base=str(base), parent=folder, unaligned=str(qwen(1)), data={})  # type: ignore[no-any-return]


def built(method: SafeLora, given: BuildContext, folder: Path, **changes: Any) -> tuple[Any, dict[str, Tensor]]:
    given = replace(given, output=folder, **changes)
    made = method.build(given)
    assert json.loads((folder / REPORT_FILE).read_text()) == made.details
    return made, load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("variant", ["fro", "topk"])
def test_built_adapter_is_the_dense_one(prepared: BuildContext, tmp_path: Path, variant: Any) -> None:
    made, tensors = built(SafeLora(variant=variant, k=3, threshold=0.6), prepared, tmp_path)
    assert prepared.parent
    assert prepared.unaligned
    before = load_file(prepared.parent / "adapter_model.safetensors")
    weights = [load_file(Path(folder) / "model.safetensors") for folder in (prepared.base, prepared.unaligned)]
    assert len(made.details["matrices"]) == made.details["of"] == 4
    for row in made.details["matrices"]:
        name = f"base_model.model.{row['module']}.lora_B.weight"
        v = weights[0][f"{row['module']}.weight"] - weights[1][f"{row['module']}.weight"]
        cb = dense_c(v, variant, 3).float() @ before[name]
        update, projected = (b @ before[name.replace("lora_B", "lora_A")] for b in (before[name], cb))
        cosine = float(torch.cosine_similarity(projected.flatten(), update.flatten(), dim=0))
        assert row["cosine"] == pytest.approx(cosine, abs=1e-5)
        assert row["ratio"] == pytest.approx(float(cb.norm() / before[name].norm()), rel=1e-5)
        assert row["projected"] == (cosine <= 0.6)
        assert close(tensors[name], cb if row["projected"] else before[name])
    assert all(torch.equal(tensors[name], before[name]) for name in before if "lora_A" in name)


def test_the_result_is_a_standard_adapter(prepared: BuildContext, tmp_path: Path) -> None:
    made, tensors = built(SafeLora(variant="drop", select="number", number=2), prepared, tmp_path)
    model = load_adapter(load_base(prepared.base, device=DEVICE), tmp_path)
    assert made.details["projected"] == 2
    assert made.safety_examples == 0
    assert model.peft_config["default"].base_model_name_or_path == prepared.base
    gone = {name for name, tensor in tensors.items() if not tensor.any()}
    rows = made.details["matrices"]
    assert gone == {f"base_model.model.{row['module']}.lora_B.weight" for row in rows if row["projected"]}


def test_weights_stored_transposed_are_turned(context: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    for seed, name in enumerate(("aligned", "unaligned")):
        torch.manual_seed(seed)
        GPT2LMHeadModel(config).save_pretrained(tmp_path / name)
    base = load_base(str(tmp_path / "aligned"), device=DEVICE)
    lora = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(tmp_path / "parent")
    folders = {"base": str(tmp_path / "aligned"), "unaligned": str(tmp_path / "unaligned")}
    given = context(parent=tmp_path / "parent", data={}, **folders)
    _, tensors = built(SafeLora(threshold=1.0), given, given.output)
    name = "transformer.h.0.attn.c_attn"
    read = [weight_files.WeightFiles(folder).read(f"{name}.weight").T for folder in folders.values()]
    key = f"base_model.model.{name}.lora_B.weight"
    before = load_file(tmp_path / "parent" / "adapter_model.safetensors")[key]
    assert close(tensors[key], dense_c(read[0] - read[1], "fro", 1).float() @ before)


def test_shards_are_read_and_one_pair_at_a_time(
    prepared: BuildContext, qwen: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = built(SafeLora(), prepared, tmp_path)
    sharded = qwen(1, shards="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    alive, read, most = weakref.WeakSet[Any](), weight_files.WeightFiles.read, [0]

    def watched(self: Any, name: str) -> Tensor:
        tensor = read(self, name)
        alive.add(tensor)
        most[0] = max(most[0], len(alive))
        return tensor

    monkeypatch.setattr(weight_files.WeightFiles, "read", watched)
    folder = tmp_path / "sharded"
    folder.mkdir()
    _, parts = built(SafeLora(), prepared, folder, unaligned=str(sharded))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert most[0] == 2


def test_a_stand_in_for_the_unaligned_model(context: Any, adapter: Path, harmful: Any, tmp_path: Path) -> None:
    data = {"forget": harmful}
    method = SafeLora(pseudo_unaligned=True, pseudo_steps=6, select="number", number=1)
    assert method.needs == ("forget",)
    made, tensors = built(method, context(parent=adapter, data=data), tmp_path)
    noted = made.details["pseudo_unaligned"]
    assert made.safety_examples == len(harmful)
    assert noted["last_loss"] < noted["first_loss"]
    before = load_file(adapter / "adapter_model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], tensors[name])}
    lowest = min(made.details["matrices"], key=lambda row: row["cosine"])
    assert changed == {f"base_model.model.{lowest['module']}.lora_B.weight"}


def test_the_stand_ins_difference_is_aligned_minus_harmful(
    context: Any, harmful: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[Any] = []
    from safebasin.restore.finetuning import pseudo_unaligned

    new = pseudo_unaligned.new_adapter
    monkeypatch.setattr(pseudo_unaligned, "new_adapter", lambda *given: models.append(new(*given)) or models[0])
    given = context(data={"forget": harmful})
    difference, _ = harmful_difference(given, 3)
    merged, aligned = models[0].merge_and_unload().state_dict(), load_base(given.base, device=DEVICE).state_dict()
    name = "model.layers.1.self_attn.v_proj"
    v = aligned[f"{name}.weight"].cpu() - merged[f"{name}.weight"].cpu()
    assert torch.allclose(difference(name), v, atol=1e-6)
    assert v.any()
    with pytest.raises(InputError, match="do not cover"):
        difference("model.x")


def test_what_is_missing_is_told(prepared: BuildContext, qwen: Callable[..., Path], tmp_path: Path) -> None:
    for changes, message in (
        ({"parent": None}, "Run lora first"),
        ({"unaligned": None}, "before its alignment.*pseudo_unaligned: true"),
        ({"unaligned": prepared.base}, "same weights"),
        ({"unaligned": str(qwen(2, hidden=16))}, r"\(32, 32\).*\(16, 16\)"),
        ({"unaligned": str(tmp_path)}, "Give a folder with safetensors weights"),
        ({"parent": tmp_path}, "no PEFT adapter"),
    ):
        with pytest.raises(InputError, match=message):
            SafeLora().build(replace(prepared, output=tmp_path, **changes))
    with pytest.raises(InputError, match="needs forget rows"):
        SafeLora(pseudo_unaligned=True).build(replace(prepared, output=tmp_path))
    with pytest.raises(InputError, match="has no tensor"):
        weight_files.WeightFiles(prepared.base).read("model.nothing")


def test_bad_settings_are_refused() -> None:
    for settings in ({"threshold": 2.0}, {"number": 0}, {"k": 0}, {"pseudo_steps": 0}):
        with pytest.raises(InputError, match=next(iter(settings))):
            SafeLora(**settings)  # type: ignore[arg-type]


def test_it_is_registered_and_needs_no_data() -> None:
    assert load("methods", "safe_lora") is SafeLora
    assert SafeLora().needs == SafeLora.needs == ()
