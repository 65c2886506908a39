"""Fused norms and MLPs: transformers' own output and gradient; others are left alone."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.train.fused_layers import fuse_layers

TINY = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def outputs(model: Any) -> list[torch.Tensor]:
    embedded = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    logits = model(inputs_embeds=embedded).logits
    return [logits, *torch.autograd.grad(logits.square().sum(), embedded)]


@pytest.mark.parametrize(
    ("model_type", "fused"), [("llama", 7), ("qwen2", 7), ("qwen3", 11), ("mistral", 7), ("phi3", 5), ("gemma", 0)]
)
def test_the_same_output_and_gradient(model_type: str, fused: int) -> None:
    """Norms before attention and MLP and at the end, on heads for Qwen3; an MLP a layer, but for Phi3's own."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **TINY)).eval()
    for name, weight in model.named_parameters():
        weight.requires_grad_(False)
        if "norm" in name:
            torch.nn.init.normal_(weight, 1.0, 0.3)
    before = outputs(model)
    assert fuse_layers(model) == fused
    for ours, theirs in zip(outputs(model), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_trained_norms_are_left_alone() -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **TINY))
    assert fuse_layers(model) == 2  # the MLPs
