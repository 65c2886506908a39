"""Norms and gated MLPs with their gradient in few passes, and less kept for it than autograd would keep."""

from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu


class _RmsNorm(torch.autograd.Function):
    """``weight * x / sqrt(mean(x^2) + eps)`` over the last dimension, for a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        size = x.shape[-1]
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(size).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        above = grads[0] * weight
        along = torch.linalg.vecdot(above, x)[..., None].mul_(scale.square()).div_(x.shape[-1])
        return above.addcmul_(x, along, value=-1).mul_(scale), None, None


class _SwiGlu(torch.autograd.Function):
    """``silu(gate) * up``; of the two factors only ``gate`` and ``up`` are kept."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        (above,) = grads
        for_up = silu(gate).mul_(above)
        towards = above * up
        for_gate: Tensor = torch.ops.aten.silu_backward.grad_input(towards, gate, grad_input=towards)
        return for_gate, for_up


def fuse_layers(model: Any) -> int:
    """Let the RMS norms and gated MLPs of ``model`` run fused where that is the same. How many do."""
    fused = 0
    for module in model.modules():
        if forward := _fused_forward(module):
            module.forward = MethodType(forward, module)
            fused += 1
    return fused


def _fused_forward(module: Any) -> Any:
    """Llama's norm (frozen, float32, off the GPU) and MLP, and those that other models took over from it; Gemma's
    norm (1 + weight) has another field, its MLP another activation."""
    name = type(module).__name__
    if name.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        weight = module.weight
        plain = weight.dtype == torch.float32 and weight.device.type == "cpu" and not weight.requires_grad
        return _norm if plain else None
    parts = ("gate_proj", "up_proj", "down_proj", "act_fn")
    if name.endswith("MLP") and all(hasattr(module, part) for part in parts):
        return _mlp if "silu" in type(module.act_fn).__name__.lower() else None
    return None


def _norm(self: Any, hidden_states: Tensor) -> Tensor:
    output: Tensor = _RmsNorm.apply(hidden_states, self.weight, self.variance_epsilon)
    return output


def _mlp(self: Any, x: Tensor) -> Tensor:
    output: Tensor = self.down_proj(_SwiGlu.apply(self.gate_proj(x), self.up_proj(x)))
    return output
