"""A tokenizer.json as llama.cpp reads it from a GGUF: byte-level BPE whose splitting llama.cpp knows by name."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.artifacts.errors import InputError
from trimtab.export.checkpoint.model_files import check_vocabulary, read_json

if TYPE_CHECKING:
    from gguf import GGUFWriter

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BYTES = ["ByteLevel", False]
_GPT2_BYTES = ["ByteLevel", True]
# What tokenizer.json does before merging, by llama.cpp's name for it (``tokenizer.ggml.pre``; llama-vocab.cpp).
_PRE_TOKENIZERS: dict[str, list[list[Any]]] = {
    "gpt-2": [_GPT2_BYTES],
    "smollm": [["Digits", True], _GPT2_BYTES],
    "llama-bpe": [["Split", rf"{_ENDINGS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"], _BYTES],
    "qwen2": [["Split", rf"{_ENDINGS}|{_WORDS}|\p{{N}}|{_REST}"], _BYTES],
}


def read_tokenizer(directory: Path, rows: int) -> tuple[dict[str, Any], str]:
    """Content of ``tokenizer.json`` and llama.cpp's name for its pre-tokenizer.

    InputError where llama.cpp has none for it, or where the model's embeddings have fewer ``rows`` than it needs.
    """
    tokenizer = read_json(directory / "tokenizer.json")
    if not tokenizer:
        raise InputError(f"GGUF: {directory} has no tokenizer.json; give the directory of a merged checkpoint")
    check_vocabulary(directory, rows)
    return tokenizer, pre_tokenizer_name(tokenizer)


def add_tokenizer(writer: "GGUFWriter", source: Path, rows: int) -> None:
    """Write vocabulary, merges, special tokens and chat template of ``source`` as the metadata of a GGUF.

    Ids up to ``rows``, the model's embeddings, that have no token are marked as unused.
    """
    from gguf import SpecialVocab
    from transformers import AutoTokenizer

    tokenizer, pre = read_tokenizer(source, rows)
    texts, kinds = zip(*_tokens(tokenizer, rows), strict=True)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    special = SpecialVocab(source, load_merges=True, n_vocab=rows)
    loaded = AutoTokenizer.from_pretrained(source)
    encoded = loaded("a")["input_ids"]
    # Seen, not parsed: llama.cpp adds these by itself for some pre-tokenizers unless told.
    special.add_special_token = {
        "bos": encoded[0] == loaded.bos_token_id,
        "eos": encoded[-1] == loaded.eos_token_id,
    }
    special.chat_template = loaded.chat_template
    special.add_to_gguf(writer, quiet=True)
    writer.add_add_space_prefix(False)


def pre_tokenizer_name(tokenizer_json: dict[str, Any]) -> str:
    """llama.cpp's name for what ``tokenizer.json`` does to text before merging. InputError if it has none."""
    model, outer = tokenizer_json["model"], tokenizer_json["pre_tokenizer"] or {}
    steps = [_step(step) for step in outer.get("pretokenizers", [outer])]
    found = next((name for name, known in _PRE_TOKENIZERS.items() if known == steps), None)
    normalizer = (tokenizer_json["normalizer"] or {}).get("type")
    # llama.cpp composes no characters (NFC), which only text that comes decomposed shows. Only for llama-bpe does
    # it take a whole word that is a token without merging it.
    whole_words = bool(model.get("ignore_merges"))
    if (
        model["type"] != "BPE"
        or normalizer not in (None, "NFC")
        or found is None
        or whole_words != (found == "llama-bpe")
    ):
        raise InputError(
            f"GGUF: this tokenizer ({model['type']}, normalizer {normalizer}, pre-tokenizer "
            f"{[step[0] for step in steps]}) is none of those that are known to be read alike by llama.cpp: "
            f"byte-level BPE as in {', '.join(_PRE_TOKENIZERS)}; use llama.cpp's own convert_hf_to_gguf.py"
        )
    return found


def _step(step: dict[str, Any]) -> list[Any]:
    """A pre-tokenizer's type and what it depends on; a form of it that no known one has gives no match."""
    kind = step.get("type")
    if kind == "ByteLevel" and not step["add_prefix_space"]:
        return [kind, step.get("use_regex", True)]
    if kind == "Digits":
        return [kind, step["individual_digits"]]
    if kind == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        return [kind, step["pattern"].get("Regex")]
    return [kind, None]


def _tokens(tokenizer: dict[str, Any], rows: int) -> Iterator[tuple[str, int]]:
    """Text and type of each token id."""
    from gguf import TokenType

    texts = {index: text for text, index in tokenizer["model"]["vocab"].items()}
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    for index in range(rows):
        if index in added:
            kind = TokenType.CONTROL if added[index]["special"] else TokenType.USER_DEFINED
            yield added[index]["content"], kind
        else:
            yield texts.get(index, f"[PAD{index}]"), TokenType.NORMAL if index in texts else TokenType.UNUSED
