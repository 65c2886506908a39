"""The merged checkpoint is base plus adapter, rounded once, for every kind of adapter; the rest is copied."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import sha256
from trimtab.export.checkpoint.model_files import copy_tokenizer
from trimtab.export.checkpoint.tensor_files import INDEX, Checkpoint
from trimtab.export.merging.merge import check_merge, merge

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def base(directory: Path, model_type: str = "llama", *, shard: str = "50GB", **more: Any) -> Path:
    """A random model on disk in bfloat16."""
    from transformers import AutoConfig

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(SMALL | more)))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.to(torch.bfloat16).save_pretrained(directory, max_shard_size=shard)
    return directory


def adapter(base_dir: Path, directory: Path, change: Any = None, **config: Any) -> Path:
    """A random adapter on it, as PEFT saves it."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    if change:
        change(model)
    settings = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "target_modules": "all-linear"} | config
    peft = get_peft_model(model, LoraConfig(**settings))
    for name, parameter in peft.named_parameters():
        if any(part in name for part in ("lora_", "modules_to_save", "magnitude")):
            parameter.data += 0.1 * torch.rand_like(parameter)
    peft.save_pretrained(directory)
    return directory


def merged(base_dir: Path, adapter_dir: Path, target: Path, **options: Any) -> Path:
    target.mkdir()
    sums = merge(check_merge(base_dir, adapter_dir, target, **options), target)
    assert all(sha256(target / name) == digest for name, digest in sums.items())
    return target


def logits(directory: Path, adapter_dir: Path | None = None) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    if adapter_dir:
        model = PeftModel.from_pretrained(model, str(adapter_dir))
    ids = torch.arange(1, 25)[None]
    with torch.inference_mode():
        return model.eval()(input_ids=ids).logits


def peft_reference(base_dir: Path, adapter_dir: Path) -> dict[str, torch.Tensor]:
    """PEFT's merge in float32, its tensors rounded once."""
    model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    whole = PeftModel.from_pretrained(model, str(adapter_dir)).merge_and_unload()
    return {name: tensor.to(torch.bfloat16) for name, tensor in whole.state_dict().items()}


KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 8},
        "alpha_pattern": {"down_proj": 32, r"layers\.0\.self_attn\.q_proj": 3},
    },
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["embed_tokens", "v_proj"]},
    "modules_to_save": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head", "norm"]},
    "bias": {"bias": "all"},
}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_peft_in_float32_rounded_once(tmp_path: Path, kind: str, tied: bool) -> None:
    base_dir = base(tmp_path / "base", tie_word_embeddings=tied, attention_bias=kind == "bias", shard="20KB")
    adapter_dir = adapter(base_dir, tmp_path / "adapter", **KINDS[kind])
    job = check_merge(base_dir, adapter_dir, tmp_path)
    assert job.plan is not None, job.reason
    assert job.plan.changed > 1
    target = merged(base_dir, adapter_dir, tmp_path / "merged")
    got = {name: place.read() for name, place in Checkpoint(target).tensors.items()}
    want = peft_reference(base_dir, adapter_dir)
    for name, tensor in got.items():
        if tied and kind in ("head", "embedding") and name in ("model.embed_tokens.weight", "lm_head.weight"):
            continue  # PEFT adds to the tensor that both share; the logits below tell who is right
        if kind == "dora":  # quotients of norms, in another order
            assert torch.allclose(tensor.float(), want[name].float(), rtol=2**-7, atol=0), name
        else:
            assert torch.equal(tensor, want[name]), name
    on_base = logits(base_dir, adapter_dir)
    assert (logits(target) - on_base).abs().max() < 0.05 * on_base.abs().max()
    assert AutoModelForCausalLM.from_pretrained(target).config.tie_word_embeddings is (
        tied and kind not in ("head", "embedding", "modules_to_save")
    )


def test_untouched_tensors_and_files_are_the_bases(tmp_path: Path, embedded: Path) -> None:
    base_dir = base(tmp_path / "base", shard="20KB", vocab_size=49152)
    copy_tokenizer(embedded, base_dir)
    (base_dir / "LICENSE").write_text("a licence")
    adapter_dir = adapter(base_dir, tmp_path / "adapter", target_modules=["q_proj"])
    copy_tokenizer(embedded, adapter_dir)
    target = merged(base_dir, adapter_dir, tmp_path / "merged")
    files = {path.name for path in base_dir.iterdir()}
    assert {path.name for path in target.iterdir()} == files
    weights = {name for name in files if name.endswith(".safetensors")}
    assert len(weights) > 3
    for name in files - weights:
        assert (target / name).read_bytes() == (base_dir / name).read_bytes(), name
    before, after = Checkpoint(base_dir), Checkpoint(target)
    for name, place in before.tensors.items():
        other = after.tensors[name]
        assert (other.file.name, other.begin, other.end) == (place.file.name, place.begin, place.end)
        assert place.read().equal(other.read()) == ("q_proj" not in name)
    total = json.loads((target / INDEX).read_text())["metadata"]["total_size"]
    assert total == sum(place.size for place in after.tensors.values())


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_resized_vocabulary(tmp_path: Path, tied: bool) -> None:
    base_dir = base(tmp_path / "base", tie_word_embeddings=tied, shard="20KB")
    resize = {"change": lambda model: model.resize_token_embeddings(104, mean_resizing=False)}
    adapter_dir = adapter(base_dir, tmp_path / "adapter", **resize, target_modules=["q_proj"])
    target = merged(base_dir, adapter_dir, tmp_path / "merged")
    config = json.loads((target / "config.json").read_text())
    assert config["vocab_size"] == 104
    tensors = Checkpoint(target).tensors
    assert tensors["model.embed_tokens.weight"].shape == (104, 32)
    assert ("lm_head.weight" in tensors) is not tied
    total = json.loads((target / INDEX).read_text())["metadata"]["total_size"]
    assert total == sum(place.size for place in tensors.values())
    assert logits(target).shape[-1] == 104


def test_transposed_weights_of_conv1d(tmp_path: Path) -> None:
    sizes = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    base_dir = base(tmp_path / "base", "gpt2", **sizes)
    targets = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}
    for name, more in (("lora", {}), ("dora", {"use_dora": True})):
        adapter_dir = adapter(base_dir, tmp_path / name, **targets, **more)
        target = merged(base_dir, adapter_dir, tmp_path / f"{name}-merged")
        want = peft_reference(base_dir, adapter_dir)
        for tensor, place in Checkpoint(target).tensors.items():
            expected = want.get(tensor, want.get(f"transformer.{tensor}"))
            assert torch.allclose(place.read().float(), expected.float(), rtol=2**-7, atol=0), tensor
            if name == "lora":
                assert torch.equal(place.read(), expected), tensor


@pytest.mark.parametrize("model_type", ["qwen3_moe", "mixtral", "gpt_oss"])
def test_experts(tmp_path: Path, model_type: str) -> None:
    """PEFT's factors for all experts of a layer, in files that keep experts apart or stacked either way."""
    sizes = (
        {"num_local_experts": 4}
        if model_type != "qwen3_moe"
        else {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "decoder_sparse_step": 1,
        }
    )
    base_dir = base(tmp_path / "base", model_type, **sizes)
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    adapter_dir = adapter(base_dir, tmp_path / "adapter", target_modules=["q_proj"], target_parameters=parameters)
    job = check_merge(base_dir, adapter_dir, tmp_path)
    assert job.plan is not None, job.reason
    target = merged(base_dir, adapter_dir, tmp_path / "merged")
    ours = AutoModelForCausalLM.from_pretrained(target, dtype=torch.bfloat16).state_dict()
    want = peft_reference(base_dir, adapter_dir)
    changed = 0
    for name, tensor in ours.items():
        # batched and plain products may differ in the last bit of float32
        close = torch.isclose(tensor.float(), want[name].float(), rtol=2**-7, atol=1e-6)
        assert close.all(), name
        assert (tensor == want[name]).float().mean() > 0.99, name
        changed += "experts" in name
    assert changed >= 4


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ({"init_lora_weights": "pissa"}, "initialisation pissa"),
        ({"trainable_token_indices": [3, 5]}, "trainable_token_indices"),
        ({"lora_bias": True, "target_modules": ["q_proj"]}, "lora_bias"),
    ],
)
def test_other_kinds_are_merged_by_peft(tmp_path: Path, kind: dict[str, Any], says: str, capsys: Any) -> None:
    base_dir = base(tmp_path / "base", attention_bias="lora_bias" in kind)
    adapter_dir = adapter(base_dir, tmp_path / "adapter", **kind)
    target = merged(base_dir, adapter_dir, tmp_path / "merged")
    out = capsys.readouterr().out
    assert "merged by PEFT, whole in memory, because" in out
    assert says in out
    want = peft_reference(base_dir, adapter_dir)
    got = AutoModelForCausalLM.from_pretrained(target, dtype=torch.bfloat16).state_dict()
    assert all(torch.allclose(got[name].float(), want[name].float(), rtol=2**-7) for name in want)
    assert (target / "config.json").read_bytes() == (base_dir / "config.json").read_bytes()


def test_dequantized_base_is_the_one_that_qlora_trains_on(tmp_path: Path) -> None:
    from transformers import BitsAndBytesConfig

    base_dir = base(tmp_path / "base", hidden_size=64, intermediate_size=128, head_dim=32)
    adapter_dir = adapter(base_dir, tmp_path / "adapter")
    target = merged(base_dir, adapter_dir, tmp_path / "merged", dequantized=True)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    quantised = AutoModelForCausalLM.from_pretrained(base_dir, quantization_config=nf4, dtype=torch.float32)
    model = PeftModel.from_pretrained(quantised, str(adapter_dir)).eval()
    with torch.inference_mode():
        on_nf4 = model(input_ids=torch.arange(1, 25)[None]).logits
    plain = merged(base_dir, adapter_dir, tmp_path / "plain")
    error, other = (logits(target) - on_nf4).abs().max(), (logits(plain) - on_nf4).abs().max()
    assert error < 0.02 * on_nf4.abs().max()
    assert error < 0.2 * other


def broken(base_dir: Path, adapter_dir: Path, fault: str) -> None:
    """Damage one of the two."""
    weights = adapter_dir / "adapter_model.safetensors"
    shard = sorted(base_dir.glob("*.safetensors"))[1]
    if fault == "missing shard":
        shard.unlink()
    elif fault == "cut shard":
        shard.write_bytes(shard.read_bytes()[:-8])
    elif fault == "pickled base":
        for path in base_dir.glob("*.safetensors*"):
            path.unlink()
        (base_dir / "pytorch_model.bin").write_bytes(b"")
    elif fault == "pickled adapter":
        weights.rename(adapter_dir / "adapter_model.bin")
    elif fault == "not safetensors":
        weights.write_bytes(b"\x80\x04" + bytes(64))
    elif fault == "one factor":
        save_file({n: t for n, t in load_file(weights).items() if "lora_B" not in n}, weights)
    elif fault == "matches nothing":
        save_file({n.replace("q_proj", "qq_proj"): t for n, t in load_file(weights).items()}, weights)
    elif fault == "another width":
        save_file(
            {n: torch.cat([t, t], -1) if "lora_A" in n else t for n, t in load_file(weights).items()}, weights
        )
    elif fault == "larger tokenizer":
        text = {"model": {"vocab": {"a": 0, "b": 200}}, "added_tokens": []}
        (adapter_dir / "tokenizer.json").write_text(json.dumps(text))
    elif fault == "quantised":
        config = json.loads((base_dir / "config.json").read_text())
        (base_dir / "config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))


FAULTS = {
    "missing shard": "files that model.safetensors.index.json names are missing",
    "cut shard": "is damaged",
    "pickled base": "pytorch_model.bin, a pickle, which is not loaded",
    "pickled adapter": "adapter_model.bin, a pickle, which is not loaded",
    "not safetensors": "is not a safetensors file",
    "one factor": "has one LoRA factor without the other",
    "matches nothing": "match nothing in base",
    "another width": "does not fit the base's weight",
    "larger tokenizer": "has ids up to 200, the merged embeddings 96 rows",
    "quantised": "is quantised",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refused_before_any_work(tmp_path: Path, fault: str) -> None:
    base_dir = base(tmp_path / "base", shard="20KB")
    adapter_dir = adapter(base_dir, tmp_path / "adapter")
    broken(base_dir, adapter_dir, fault)
    with pytest.raises(InputError, match=FAULTS[fault]):
        check_merge(base_dir, adapter_dir, tmp_path / "merged")


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base_dir = base(tmp_path / "base")
    adapter_dir = adapter(base_dir, tmp_path / "adapter")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 20}))
    with pytest.raises(InputError, match=r"the merge needs .* MiB of disk"):
        check_merge(base_dir, adapter_dir, tmp_path / "merged")
