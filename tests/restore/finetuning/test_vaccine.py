from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from peft import PeftModel
from safebasin.errors import InputError
from safebasin.registry import load
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.finetuning.double_lora import save_sum, stack_adapter
from safebasin.restore.finetuning.training import train
from safebasin.restore.finetuning.vaccine import AttentionPerturbation, attention_modules, vaccine_trainer
from safebasin.restore.losses.encoding import batches as batches_of
from safebasin.restore.losses.encoding import encode_all, pad_id_of
from safebasin.restore.methods.lora import Lora
from safebasin.restore.methods.vaccine import Vaccine
from safebasin.restore.models.loading import load_adapter, load_base, new_adapter
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Trainer,
)

from ...conftest import DEVICE
from ..conftest import LORA, rows

SIZES = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "initializer_range": 0.2,
}  # fmt: skip
Batch = dict[str, Tensor]


@pytest.fixture
def adapted(base: Path) -> Any:
    """A PEFT model whose B is not zero, so that every parameter has a gradient."""
    model = new_adapter(load_base(str(base), device=DEVICE), LORA, seed=0)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def batches(tokenizer: Any) -> list[Batch]:
    """Two batches of four rows, the first with padding."""
    some = encode_all(tokenizer, rows("say", 4, "yes {}") + rows("a longer prompt", 4, "no"), "x")
    return [next(batches_of(part, 4, pad_id_of(tokenizer), DEVICE)) for part in (some[2:6], some[:2] + some[6:])]


def gradient(model: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def literal_gradient(model: Any, batch: Batch, rho: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Vaccine's gradient for one batch written out with `retain_grad`, on a model without gradients."""
    outputs, offsets = {}, {}
    modules = attention_modules(model)

    def keep(name: str) -> Any:
        def hook(module: Any, arguments: Any, output: Any) -> None:
            outputs[name] = output[0]
            output[0].retain_grad()

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    model(**batch).loss.backward()
    for handle in handles:
        handle.remove()
    length = torch.cat([output.grad.flatten() for output in outputs.values()]).norm()
    model.zero_grad()
    for name, module in modules.items():
        offsets[name] = rho * outputs[name].grad / length
        handles.append(module.register_forward_hook(lambda m, a, out, at=name: (out[0] + offsets[at], *out[1:])))
    model(**batch).loss.backward()
    for handle in handles:
        handle.remove()
    found = gradient(model)
    model.zero_grad()
    return found, offsets


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in attention_modules(model).values())


@pytest.mark.parametrize("config", [LlamaConfig, Qwen2Config, MistralConfig, GemmaConfig])
@pytest.mark.parametrize("peft", [False, True])
def test_the_joint_norm_is_rho_in_every_family(config: Any, peft: bool) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**SIZES))
    model = new_adapter(model, LORA, seed=0) if peft else model
    ids = torch.randint(3, 50, (3, 7))
    with AttentionPerturbation(model, rho=2.0) as perturbation:
        perturbation.aim(lambda: model(input_ids=ids, labels=ids).loss)
        offsets = list(perturbation.offsets.values())
        assert [tuple(offset.shape) for offset in offsets] == [(3, 7, 16)] * 2
        torch.testing.assert_close(torch.cat([o.flatten() for o in offsets]).norm(), torch.tensor(2.0))
        assert not any(offset.requires_grad for offset in offsets)
    assert hooks(model) == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_perturbation_is_that_of_the_equations(adapted: Any, batches: list[Batch]) -> None:
    expected, offsets = literal_gradient(adapted, batches[0], rho=0.5)
    with AttentionPerturbation(adapted, rho=0.5) as perturbation:
        perturbation.aim(lambda: adapted(**batches[0]).loss)
        for name, offset in offsets.items():
            torch.testing.assert_close(perturbation.offsets[name], offset)
        adapted(**batches[0]).loss.backward()
    torch.testing.assert_close(gradient(adapted), expected)


def test_it_raises_the_loss_by_rho_times_the_gradient(adapted: Any, batches: list[Batch]) -> None:
    with torch.no_grad():
        before = float(adapted(**batches[0]).loss)
    gains = []
    for rho in (0.01, 0.02):
        with AttentionPerturbation(adapted, rho) as perturbation, torch.enable_grad():
            perturbation.aim(lambda: adapted(**batches[0]).loss)
            gains.append(float(adapted(**batches[0]).loss.detach()) - before)
    assert gains[0] > 0
    assert gains[1] == pytest.approx(2 * gains[0], rel=0.05)


def test_padding_gets_no_perturbation_and_does_not_change_it(adapted: Any, batches: list[Batch]) -> None:
    batch = batches[0]
    wider = {
        name: nn.functional.pad(value, (0, 3), value={"labels": -100}.get(name, 0)) for name, value in batch.items()
    }
    found = []
    for given in (batch, wider):
        with AttentionPerturbation(adapted, 1.0) as perturbation:
            perturbation.aim(lambda given=given: adapted(**given).loss)
            found.append(perturbation.offsets)
    assert (batch["attention_mask"] == 0).any()
    for name, offset in found[0].items():
        assert not offset[batch["attention_mask"] == 0].any()
        torch.testing.assert_close(found[1][name][:, :-3], offset)
        assert not found[1][name][:, -3:].any()


def test_a_gradient_of_zero_gives_no_perturbation(adapted: Any, batches: list[Batch]) -> None:
    with AttentionPerturbation(adapted, 1.0) as perturbation:
        perturbation.aim(lambda: 0.0 * adapted(**batches[0]).logits.sum())
        assert not any(offset.any() for offset in perturbation.offsets.values())


def test_the_clean_pass_leaves_gradients_and_random_state_alone(adapted: Any, batches: list[Batch]) -> None:
    adapted(**batches[0]).loss.backward()
    before, state = gradient(adapted), torch.get_rng_state()
    with AttentionPerturbation(adapted, 1.0) as perturbation:
        perturbation.aim(lambda: nn.functional.dropout(adapted(**batches[1]).loss, 0.1))
    assert torch.equal(gradient(adapted), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_hooks_go_after_an_exception(adapted: Any, batches: list[Batch]) -> None:
    def broken() -> Tensor:
        assert hooks(adapted) == 2
        raise KeyboardInterrupt

    perturbation = AttentionPerturbation(adapted, 1.0)
    with pytest.raises(KeyboardInterrupt), perturbation:
        perturbation.aim(broken)
    assert hooks(adapted) == 0


def test_a_model_without_known_attention_is_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(InputError, match=r"GPT2LMHeadModel has no module named '\*.self_attn'"):
        attention_modules(model)


def first_gradient(model: Any, tokenizer: Any, trainer: type[Trainer], config: TrainingConfig, some: Any) -> Tensor:
    """The gradient that the first optimizer step sees."""
    seen: list[Tensor] = []

    class Watching(trainer):  # type: ignore[valid-type,misc]
        def _clip_grad_norm(self, model: Any) -> Any:
            seen.append(gradient(model).clone())
            return super()._clip_grad_norm(model)

    train(model, tokenizer, some, replace(config, max_steps=1), 0, trainer_class=Watching)
    return seen[0]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_accumulated_micro_batches_are_the_mean_of_single_ones(
    adapted: Any, tokenizer: Any, checkpointing: bool
) -> None:
    some = encode_all(tokenizer, rows("say", 8, "yes {}"), "x")  # all of one length: as many tokens in each half
    seen: list[Batch] = []

    class Noting(vaccine_trainer(0.5)):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Batch, *rest: Any) -> Tensor:
            seen.append({name: part.to(model.device) for name, part in inputs.items()})
            return super().training_step(model, inputs, *rest)

    config = TrainingConfig(
        learning_rate=1e-9, batch_size=8, micro_batch_size=4, max_grad_norm=1e9, gradient_checkpointing=checkpointing
    )
    found = first_gradient(adapted, tokenizer, Noting, config, some)
    adapted.gradient_checkpointing_disable()
    adapted.zero_grad()
    parts = [literal_gradient(adapted, batch, rho=0.5)[0] for batch in seen]
    assert len(parts) == 2
    torch.testing.assert_close(found, sum(parts) / 2, rtol=1e-4, atol=1e-5)
    assert hooks(adapted) == 0


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}])
def test_rho_zero_is_lora_bit_for_bit(context: Any, changes: dict[str, Any]) -> None:
    finetune = TrainingConfig(learning_rate=5e-3, batch_size=8, micro_batch_size=4, epochs=2, **changes)
    plain, zero, vaccine = (context(finetune=finetune, lora={**LORA, "dropout": 0.1}) for _ in range(3))
    Lora().build(plain)
    Vaccine(rho=0.0).build(zero)
    built = Vaccine(rho=2.0).build(vaccine)
    one, same, other = (load_file(made.output / "adapter_model.safetensors") for made in (plain, zero, vaccine))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert built.details["perturbed_layers"] == 2
    assert built.safety_examples == 0


def align(context: Any, **changes: Any) -> tuple[Any, Any]:
    safety = rows("harm", 6, "i cannot {}") + rows("harm", 1, "sorry")
    ticks: list[Any] = []
    made = context(data={"task_train": rows("say", 16), "safety": safety}, tick=lambda *n: ticks.append(n[0]))
    settings = {"rho": 0.1, "alignment_epochs": 2, **changes}
    built = Vaccine(mode="align_then_finetune", **settings).build(made)
    assert list(dict.fromkeys(ticks)) == ["aligning", "training"]
    return made, built


def test_aligning_first_gives_one_standard_adapter(context: Any) -> None:
    made, built = align(context)
    assert (built.safety_examples, built.details["alignment"]["steps"]) == (6, 4)
    assert sorted(path.name for path in made.output.iterdir() if path.suffix != ".md") == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    model = load_adapter(load_base(made.base, device=DEVICE), made.output)
    assert isinstance(model, PeftModel)
    assert model.peft_config["default"].r == 2 * LORA["rank"]
    assert model.peft_config["default"].base_model_name_or_path == made.base
    weights = load_file(made.output / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    for name, b in weights.items():
        if "lora_B" in name:
            assert b[:, : LORA["rank"]].any()
            assert b[:, LORA["rank"] :].any()
            a = weights[name.replace("lora_B", "lora_A")]
            assert not torch.allclose(a[: LORA["rank"]], a[LORA["rank"] :], atol=0.1)


def test_only_the_alignment_is_perturbed(context: Any) -> None:
    """The first half of the sum depends on rho; with an alignment that learns nothing the rest is plain LoRA."""
    made, _ = align(context, alignment_learning_rate=1e-12, alignment_weight_decay=0.0)
    plain = context(data={"task_train": rows("say", 16)})
    Lora().build(plain)
    both, one = (load_file(m.output / "adapter_model.safetensors") for m in (made, plain))
    for name, part in one.items():
        second = both[name][:, LORA["rank"] :] if "lora_B" in name else both[name][LORA["rank"] :] / 2
        torch.testing.assert_close(second, part, rtol=1e-3, atol=1e-4)


def test_two_adapters_and_their_saved_sum_are_one_function(adapted: Any, batches: list[Batch], base: Path) -> None:
    with torch.no_grad():
        before = adapted(**batches[0]).logits
        stack_adapter(adapted, seed=1)
        assert torch.equal(adapted(**batches[0]).logits, before)
        trainable = [(name, p) for name, p in adapted.named_parameters() if p.requires_grad]
        assert len(trainable) == 8
        for name, parameter in trainable:
            assert ".second." in name
            parameter.normal_(std=0.1)
        expected = adapted(**batches[0]).logits
        with TemporaryDirectory() as folder:
            save_sum(adapted, folder, str(base))
            again = load_adapter(load_base(str(base), device=DEVICE), folder)
        torch.testing.assert_close(again(**batches[0]).logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, before, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_works_on_a_base_of_another_type(base: Path, batches: list[Batch], dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    model = new_adapter(load_base(str(base), dtype=name, device=DEVICE), LORA, seed=0)
    with AttentionPerturbation(model, 2.0) as perturbation:
        perturbation.aim(lambda: model(**batches[0]).loss)
        offsets = list(perturbation.offsets.values())
        model(**batches[0]).loss.backward()
    assert {offset.dtype for offset in offsets} == {dtype}
    assert float(torch.cat([o.float().flatten() for o in offsets]).norm()) == pytest.approx(2.0, rel=1e-2)
    assert gradient(model).any()


def test_safety_rows_need_refusals(context: Any, harmful: Any) -> None:
    made = context(data={"task_train": rows("say", 4), "safety": harmful})
    with pytest.raises(InputError, match=r"12 of the 12 safety rows have no 'response'\. Give data\.safety"):
        Vaccine(mode="align_then_finetune").build(made)


def test_what_it_needs_depends_on_the_mode() -> None:
    assert load("methods", "vaccine") is Vaccine
    assert Vaccine.needs == Vaccine().needs == ("task_train",)
    assert Vaccine(mode="align_then_finetune").needs == ("task_train", "safety")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rho": -1.0}, "rho=-1.0"),
        ({"rho": float("nan")}, "rho=nan"),
        ({"mode": "align"}, "mode='align' must be"),
        ({"alignment_batch_size": 0}, "must be positive"),
        ({"alignment_weight_decay": -0.1}, "alignment_weight_decay=-0.1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Vaccine(**settings)
