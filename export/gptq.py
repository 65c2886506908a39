"""GPTQ to 4 bits with GPTQModel, in auto-gptq's checkpoint format, and that format read back.

Reading back is written from the format's definition, not with GPTQModel, so that what is measured is what
any other reader of the file gets.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from trimtab.artifacts.errors import InputError
from trimtab.export.measure import compute_device
from trimtab.recipes.schema import GptqSection

# GPTQModel's worker pools need two at least, also on a machine of two cores.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, (os.cpu_count() or 2) // 2)))

_NIBBLES = torch.arange(0, 32, 4, dtype=torch.int32)


def check_shapes(source: Path, section: GptqSection) -> None:
    """InputError when a linear layer's width does not divide into groups, before any weight is touched."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source)
    for key in ("hidden_size", "intermediate_size"):
        width = getattr(config, key, None)
        if width and width % section.group_size:
            fitting = [g for g in (128, 64, 32) if width % g == 0]
            raise InputError(
                f"export.gptq.group_size={section.group_size} does not divide {key}={width} of this model; "
                f"allowed here: {', '.join(map(str, fitting)) or 'none, use export.quantize=none'}"
            )


def quantize(source: Path, target: Path, token_ids: list[list[int]], section: GptqSection) -> None:
    """Quantise the checkpoint in ``source`` into ``target``, calibrated on ``token_ids`` (one list a sample).

    Symmetric and without act-order (``desc_act``), as vLLM's kernels need. Layers are computed in float32 on
    the CPU, where it is faster than bfloat16; what is not quantised is saved in bfloat16.
    """
    on_gpu = torch.cuda.is_available()
    samples = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in token_ids]
    source, target = source.resolve(), target.resolve()
    with _gptqmodel_quiet():
        from gptqmodel import GPTQModel, QuantizeConfig

        config = QuantizeConfig(
            bits=section.bits,
            group_size=section.group_size,
            desc_act=False,
            sym=True,
            damp_percent=section.damp_percent,
            mse=section.mse,
            offload_to_disk=False,
        )
        model = GPTQModel.load(
            str(source),
            config,
            device="cuda" if on_gpu else "cpu",
            dtype=torch.bfloat16 if on_gpu else torch.float32,
        )
        layers = model.model.config.get_text_config().num_hidden_layers
        with tqdm(total=layers, desc="quantise", unit="layer", dynamic_ncols=True) as bar:
            model.layer_callback = lambda layer_idx, submodule_finalized: bar.update(layer_idx + 1 - bar.n)
            model.quantize(samples, batch_size=16)
        _narrow(model.model)
        model.save(str(target))
    (target / "quant_log.csv").unlink(missing_ok=True)  # holds timings: the same input must give the same files


def load_dequantized(directory: Path) -> Any:
    """The model of a GPTQ checkpoint with its weights unpacked to float32, for measuring."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(directory)
    quantization = config.quantization_config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state: dict[str, Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            state |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    for name in [n.removesuffix(".qweight") for n in state if n.endswith(".qweight")]:
        parts = (state.pop(f"{name}.{part}") for part in ("qweight", "qzeros", "scales", "g_idx"))
        state[f"{name}.weight"] = unpack(*parts, group_size=quantization["group_size"]).T.contiguous()
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    if unexpected or set(missing) - tied:
        raise RuntimeError(f"{directory}: tensors do not fit the model: {[*missing, *unexpected][:4]}")
    model.tie_weights()
    return model.to(compute_device()).eval()


def unpack(qweight: Tensor, qzeros: Tensor, scales: Tensor, g_idx: Tensor, *, group_size: int) -> Tensor:
    """Weight [in, out] in float32 from auto-gptq's packed 4-bit tensors (``checkpoint_format: gptq``).

    ``qweight`` int32 [in / 8, out] holds eight rows a word, lowest bits first; ``qzeros`` int32
    [groups, out / 8] holds eight columns a word, each zero point less one; ``scales`` [groups, out].
    """
    if not torch.equal(g_idx.long(), torch.arange(len(g_idx)) // group_size):
        raise RuntimeError("g_idx is not in order: vLLM ignores it, so this checkpoint would be served wrong")
    rows = (qweight[:, None, :] >> _NIBBLES[None, :, None]) & 15
    zeros = ((qzeros[:, :, None] >> _NIBBLES) & 15) + 1
    codes = rows.reshape(-1, qweight.shape[1]).float()
    zero = zeros.reshape(qzeros.shape[0], -1).float().repeat_interleave(group_size, 0)
    return (codes - zero) * scales.float().repeat_interleave(group_size, 0)


@contextlib.contextmanager
def _gptqmodel_quiet() -> Iterator[None]:
    """GPTQModel prints tables, and writes a logs/ folder into the working directory."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        contextlib.chdir(scratch),
        Path("output").open("w") as output,
        contextlib.redirect_stdout(output),
    ):
        yield


def _narrow(model: Any) -> None:
    """Norms and embeddings to bfloat16; packed integers and scales stay as they are."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype == torch.float32:
            tensor.data = tensor.data.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
