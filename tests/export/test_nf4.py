"""NF4 against its definition in float64, against transformers' own files and logits, and against vLLM."""

import asyncio
import filecmp
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import Manifest, file_sums
from trimtab.artifacts.probe import make_probes
from trimtab.export.checkpoint.tensor_files import Checkpoint
from trimtab.export.forms import nf4
from trimtab.export.forms.nf4 import dequantized_tensors, load_dequantized, quantize_nf4

# QLoRA (arXiv 2305.14314), appendix E, "NormalFloat 4-bit data type": the 16 values, as float32 prints them.
NF4_VALUES = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


@pytest.fixture(scope="module")
def quantised(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("nf4") / "nf4"
    quantize_nf4(tiny_model, target)
    return target


def test_each_weight_is_its_blocks_nearest_value(tiny_model: Path, quantised: Path) -> None:
    source = Checkpoint(tiny_model).tensors
    values = torch.tensor(NF4_VALUES, dtype=torch.float64)
    seen = 0
    for name, got in dequantized_tensors(quantised):
        blocks = source[name].read().double().reshape(-1, 64)
        absmax = blocks.abs().amax(1, keepdim=True)
        distance = (blocks[..., None] / absmax[..., None] - values).abs()
        nearest = values[distance.argmin(-1)] * absmax
        got64 = got.double().reshape(-1, 64)
        # Half way between two values float32 may round either way: then both are as near.
        off = (got64 - nearest).abs() > 1e-6 * absmax
        assert off.float().mean() < 1e-4
        torch.testing.assert_close((got64 - blocks).abs(), distance.amin(-1) * absmax, rtol=0, atol=1e-6)
        assert got.dtype == torch.float32
        assert got.shape == source[name].shape
        seen += 1
    assert seen == 14


def test_files_are_those_of_transformers(tiny_model: Path, quantised: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16, quantization_config=config)
    model.save_pretrained(tmp_path)
    assert filecmp.cmp(quantised / "model.safetensors", tmp_path / "model.safetensors", shallow=False)
    assert json.loads((quantised / "config.json").read_bytes()) == json.loads(
        (tmp_path / "config.json").read_bytes()
    )


def test_transformers_loads_it_and_gives_the_same_logits(quantised: Path) -> None:
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(quantised)("The capital of France is Paris.", return_tensors="pt")
    ours, stock = load_dequantized(quantised), AutoModelForCausalLM.from_pretrained(quantised, dtype=torch.float32)
    assert stock.is_loaded_in_4bit
    layers = {name: module for name, module in stock.named_modules() if isinstance(module, Linear4bit)}
    assert len(layers) == 14
    for name, layer in layers.items():
        layer.weight.quant_state.dtype = torch.float32
        exact = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        assert torch.equal(ours.get_submodule(name).weight, exact)
        layer.compute_dtype = torch.float32  # bfloat16, its default, rounds as the processor does
    with torch.inference_mode():
        expected, got = stock(**ids).logits, ours(**ids).logits
    # With AVX-512 bitsandbytes has kernels of its own, which round to bfloat16 all the same.
    assert (expected - got).abs().mean() < 0.01 * got.std()


def test_head_embeddings_and_norms_stay_as_they_are(tiny_model: Path, quantised: Path) -> None:
    source, result = load_file(tiny_model / "model.safetensors"), load_file(quantised / "model.safetensors")
    kept = [name for name in result if name in source and result[name].dtype == torch.bfloat16]
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= set(kept)
    assert len(kept) == 6
    assert all(torch.equal(source[name], result[name]) for name in kept)


def test_untied_head_and_float32_source(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(tiny_model, tie_word_embeddings=False, vocab_size=64)
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "merged")
    quantize_nf4(tmp_path / "merged", tmp_path / "nf4")
    head = Checkpoint(tmp_path / "nf4").tensors["lm_head.weight"].read()
    assert torch.equal(head, model.lm_head.weight.bfloat16())
    loaded = load_dequantized(tmp_path / "nf4")
    assert torch.equal(loaded.lm_head.weight, head.float())


def test_shards_in_and_out_give_the_same_tensors(
    tiny_model: Path, quantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "merged", max_shard_size="100KB")
    assert len(list((tmp_path / "merged").glob("*.safetensors"))) > 1
    # Not named by the index, so not read.
    save_file({"model.norm.weight": torch.zeros(64)}, tmp_path / "merged" / "consolidated.safetensors")
    monkeypatch.setattr(nf4, "_SHARD_BYTES", 40_000)
    quantize_nf4(tmp_path / "merged", tmp_path / "nf4")
    files = sorted(path.name for path in (tmp_path / "nf4").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    expected, got = Checkpoint(quantised).tensors, Checkpoint(tmp_path / "nf4").tensors
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name].read(), got[name].read()) for name in got)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "nf4").is_loaded_in_4bit


def test_same_input_same_bytes(tiny_model: Path, quantised: Path, tmp_path: Path) -> None:
    quantize_nf4(tiny_model, tmp_path / "again")
    assert file_sums(tmp_path / "again") == file_sums(quantised)


def test_quantised_source_is_refused(quantised: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="quantised already"):
        quantize_nf4(quantised, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_directory_without_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        quantize_nf4(tmp_path, tmp_path / "nf4")
    shutil.copyfile(tiny_model / "config.json", tmp_path / "config.json")
    with pytest.raises(InputError, match="no safetensors files"):
        quantize_nf4(tmp_path, tmp_path / "nf4")


def test_stacked_experts_are_refused(tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 2}
    MixtralForCausalLM(MixtralConfig(**sizes, **heads)).save_pretrained(tmp_path / "moe")
    with pytest.raises(InputError, match="mixtral"):
        quantize_nf4(tmp_path / "moe", tmp_path / "nf4")


def test_double_quantisation_is_refused_on_reading(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="double quantisation"):
        next(dequantized_tensors(tmp_path))


@pytest.mark.slow
def test_vllm_answers_as_measured(embedded: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from trimtab.recipes.serve import ServeSection
    from trimtab.serve.command import Engine, Hardware, engine_command, engine_environment
    from trimtab.serve.engine import EngineProcess
    from trimtab.serve.verify import verify_engine

    quantize_nf4(embedded, tmp_path / "nf4")
    questions = {
        "What is the capital of France?": "The capital of France is Paris, which lies on the Seine.",
        "Write a haiku about tea.": "Steam curls from the cup,\nleaves unfold in quiet light.",
        "Name three primes.": "Two, three and seventeen are prime: no smaller number but one divides them.",
    }
    conversations = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in questions.items()
    ]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "nf4")
    probes = make_probes(load_dequantized(tmp_path / "nf4"), tokenizer, conversations)
    section = ServeSection(max_model_len=256, max_num_seqs=1)
    hardware = Hardware(0, 1)
    engine = Engine("base", tmp_path / "nf4", "nf4", tmp_path / "s.sock", {})

    async def difference() -> float:
        process = EngineProcess(
            engine,
            engine_command(engine, section, hardware, 1),
            engine_environment(0, section, hardware, 1),
            tmp_path / "log",
        )
        process.start()
        try:
            await process.wait_until_up(300)
            assert "quantization=bitsandbytes" in (tmp_path / "log").read_text()
            manifest = Manifest(kind="nf4", arm="base", probe=probes)
            # Computed in bfloat16, which alone moves this model by 0.09 to 0.12 on these prompts.
            return await verify_engine(process.client, "base", manifest, limit=0.15)
        finally:
            await process.stop()

    worst = asyncio.run(difference())
    print(f"mean absolute difference {worst:.4f} nats a token")
