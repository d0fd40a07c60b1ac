import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safebasin.errors import InputError
from safebasin.restore.models.loading import load_adapter, load_base
from safebasin.restore.models.lora_files import Factors, LoraFiles
from safebasin.restore.repairs.merging import check_same_modules, concatenated, cross_terms, padded, thinned
from torch import Tensor

from ...conftest import DEVICE


def factors(seed: int, rank: int, scale: float = 1.0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(*shape, generator=generator) for shape in ((rank, 11), (7, rank)))
    return Factors(a, b, scale)


def random_adapter(base: Path, folder: Path, **settings: Any) -> Any:
    given: dict[str, Any] = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"], **settings}
    torch.manual_seed(len(settings))
    model: Any = get_peft_model(
        load_base(str(base)), LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **given)
    )
    model.save_pretrained(folder)
    return model


def test_a_concatenation_is_the_weighted_sum() -> None:
    parts = [(0.7, factors(0, 3, 2.0)), (-1.5, factors(1, 2, 0.5))]
    a, b = concatenated(parts)
    assert (a.shape, b.shape) == ((5, 11), (7, 5))
    torch.testing.assert_close(b.double() @ a.double(), 1.4 * parts[0][1].dense / 2 - 1.5 * parts[1][1].dense)


def test_padding_keeps_the_product() -> None:
    pairs = {"m": concatenated([(1.0, factors(0, 3))]), "n": concatenated([(1.0, factors(1, 5))])}
    found = padded(pairs)
    assert {len(a) for a, _ in found.values()} == {5}
    for module, (a, b) in pairs.items():
        torch.testing.assert_close(found[module][1] @ found[module][0], b @ a)


@pytest.mark.parametrize("weights", [(0.8, 0.2), (0.5, -0.5), (0.0, 1.0)])
def test_cross_terms_are_pefts_linear(base: Path, tmp_path: Path, weights: tuple[float, float]) -> None:
    model = random_adapter(base, tmp_path / "one")
    random_adapter(base, tmp_path / "two", lora_alpha=7, lora_dropout=0.1)
    model.load_adapter(tmp_path / "two", "two")
    model.add_weighted_adapter(["default", "two"], list(weights), "sum", combination_type="linear")
    one, two = (LoraFiles.read(tmp_path / name).factors for name in ("one", "two"))
    for name in one:
        layer = model.get_submodule(f"base_model.model.{name}")
        a, b = cross_terms([(weights[0], one[name]), (weights[1], two[name])])
        torch.testing.assert_close(a, layer.lora_A["sum"].weight.cpu())
        torch.testing.assert_close(b, layer.lora_B["sum"].weight.cpu())
        exact = concatenated([(weights[0], one[name]), (weights[1], two[name])])
        off = float((b @ a - exact[1] @ exact[0]).norm() / (exact[1] @ exact[0]).norm())
        assert (off > 0.1) == (0.0 not in weights)


def test_cross_terms_need_one_rank() -> None:
    with pytest.raises(InputError, match=r"\[3, 4\].*merge=exact"):
        cross_terms([(0.8, factors(0, 3)), (0.2, factors(1, 4))])


def test_thinning_keeps_the_mean() -> None:
    update, drop, draws = factors(0, 3).dense, 0.3, 2000
    generator = torch.Generator().manual_seed(0)
    mean: Tensor = sum(thinned(update, drop, generator) for _ in range(draws)) / draws  # type: ignore[assignment]
    sigma = update.abs() * (drop / (1 - drop) / draws) ** 0.5
    assert ((mean - update).abs() <= 4 * sigma).all()
    once = thinned(update, drop, generator)
    assert torch.equal(once[once != 0], (update / (1 - drop))[once != 0])
    assert torch.equal(thinned(update, 0.0, generator), update)


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"use_rslora": True}, {"alpha_pattern": {"v_proj": 2}, "rank_pattern": {"layers.0.self_attn.q_proj": 2}},
    ],
)  # fmt: skip
def test_scales_are_pefts_and_scale_one_keeps_the_function(base: Path, tmp_path: Path, settings: Any) -> None:
    model = random_adapter(base, tmp_path, **settings)
    files = LoraFiles.read(tmp_path)
    for name, one in files.factors.items():
        assert one.scale == model.get_submodule(f"base_model.model.{name}").scaling["default"]
    (tmp_path / "plain").mkdir()
    pairs = padded({name: concatenated([(1.0, one)]) for name, one in files.factors.items()})
    files.of_scale_one(pairs).save(tmp_path / "plain", str(base))
    ids = torch.arange(5, 25)[None].to(DEVICE)
    with torch.no_grad():
        found, expected = (
            PeftModel.from_pretrained(load_base(str(base), device=DEVICE), folder).eval()(input_ids=ids).logits
            for folder in (tmp_path / "plain", tmp_path)
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_else_an_adapter_changes_is_seen(base: Path, tmp_path: Path) -> None:
    random_adapter(base, tmp_path)
    assert LoraFiles.read(tmp_path).others == []
    random_adapter(base, tmp_path, modules_to_save=["norm"])
    assert any("norm" in name for name in LoraFiles.read(tmp_path).others)
    random_adapter(base, tmp_path, use_dora=True)
    with pytest.raises(InputError, match="no plain LoRA"):
        LoraFiles.read(tmp_path)


def test_files_are_written_as_they_were_read(base: Path, tmp_path: Path) -> None:
    random_adapter(base, tmp_path / "one")
    (tmp_path / "two").mkdir()
    files = LoraFiles.read(tmp_path / "one")
    files.with_pairs(files.pairs).save(tmp_path / "two", "a base")
    again = LoraFiles.read(tmp_path / "two")
    assert set(again.tensors) == set(files.tensors)
    assert all(torch.equal(again.tensors[name], part) for name, part in files.tensors.items())
    assert json.loads((tmp_path / "two" / "adapter_config.json").read_text())["base_model_name_or_path"] == "a base"
    load_adapter(load_base(str(base), device=DEVICE), tmp_path / "two")


def test_different_modules_or_shapes_are_told() -> None:
    one = {"m": factors(0, 3)}
    with pytest.raises(InputError, match="such as 'n'"):
        check_same_modules(one, {**one, "n": factors(1, 3)}, "other")
    with pytest.raises(InputError, match=r"\(7, 11\).*\(7, 4\)"):
        check_same_modules(one, {"m": Factors(torch.zeros(2, 4), torch.zeros(7, 2))}, "other")
