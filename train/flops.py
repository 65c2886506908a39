"""Matrix products that training really does, counted as torch dispatches them."""

from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

EVERY = 8  # steps between two that are counted: counting costs a few hundredths of a step's time


class MatrixFlops(TrainerCallback):
    """Counts the first step and every eighth after it; ``total`` scales by the tokens of all steps.

    Two for each multiplication with its addition. What is recomputed counts again, for it is done again. Steps
    that cannot be counted (a compiled region refuses to be watched) leave ``total`` None.
    """

    def __init__(self) -> None:
        self._mode: FlopCounterMode | None = None
        self._before = 0
        self._flops = self._tokens = self._steps = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to count, if this is a step that is."""
        if self._mode is None and state.global_step % EVERY == 0:
            self._mode, self._before = counter(), state.num_input_tokens_seen
            self._mode.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note what was counted."""
        if self._mode is None:
            return
        self._mode.__exit__(None, None, None)
        self._flops += self._mode.get_total_flops()
        self._tokens += state.num_input_tokens_seen - self._before
        self._steps += 1
        self._mode = None

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop counting where training stopped in the middle of a step."""
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
            self._mode = None

    def total(self, state: Any) -> float | None:
        """FLOPs of all steps of one process; None where none was counted."""
        if not self._steps or not self._flops:
            return None
        if self._tokens and state.num_input_tokens_seen:
            return self._flops * state.num_input_tokens_seen / self._tokens
        return self._flops * state.global_step / self._steps


def counter() -> FlopCounterMode:
    """torch's counter, which also knows the products that the CPU engine calls by name."""
    return FlopCounterMode(display=False, custom_mapping=_more())


def _more() -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    aten, onednn = torch.ops.aten, torch.ops.mkldnn
    if hasattr(onednn, "_linear_pointwise"):
        found[onednn._linear_pointwise] = _linear
    for name, rule in (
        ("_scaled_dot_product_flash_attention_for_cpu", _attention),
        ("_scaled_dot_product_flash_attention_for_cpu_backward", _attention_backward),
    ):
        if hasattr(aten, name):
            found[getattr(aten, name)] = rule
    return found


def _linear(x: Any, weight: Any, *more: Any, out_shape: Any = None, **named: Any) -> int:
    """[..., in] by [out, in]."""
    return 2 * prod(x) * weight[0]


def _attention(query: Any, key: Any, value: Any, *more: Any, out_shape: Any = None, **named: Any) -> int:
    """Scores and their sum: two products of [queries, keys, width] a head. Masked ones count: they are
    computed."""
    rows, heads, queries, width = query
    return int(2 * rows * heads * queries * key[2] * (width + value[3]))


def _attention_backward(above: Any, query: Any, key: Any, value: Any, *more: Any, **named: Any) -> int:
    """Scores again, and gradients of scores, queries, keys and values: five products for two."""
    rows, heads, queries, width = query
    return int(2 * rows * heads * queries * key[2] * (3 * width + 2 * value[3]))
