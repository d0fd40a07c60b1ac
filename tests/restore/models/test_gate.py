"""Whatever enters is whole and fits together, or is refused with what mends it: classes of fault in two shapes."""

import json
import re
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.models.adapter_files import brings_tokenizer, copy_adapter
from safebasin.restore.models.chat import begun, ends_of, read_chat, writing_date
from safebasin.restore.models.files import digests_of, files_digest
from safebasin.restore.models.gate import admit, examine
from safebasin.restore.models.loading import load_base, load_tokenizer, load_tuned, new_adapter, save_adapter
from safetensors.torch import load_file, save_file

Edit = Callable[[Path], None]
PLAIN = "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
OPENS = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(base, tmp_path / "copy"))


def weights(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Edit:
    def edit(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    return edit


def settings(file: str = "config.json", **changes: Any) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / file
        known = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**known, **changes}))

    return edit


def cut(file: str, share: float = 0.5) -> Edit:
    def edit(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(len(content) * share)])

    return edit


def pointer(file: str) -> Edit:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    return lambda folder: (folder / file).write_text(text) and None


def poisoned(value: float) -> Edit:
    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        tensors["model.norm.weight"][3] = value
        return tensors

    return weights(change)


BAD_MODELS = {
    "compiled": (
        weights(lambda t: {f"_orig_mod.{k}": v for k, v in t.items()}),
        ["not whole", "rename '_orig_mod.model", "compile"],
    ),
    "data parallel": (
        weights(lambda t: {f"module.{k}": v for k, v in t.items()}), ["not whole", "rename 'module.model"]
    ),
    "lacks a layer": (settings(num_hidden_layers=3), ["weights of the architecture are not in its files", "layers.2"]),
    "a layer too many": (settings(num_hidden_layers=1), ["belong to nothing in it", "layers.1"]),
    "untied without a head": (settings(tie_word_embeddings=False), ["lm_head.weight"]),
    "NaN": (poisoned(float("nan")), ["'model.norm.weight'", "not finite"]),
    "infinite": (poisoned(float("inf")), ["'model.norm.weight'", "not finite"]),
    "pointer of weights": (pointer("model.safetensors"), ["Git-LFS pointer", "git lfs pull", "model.safetensors"]),
    "pointer of a tokenizer": (pointer("tokenizer.json"), ["Git-LFS pointer", "tokenizer.json"]),
    "weights cut": (cut("model.safetensors"), ["model.safetensors", "cannot be read as safetensors"]),
    "empty weights": (cut("model.safetensors", 0), ["model.safetensors", "cannot be read as safetensors"]),
    "config cut": (cut("config.json"), ["config.json", "no JSON, in line"]),
    "generation config cut": (cut("generation_config.json"), ["generation_config.json", "no JSON"]),
    "empty tokenizer": (cut("tokenizer.json", 0), ["tokenizer.json", "is empty"]),
    "other shapes": (settings(hidden_size=64), ["config.json and the weights are of different models"]),
    "unknown architecture": (settings(model_type="lama"), ["'lama'", "pip install --upgrade transformers"]),
    "GPTQ": (settings(quantization_config={"quant_method": "gptq", "bits": 4}), ["pip install optimum gptqmodel"]),
    "4 bits": (
        settings(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        ["pip install bitsandbytes"],
    ),
    "AWQ": (settings(quantization_config={"quant_method": "awq", "bits": 4}), ["`pip install gptqmodel`"]),
    "for a GPU": (
        settings(quantization_config={"quant_method": "higgs"}), ["give the model unquantised"],
    ),
    "quantised by no method": (settings(quantization_config={"bits": 4}), ["Correct quantization_config"]),
    "quantised by a list": (settings(quantization_config=[4]), ["Correct quantization_config"]),
    "quantised by a word": (settings(quantization_config="gptq"), ["Correct quantization_config"]),
    "whole numbers": (
        weights(lambda t: {k: (v * 99).to(torch.int8) if "q_proj" in k else v for k, v in t.items()}),
        ["2 weights of whole numbers", "no quantization_config"],
    ),
    "bytes": (
        weights(lambda t: {k: v.to(torch.uint8) if "down" in k else v for k, v in t.items()}), ["of whole numbers"]
    ),
    "FSDP": (
        weights(lambda t: {k.replace("self_attn", "_fsdp_wrapped_module.self_attn"): v for k, v in t.items()}),
        ["not whole", "rename 'model.layers.0._fsdp_wrapped_module.self_attn"],
    ),
    "checkpointed layers": (
        weights(lambda t: {k.replace("mlp.", "_checkpoint_wrapped_module.mlp."): v for k, v in t.items()}),
        ["not whole", "rename 'model.layers.0._checkpoint"],
    ),
    "an adapter on it": (
        weights(lambda t: {k.replace("q_proj.", "q_proj.base_layer."): v for k, v in t.items()}),
        ["not whole", "merge_and_unload()"],
    ),
    "an adapter in it": (settings("adapter_config.json", peft_type="LORA"), ["holds an adapter", "by itself"]),
    "no causal model": (settings(model_type="t5"), ["'t5' is no causal language model"]),
    "code": (
        settings(model_type="mine", auto_map={"AutoConfig": "c.C", "AutoModelForCausalLM": "m.M"}),
        ["part of transformers"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_model_that_is_not_whole_is_refused_with_what_mends_it(folder: Path, name: str) -> None:
    edit, said = BAD_MODELS[name]
    edit(folder)
    with pytest.raises(InputError) as caught:
        load_base(str(folder), device="cpu")
    for text in said:
        assert text in str(caught.value)
    found = examine(str(folder))
    assert found.refused
    assert any(said[0] in text for _, state, text in found.rows() if state == "refused")


@pytest.mark.parametrize("pad", [400, -400, -1])
def test_a_padding_token_of_the_config_may_lie_outside(base: Path, folder: Path, pad: int) -> None:
    settings(pad_token_id=pad)(folder)
    settings("generation_config.json", pad_token_id=pad)(folder)
    ids = torch.arange(9)[None]
    wanted = load_base(str(base), device="cpu")(input_ids=ids).logits
    assert torch.equal(load_base(str(folder), device="cpu")(input_ids=ids).logits, wanted)


def test_what_no_model_reads_any_more_may_be_left_over(folder: Path) -> None:
    weights(lambda t: {**t, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})(folder)
    load_base(str(folder), device="cpu")


def templated(folder: Path, template: str, **tokens: Any) -> Any:
    tokenizer = load_tokenizer(str(folder))
    for token in tokens.get("added", ()):
        tokenizer.add_tokens([token], special_tokens=tokens.get("special", True))
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (PLAIN + "</s>{% endfor %}", "opens no answer"),
        ("{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] }}\n{% endfor %}", "opens no answer"),
        ("{{ bos_token }}" + PLAIN + "</s>{% endfor %}" + OPENS, "begins with two <s>"),
        ("{% for m in messages %}{{ m.content.parts }}{% endfor %}", "leaves out what user or assistant say"),
        ("{{ raise_exception('no') }}", "cannot render a conversation"),
        (PLAIN + "</s>{% endfor %}" + OPENS.replace("assistant", "system"), "opens an answer with '<|system|>'"),
        (PLAIN + "</s>{% endfor %}" + OPENS.replace("assistant", "user"), "a finished one begins with '<|assistant|>'"),
        (PLAIN + "</s>{% endfor %}" + OPENS.replace("<|assistant|>", "{{ '\n' }}"), "opens no answer"),
        (PLAIN + "</s>{% endfor %}" + OPENS.replace("if add", "if not add"), "opens no answer"),
        (PLAIN + "<|im_end|>{% endfor %}" + OPENS, "ends answers with '<|im_end|>', which is no token"),
        (PLAIN + "\n###\n{% endfor %}" + OPENS, "ends answers with '###', which is no token"),
    ],
)
def test_a_template_that_cannot_be_answered_is_refused(folder: Path, template: str, said: str) -> None:
    templated(folder, template)
    with pytest.raises(InputError, match=re.escape(said)):
        load_tokenizer(str(folder))
    assert any(said in text for *_, text in examine(str(folder)).rows())


@pytest.mark.parametrize(
    ("template", "opening", "end"),
    [
        (PLAIN + "</s>{% endfor %}<|assistant|>", "", "</s>"),  # whatever is asked
        (PLAIN + "</s>{% if m.role == 'user' and loop.last %}<|assistant|>OK {% endif %}{% endfor %}", "", "</s>"),
        (PLAIN + "{% endfor %}" + OPENS, "<|assistant|>", "<|user|>"),  # the next turn ends it
        (PLAIN + "\n\n{% endfor %}" + OPENS.replace("<|assistant|>", "Answer:"), "Answer:", ""),
    ],
)
def test_other_ways_to_open_and_end_an_answer(folder: Path, template: str, opening: str, end: str) -> None:
    if "Answer" in template:
        template = template.replace("<|{{ m['role'] }}|>", "{{ 'Ask:' if m['role'] == 'user' else 'Answer:' }}")
    chat = read_chat(load_tokenizer(str(templated(folder, template))))
    assert (chat.opening, chat.end_text) == (opening, end)


def test_the_end_of_the_users_turn_may_open_the_answer(folder: Path) -> None:
    """As in Mistral's and Llama 2's templates, which know nothing of add_generation_prompt."""
    turns = "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    templated(folder, turns + "{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}")
    chat = read_chat(load_tokenizer(str(folder)))
    assert (chat.opening, chat.end_text) == ("", "</s>")


@pytest.mark.parametrize(
    ("template", "special"),
    [
        (PLAIN + "<|eot|>{% endfor %}" + OPENS, True),
        (PLAIN + "<|eot|>\n{% endfor %}" + OPENS, False),
        (PLAIN + "{% if not loop.last %}<|eot|>{% endif %}{% endfor %}" + OPENS, True),  # as the next turn begins
    ],
)
def test_generation_stops_where_the_template_ends_a_turn(folder: Path, template: str, special: bool) -> None:
    templated(folder, template, added=["<|eot|>"], special=special)
    settings(vocab_size=300)(folder)
    weights(lambda t: {**t, "model.embed_tokens.weight": torch.randn(300, 32)})(folder)
    tokenizer, model = load_tokenizer(str(folder)), load_base(str(folder), device="cpu")
    end = tokenizer.convert_tokens_to_ids("<|eot|>")
    assert ends_of(model, tokenizer) == sorted({1, end})
    assert tokenizer.decode([*tokenizer.encode("yes"), end], skip_special_tokens=True) == "yes"
    assert "the configs do not name <|eot|>" in str(examine(str(folder)).rows())


def test_the_clock_is_fixed_and_may_be_set(folder: Path) -> None:
    templated(folder, "{{ strftime_now('%d %b %Y') }} " + PLAIN + "</s>{% endfor %}" + OPENS)
    tokenizer = load_tokenizer(str(folder))
    asked = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(asked, tokenize=False).startswith("26 Jul 2024 ")
    with writing_date(date(2031, 1, 2)):
        assert tokenizer.apply_chat_template(asked, tokenize=False).startswith("02 Jan 2031 ")


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("generation_config.json", {"eos_token_id": {"a": 1}}, "has eos_token_id: {'a': 1}"),
        ("generation_config.json", {"eos_token_id": [1, "x"]}, "has eos_token_id: [1, 'x']"),
        ("generation_config.json", {"output_hidden_states": [[0]]}, "has output_hidden_states: [[0]]"),
        ("tokenizer_config.json", {"model_max_length": []}, "Cannot load the tokenizer"),
        ("tokenizer_config.json", {"eos_token": ""}, "has the special token '', which its vocabulary lacks"),
    ],
)
def test_settings_that_would_fail_at_the_first_answer_are_refused_at_once(
    folder: Path, file: str, change: dict[str, Any], said: str
) -> None:
    settings = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(settings | change))
    with pytest.raises(InputError, match=re.escape(said)):
        (load_base(str(folder), device="cpu"), load_tokenizer(str(folder)))


def test_channels_are_refused(folder: Path) -> None:
    templated(folder, PLAIN + "</s>{% endfor %}{% if add_generation_prompt %}<|channel|>final{% endif %}")
    with pytest.raises(InputError, match="writes channels"):
        read_chat(load_tokenizer(str(folder)))


def test_settings_of_makers_that_nothing_reads_are_left_alone(folder: Path) -> None:
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"stop_words_ids": [[7]], "chat_format": []}))
    load_base(str(folder), device="cpu")


@pytest.mark.parametrize("opening", ["<think>\n", "<think>\n\n</think>\n\n", ""])
def test_an_answer_that_is_begun_has_the_opening_of_every_other(folder: Path, opening: str) -> None:
    template = PLAIN + "</s>{% endfor %}" + OPENS.replace("<|assistant|>", "<|assistant|>{{ " + repr(opening) + " }}")
    tokenizer = load_tokenizer(str(templated(folder, template)))
    asked = [{"role": "user", "content": "hi"}]
    ready = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert begun(tokenizer, [*asked, {"role": "assistant", "content": "Sure, "}]).startswith(ready)
    assert read_chat(tokenizer).opens_thinking == (opening == "<think>\n")


@pytest.mark.parametrize("pad", ["[PAD]", "<pad>"])
def test_a_padding_token_outside_the_table_is_replaced(folder: Path, base: Path, pad: str) -> None:
    tokenizer = load_tokenizer(str(base))
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": pad})
    tokenizer.save_pretrained(folder)
    assert tokenizer.pad_token_id >= rows > load_tokenizer(str(folder)).pad_token_id
    model = load_base(str(folder), device="cpu")
    assert admit(model, tokenizer).pad_token == "</s>"
    assert tokenizer.pad_token == pad  # the user's own is left alone


@pytest.mark.parametrize("how", ["template", "eos"])
def test_other_tokens_outside_the_table_are_refused(folder: Path, how: str) -> None:
    tokenizer = load_tokenizer(str(folder))
    if how == "eos":
        tokenizer.add_special_tokens({"eos_token": "<|eot|>"})
        tokenizer.save_pretrained(folder)
    else:
        templated(folder, PLAIN + "<|eot|>{% endfor %}" + OPENS, added=["<|eot|>"])
    with pytest.raises(InputError, match=r"prompts need '<\|eot\|>'.*resize_token_embeddings"):
        load_tokenizer(str(folder))


OTHER = '{"a": 1}'
KINDS = {
    "config.json": '{"rope_theta": 7}', "generation_config.json": '{"eos_token_id": 3}', "tokenizer.json": OTHER,
    "tokenizer_config.json": OTHER, "special_tokens_map.json": OTHER, "added_tokens.json": OTHER, "vocab.json": OTHER,
    "merges.txt": "a b", "vocab.txt": "a", "tokenizer.model": "m", "spiece.model": "m", "qwen.tiktoken": "t",
    "chat_template.jinja": "x", "chat_template.json": OTHER, "chat_templates/tool_use.jinja": "x",
    "preprocessor_config.json": OTHER, "processor_config.json": OTHER, "model.safetensors": "w",
    "model.safetensors.index.json": OTHER, "modeling_mine.py": "x = 1", "parts/layers.py": "x = 1",
    "adapter_config.json": '{"r": 4}', "adapter_model.safetensors": "w",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_in_the_digest(tmp_path: Path, kind: str) -> None:
    for name in ("config.json", "README.md", kind):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}" if name.endswith(".json") else "before")
    before = files_digest(tmp_path)
    (tmp_path / "README.md").write_text("other")
    (tmp_path / "provenance.json").write_text("{}")
    assert files_digest(tmp_path) == before
    (tmp_path / kind).write_text(KINDS[kind])
    assert files_digest(tmp_path) != before
    assert kind in digests_of(tmp_path)


def test_pickled_weights_count_where_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_text("w")
    before = files_digest(tmp_path)
    (tmp_path / "pytorch_model.bin").write_text("v")
    assert files_digest(tmp_path) != before


class TestAdapters:
    @pytest.fixture
    def copied(self, adapter: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(adapter, tmp_path / "adapter"))

    def change(self, folder: Path, make: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        file = folder / "adapter_model.safetensors"
        save_file(make(load_file(file)), file, metadata={"format": "pt"})

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda t: {}, "holds no weights.*ZeRO-3"),
            (lambda t: {name: torch.empty(0) for name in t}, "holds no weights.*ZeRO-3"),
            (lambda t: dict(list(t.items())[1:]), "1 of its parameters have no counterpart"),
            (lambda t: {**t, "base_model.model.model.extra.weight": torch.ones(2)}, "no counterpart, such as .*extra"),
            (lambda t: {name: tensor * float("nan") for name, tensor in t.items()}, "not finite"),
            (lambda t: {f"module.{name}": tensor for name, tensor in t.items()}, "rename 'module.base_model"),
            (
                lambda t: {name.replace(".weight", ".default.weight"): tensor for name, tensor in t.items()},
                "rename '.*lora_A.default.weight' to '.*lora_A.weight'",
            ),
            (
                lambda t: {name: tensor for name, tensor in t.items() if "v_proj" not in name},
                "name different modules: give the two files of one adapter",
            ),
            (lambda t: {name: (tensor * 99).to(torch.int8) for name, tensor in t.items()}, "of whole numbers"),
        ],
    )
    def test_one_that_is_not_whole_is_refused(self, base: Path, copied: Path, make: Any, said: str) -> None:
        self.change(copied, make)
        with pytest.raises(InputError, match=f"(?s){said}"):
            load_tuned(str(base), copied, device="cpu")
        assert examine(str(base), copied).refused

    def test_a_pickled_one_is_taken_and_copied(self, base: Path, copied: Path, tmp_path: Path) -> None:
        plain, _ = load_tuned(str(base), copied, device="cpu")
        torch.save(load_file(copied / "adapter_model.safetensors"), copied / "adapter_model.bin")
        (copied / "adapter_model.safetensors").unlink()
        (tmp_path / "again").mkdir()
        copy_adapter(copied, tmp_path / "again")
        model, _ = load_tuned(str(base), tmp_path / "again", device="cpu")
        ids = torch.arange(9)[None]
        assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)

    def test_a_pickle_of_more_than_weights_is_refused(self, base: Path, copied: Path) -> None:
        (copied / "adapter_model.safetensors").unlink()
        torch.save({"a": Path("x")}, copied / "adapter_model.bin")
        with pytest.raises(InputError, match="cannot be read as weights alone"):
            load_tuned(str(base), copied, device="cpu")

    @pytest.mark.parametrize("kept", [None, ["embed_tokens", "lm_head"]])
    def test_a_resized_vocabulary_comes_with_its_tokenizer(
        self, folder: Path, tmp_path: Path, kept: list[str] | None
    ) -> None:
        from peft import LoraConfig, get_peft_model

        untied = weights(lambda t: {**t, "lm_head.weight": t["model.embed_tokens.weight"].clone()})
        settings(tie_word_embeddings=False)(folder), untied(folder)
        model, tokenizer = load_base(str(folder), device="cpu"), load_tokenizer(str(folder))
        tokenizer.add_tokens(["<|new|>"], special_tokens=True)
        model.resize_token_embeddings(len(tokenizer))
        tuned: Any = get_peft_model(
            model, LoraConfig(target_modules=["q_proj"], modules_to_save=kept, task_type="CAUSAL_LM")
        )
        save_adapter(tuned.eval(), tmp_path / "tuned", str(folder))
        tokenizer.save_pretrained(tmp_path / "tuned")
        ids = torch.tensor([[5, 9, len(tokenizer) - 1]])
        wanted = tuned(input_ids=ids).logits
        for turn in ("tuned", "again"):
            found, own = load_tuned(str(folder), tmp_path / turn, device="cpu")
            assert own.convert_tokens_to_ids("<|new|>") == len(tokenizer) - 1
            assert torch.equal(found(input_ids=ids).logits, wanted)
            save_adapter(found, tmp_path / "again", str(folder))
            shutil.copytree(
                tmp_path / "tuned",
                tmp_path / "again",
                dirs_exist_ok=True,
                ignore=lambda *_: ["adapter_model.safetensors"],
            )
        assert brings_tokenizer(tmp_path / "again")

    @pytest.mark.parametrize("targets", ["all-linear", ["all-linear"]])
    def test_all_linear_means_what_it_does_in_peft(self, base: Path, targets: Any) -> None:
        model = new_adapter(load_base(str(base), device="cpu"), {"rank": 2, "target_modules": targets}, seed=0)
        adapted = {name.split(".")[-4] for name, _ in model.named_parameters() if "lora_A" in name}
        assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_a_sound_model_passes(base: Path, adapter: Path) -> None:
    found = examine(str(base), adapter)
    assert not found.refused
    assert {"files", "weights", "adapter", "token ids", "answers"} <= {check for check, _, _ in found.rows()}
