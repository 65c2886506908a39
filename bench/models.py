"""Models that are made to be measured."""

import json
from pathlib import Path

from trimtab.artifacts.base_model import EMBEDDED, resolve_model

SHAPES = {  # hidden size, MLP size, layers, heads, heads of keys, vocabulary: Llama 3.2 1B and 3.1 8B
    "tiny": (64, 128, 2, 4, 2, 49_152),
    "1b": (2048, 8192, 16, 32, 8, 128_256),
    "8b": (4096, 14_336, 32, 32, 8, 128_256),
}


def random_model(shape: str, place: Path) -> Path:
    """A Llama of that shape with random weights in bfloat16, and the embedded model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from trimtab.export.checkpoint.model_files import copy_tokenizer

    hidden, mlp, layers, heads, key_heads, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=shape != "8b",
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    LlamaForCausalLM._from_config(config).save_pretrained(place)
    copy_tokenizer(resolve_model(EMBEDDED).path, place)
    return place


def first_layers(source: Path, target: Path, layers: int) -> Path:
    """The model cut to its first layers by its configuration, in ``target``; weights of the others lie unused."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.name not in ("config.json", "manifest.json"):
            (target / file.name).symlink_to(file)
    config = json.loads((source / "config.json").read_bytes()) | {"num_hidden_layers": layers}
    config.pop("layer_types", None)
    (target / "config.json").write_text(json.dumps(config))
    return target
