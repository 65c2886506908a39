"""4-bit GPTQ on processors for which vLLM's wheel has no kernel: unpacked once, multiplied by torch.

vLLM's CPU build brings two libraries; the one for processors without AVX-512 lacks ``cpu_gemm_wna16``, though the
kernel that calls it says that it can be used. Through vLLM's own registry (``register_linear_kernel``) this one
takes its place where ``engine_environment`` disables the other. It costs memory: 4 bytes a weight for a half.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

COMPILED = "CPUWNA16LinearKernel"  # vLLM's class, by which VLLM_DISABLED_KERNELS names it
COMPILED_OP = "cpu_gemm_wna16"
DISABLED = "VLLM_DISABLED_KERNELS"
_PER_INT32 = 8  # codes of 4 bits


def register() -> None:
    """Entry point of ``vllm.general_plugins``: vLLM calls it in each process, before it makes a model."""
    if COMPILED not in os.environ.get(DISABLED, "").split(","):
        return
    from vllm.model_executor.kernels.linear import MPLinearKernel, MPLinearLayerConfig, register_linear_kernel
    from vllm.platforms import PlatformEnum
    from vllm.scalar_type import scalar_types

    class UnpackedLinearKernel(MPLinearKernel):
        """The codes of a layer become float32 weights when it is loaded."""

        @classmethod
        def get_min_capability(cls) -> int:
            return -1

        @classmethod
        def can_implement(cls, c: MPLinearLayerConfig) -> tuple[bool, str | None]:
            if c.weight_type != scalar_types.uint4b8 or c.zero_points:
                return False, f"codes of {c.weight_type}, it unpacks symmetric ones of 4 bits (uint4b8)"
            if c.partition_weight_shape[0] % _PER_INT32:
                return False, f"input size {c.partition_weight_shape[0]} is no multiple of {_PER_INT32}"
            return True, None

        def process_weights_after_loading(self, layer: "torch.nn.Module") -> None:
            packed, scales, _ = self._get_weight_params(layer)
            codes, scale = packed.data, scales.data
            if packed.input_dim == 1:  # compressed-tensors keeps [out, in], GPTQ [in, out]
                codes, scale = codes.t(), scale.t()
            weight = unpacked(codes, scale)
            self._transform_param(layer, self.w_q_name, lambda _: weight)
            for name in (self.w_s_name, self.w_zp_name):
                self._transform_param(layer, name, lambda old: old.data.new_empty(0))

        def apply_weights(
            self, layer: "torch.nn.Module", x: "torch.Tensor", bias: "torch.Tensor | None" = None
        ) -> "torch.Tensor":
            from torch.nn.functional import linear

            weight, _, _ = self._get_weight_params(layer)
            return linear(x.float(), weight, None if bias is None else bias.float()).to(x.dtype)

    register_linear_kernel(UnpackedLinearKernel, PlatformEnum.CPU, "mp")


def unpacked(codes: "torch.Tensor", scales: "torch.Tensor") -> "torch.Tensor":
    """The float32 weight, shape [out, in], of a layer that symmetric GPTQ packed along its inputs.

    ``codes``: int32 [in / 8, out], the first of eight inputs in the lowest 4 bits, 8 meaning none. ``scales``:
    [groups, out], of consecutive inputs.
    """
    import torch

    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    values = (codes[:, None, :] >> shifts[None, :, None] & 15).float().sub_(8)
    grouped = values.view(scales.shape[0], -1, scales.shape[1]).mul_(scales.float()[:, None, :])
    return grouped.view(-1, scales.shape[1]).t().contiguous()


def packed_size(model_dir: Path) -> int:
    """Bytes of the packed codes of a GPTQ checkpoint; unpacked they take eight times as much."""
    found = 0
    for path in sorted(model_dir.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        spans = (one["data_offsets"] for name, one in header.items() if name.endswith(".qweight"))
        found += sum(end - start for start, end in spans)
    return found
