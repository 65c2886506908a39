"""Fused LoRA layers give PEFT's output and gradients, and leave alone what they cannot do."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from trimtab.train.fused_lora import fuse_lora


class Two(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(12, 8), torch.nn.Linear(8, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def model(**more: Any) -> Any:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["first", "second"], init_lora_weights=False, **more)
    return get_peft_model(Two().double(), config)


def adapted(net: Any) -> list[torch.nn.Parameter]:
    return [p for name, p in net.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("fused_optimiser", [False, True])
def test_equals_peft_and_follows_the_optimiser(fused_optimiser: bool) -> None:
    plain, ours = model(), model()
    fused = fuse_lora(ours)
    assert len(fused.layers) == 2
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    optimisers = [torch.optim.AdamW(adapted(net), lr=0.1, fused=fused_optimiser) for net in (plain, ours)]
    for _ in range(3):
        found = []
        for net, optimiser in zip((plain, ours), optimisers, strict=True):
            with fused.kept():
                (net(x).square().sum() + net(x).sum()).backward()
                found.append([net(x), x.grad, *(p.grad.clone() for p in adapted(net))])
            x.grad = None
            optimiser.step()
            optimiser.zero_grad()
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    with plain.disable_adapter(), ours.disable_adapter():
        assert torch.equal(plain(x), ours(x))
    ours.load_state_dict(model().state_dict())
    torch.testing.assert_close(ours(x), model()(x))


def test_a_second_adapter_is_not_taken_for_the_first() -> None:
    net = model()
    fused = fuse_lora(net)
    torch.manual_seed(7)
    net.add_adapter("other", net.peft_config["default"])
    x = torch.randn(5, 12, dtype=torch.float64)
    with fused.kept():
        found = []
        for name in ("default", "other", "default"):
            net.set_adapter(name)
            found.append(net(x))
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("more", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}])
def test_what_it_cannot_do_is_left_to_peft(more: dict[str, Any]) -> None:
    assert fuse_lora(model(**more)).layers == []


def test_another_type_is_left_to_peft() -> None:
    net = model()
    net.base_model.model.first.base_layer.half()
    assert len(fuse_lora(net).layers) == 1
