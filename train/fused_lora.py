"""A linear layer with LoRA as one matrix product, exact: what PEFT's own layer gives, for less work.

The adapter is added to a copy of the frozen weight, once a step; forwards and backwards then cost
what the frozen layer costs, save the thin products for the adapter's gradients. PEFT's layer scales and adds whole
outputs instead. This takes its place only where it is the same: one active adapter without dropout or DoRA, on a
frozen layer of the adapter's own type. The copies take as much memory as the layers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor

from trimtab.train.products import linear


class _LoraLinear(torch.autograd.Function):
    """``x @ merged.T`` with ``merged = W + scale * B @ A``; gradients for x, A and B.

    x: [tokens, in], merged: [out, in], A: [r, in], B: [out, r].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, merged: Tensor, bias: Any, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, b, linear(x, a))
        ctx.merged, ctx.scale = merged, scale  # no input or output, so that it may be kept by itself
        return linear(x, merged, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, b, down = ctx.saved_tensors
        (above,) = grads
        for_b = linear(down.T, above.T).T.mul_(ctx.scale)
        for_a = linear(linear(above, b.T).mul_(ctx.scale).T, x.T)
        for_x = linear(above, ctx.merged.T) if ctx.needs_input_grad[0] else None
        return for_x, None, None, for_a, for_b, None


class FusedLora:
    """The layers of a model that run fused. Weights are merged in every forward pass, save inside ``kept``."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers
        self._keeping = False
        self._merged: dict[tuple[Any, str], Tensor] = {}
        self._fresh: set[tuple[Any, str]] = set()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """For a block in which no adapter changes: each weight is merged once.

        Tensors' version counters would not do: the fused AdamW writes to parameters without raising them.
        """
        self._fresh.clear()
        self._keeping = True
        try:
            yield
        finally:
            self._keeping = False

    def merged(self, layer: Any, name: str) -> Tensor:
        """The layer's weight with adapter ``name`` added."""
        place = layer, name
        if self._keeping and place in self._fresh:
            return self._merged[place]
        weight = layer.get_base_layer().weight
        a, b, scale = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
        if place not in self._merged:
            self._merged[place] = torch.empty_like(weight)
        with torch.no_grad():
            torch.addmm(weight, b, a, alpha=scale, out=self._merged[place])
        self._fresh.add(place)
        return self._merged[place]


def fuse_lora(model: Any) -> FusedLora:
    """Let the LoRA layers of ``model`` run fused where that is the same."""
    fused = FusedLora([module for module in model.modules() if type(module) is Linear and _same(module)])
    for layer in fused.layers:
        layer.forward = partial(_forward, layer, fused)
    return fused


def _same(layer: Any) -> bool:
    base = layer.get_base_layer()
    return (
        type(base) is torch.nn.Linear
        and not base.weight.requires_grad
        and not any(layer.use_dora.values())
        and not any(layer.lora_bias.values())
        and all(isinstance(dropout, torch.nn.Identity) for dropout in layer.lora_dropout.values())
        and all(a.weight.dtype == base.weight.dtype for a in layer.lora_A.values())
    )


def _forward(layer: Any, fused: FusedLora, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    base = layer.get_base_layer()
    if layer.disable_adapters:
        output: Tensor = base(x)
        return output
    (name,) = layer.active_adapters
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    merged = fused.merged(layer, name)
    flat: Tensor = _LoraLinear.apply(x.flatten(0, -2), merged, base.bias, a, b, layer.scaling[name])
    return flat.unflatten(0, x.shape[:-1])
