"""RMS norms with their gradient in few passes: the model's own are a chain of small operations backwards."""

from types import MethodType
from typing import Any

import torch
from torch import Tensor


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


def fuse_norms(model: Any) -> int:
    """Let the RMS norms of ``model`` run fused where that is the same: frozen, float32, off the GPU. How many."""
    norms = [module for module in model.modules() if _same(module)]
    for norm in norms:
        norm.forward = MethodType(_forward, norm)
    return len(norms)


def _same(module: Any) -> bool:
    """Llama's norm and those that other models took over from it; Gemma's (1 + weight) has another field."""
    if not type(module).__name__.endswith("RMSNorm") or not hasattr(module, "variance_epsilon"):
        return False
    weight = module.weight
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and not weight.requires_grad


def _forward(self: Any, hidden_states: Tensor) -> Tensor:
    output: Tensor = _RmsNorm.apply(hidden_states, self.weight, self.variance_epsilon)
    return output
