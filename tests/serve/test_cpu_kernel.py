"""4-bit weights without vLLM's kernel: unpacked as the reference computes them, chosen by vLLM's own registry."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trimtab.artifacts.errors import InputError
from trimtab.recipes.serve import ServeSection
from trimtab.serve.command import Engine, Hardware, engine_environment, gptq_kernel
from trimtab.serve.cpu_kernel import COMPILED, DISABLED, packed_size, unpacked
from trimtab.serve.plan import require_room

AVX512, AVX2 = Hardware(0, 2), Hardware(0, 2, compiled_gptq=False)
# In a process of its own, as vLLM's are: the registry is made once. The layer is packed as checkpoints are.
IN_VLLM = """
import json, torch
from trimtab.serve.cpu_kernel import register
register(); register()
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.kernels.linear import MPLinearLayerConfig, choose_mp_linear_kernel
from vllm.scalar_type import scalar_types

def config(kind, zeros=False):
    return MPLinearLayerConfig((64, 96), (64, 96), kind, torch.bfloat16, 32, zeros)

with set_current_vllm_config(VllmConfig()):
    kernel = choose_mp_linear_kernel(config(scalar_types.uint4b8))
    refused = [kernel.can_implement(config(scalar_types.uint8b128))[1]]
    refused.append(kernel.can_implement(config(scalar_types.uint4b8, True))[1])
    torch.manual_seed(0)
    codes, scales = torch.randint(0, 16, (64, 96)), torch.rand(2, 96).bfloat16()
    layer = torch.nn.Module()
    shifted = codes.view(8, 8, 96) << (4 * torch.arange(8)[None, :, None])
    packed = shifted.sum(1).to(torch.int64)
    packed = torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)
    values = {"qweight": packed, "scales": scales, "qzeros": torch.zeros(2, 12, dtype=torch.int32)}
    for name, value in values.items():
        setattr(layer, name, torch.nn.Parameter(value, requires_grad=False))
    layer.qweight.input_dim = layer.qweight.packed_dim = 0
    layer.scales.output_dim = 1
    made = kernel(config(scalar_types.uint4b8), "qweight", "scales", "qzeros")
    made.process_weights_after_loading(layer)
    x, bias = torch.randn(5, 64).bfloat16(), torch.randn(96).bfloat16()
    got = made.apply_weights(layer, x, bias)
    weight = (codes.double() - 8) * scales.double().repeat_interleave(32, 0)
    want = x.double() @ weight + bias.double()
print(json.dumps([kernel.__name__, str(got.dtype), float((got - want).abs().max() / want.abs().max()), refused]))
"""


def test_codes_are_unpacked_as_the_reference_has_them() -> None:
    torch.manual_seed(1)
    codes, scales = torch.randint(0, 16, (64, 24)), torch.randn(4, 24).bfloat16()
    packed = torch.zeros(8, 24, dtype=torch.int64)
    for place in range(8):
        packed |= codes[place::8] << 4 * place
    packed = torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)
    want = (codes.double() - 8) * scales.double().repeat_interleave(16, 0)
    got = unpacked(packed, scales)
    assert got.dtype == torch.float32
    assert got.is_contiguous()
    torch.testing.assert_close(got.double(), want.T, rtol=1e-7, atol=0)


def test_vllm_takes_it_where_its_own_is_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DISABLED, COMPILED)
    done = subprocess.run([sys.executable, "-c", IN_VLLM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    name, dtype, error, refused = json.loads(done.stdout.strip().splitlines()[-1])
    assert (name, dtype) == ("UnpackedLinearKernel", "torch.bfloat16")
    assert error < 2**-8  # one rounding to bfloat16
    assert all("it unpacks symmetric ones of 4 bits" in each for each in refused)


def test_the_kernel_is_what_the_library_has_unless_the_recipe_says_otherwise() -> None:
    auto, forced = ServeSection(), ServeSection(gptq_kernel="unpacked")
    assert [gptq_kernel(auto, each) for each in (AVX512, AVX2, Hardware(1, 2))] == ["compiled", "unpacked", "cuda"]
    assert gptq_kernel(forced, AVX512) == "unpacked"
    with pytest.raises(InputError, match=r"serve\.gptq_kernel=compiled: .* give unpacked, or leave it out"):
        gptq_kernel(ServeSection(gptq_kernel="compiled"), AVX2)
    assert DISABLED not in engine_environment(0, auto, AVX512, 1)
    assert engine_environment(0, auto, AVX2, 1)[DISABLED] == COMPILED
    assert engine_environment(0, forced, AVX512, 1)[DISABLED] == COMPILED
    assert DISABLED not in engine_environment(0, auto, Hardware(1, 2, compiled_gptq=False), 1)


def test_memory_of_unpacked_weights_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(
        {"a.qweight": torch.zeros(8, 96, dtype=torch.int32), "a.scales": torch.zeros(2, 96)},
        tmp_path / "m.safetensors",
    )
    assert packed_size(tmp_path) == 8 * 96 * 4
    asked: list[int] = []
    monkeypatch.setattr("trimtab.serve.plan.require_memory", lambda need, *_: asked.append(need))
    engine = Engine("a", tmp_path, "gptq", tmp_path / "s", {})
    for hardware in (AVX512, AVX2):
        require_room(ServeSection(), [engine], hardware)
    assert asked[1] - asked[0] == 8 * packed_size(tmp_path)
