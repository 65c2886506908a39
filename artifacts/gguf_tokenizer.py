"""The tokenizer out of a GGUF file, as the file names it."""

from pathlib import Path
from typing import Any


def tokenizer_of_gguf(file: Path) -> Any:
    """The tokenizer in ``file`` with its chat template.

    Where the file's ``tokenizer.ggml.pre`` is "smollm" digits are taken apart before bytes; transformers reads all
    byte-level BPE as GPT-2's.
    """
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    field = GGUFReader(file).fields.get("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    return tokenizer
