"""Fixtures: a tiny random model for numerics, the real embedded model for everything else."""

from pathlib import Path

import pytest
from experiment import Run, made

from trimtab.cli.quiet import quiet_libraries

quiet_libraries()  # the environment that the command line works in


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """The embedded model is written to the cache once, before several workers look for it."""
    if not hasattr(session.config, "workerinput") and not session.config.option.collectonly:
        from trimtab.artifacts.base_model import EMBEDDED, resolve_model

        resolve_model(EMBEDDED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests first: what takes long must not begin when the other worker has nothing left."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # stable


@pytest.fixture(scope="session")
def embedded() -> Path:
    """Directory of the embedded base model, written to the cache on first use."""
    from trimtab.artifacts.base_model import EMBEDDED, resolve_model

    return resolve_model(EMBEDDED).path


@pytest.fixture(scope="session")
def tokenizer(embedded: Path):
    """The embedded model's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(embedded)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> Path:
    """A random two-layer Llama with the embedded model's tokenizer, bf16 on disk."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from trimtab.export.checkpoint.model_files import copy_tokenizer

    directory = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():  # the usual initialisation gives near-uniform output
        parameter.data.mul_(4)
    model.to(torch.bfloat16).save_pretrained(directory)
    copy_tokenizer(embedded, directory)
    return directory


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny experiment, run whole with the real model; minutes."""
    return made(tmp_path_factory.mktemp("runs"))
