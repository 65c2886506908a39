"""Base models: the embedded one is complete; others are refused with the next step named."""

import json
from pathlib import Path

import pytest

from trimtab.artifacts.base_model import resolve_model
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import read_manifest, verify_files


def test_embedded_model_is_a_complete_bf16_checkpoint(embedded: Path) -> None:
    manifest = read_manifest(embedded, "base")
    assert verify_files(embedded, manifest) == []
    assert json.loads((embedded / "config.json").read_text())["dtype"] == "bfloat16"
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja"} <= manifest.files.keys()


def test_embedded_model_answers(embedded: Path, tokenizer) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(embedded, dtype=torch.float32)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    answer = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer)


def test_a_copy_in_another_directory_has_the_same_digest_but_for_names(embedded: Path, tmp_path: Path) -> None:
    import shutil

    for path in embedded.iterdir():
        if path.name != "manifest.json":
            shutil.copy(path, tmp_path)
    assert resolve_model(str(tmp_path)).digest == read_manifest(embedded).digest


@pytest.mark.parametrize(
    ("name", "message"),
    [("./nowhere", "no such directory"), ("a/b/c", "no such directory"), ("nobody/nothing", "smollm2-135m")],
)
def test_models_that_cannot_be_had(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=message) as error:
        resolve_model(name)
    assert "\n" not in str(error.value)


def test_directories_that_are_no_usable_model(tmp_path: Path, embedded: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        resolve_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_text("")
    with pytest.raises(InputError, match="pickled weights are not loaded"):
        resolve_model(str(tmp_path))
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(InputError, match="no chat template"):
        resolve_model(str(tmp_path))


def test_the_embedded_tokenizer_takes_digits_apart(embedded: Path) -> None:
    """As the file's ``tokenizer.ggml.pre`` says: a run of spaces before a number is one token, as in training."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded)
    assert tokenizer.tokenize("   2024\n 7") == ["ĠĠĠ", "2", "0", "2", "4", "ĊĠ", "7"]
