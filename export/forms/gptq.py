"""GPTQ to 4 or 8 bits with GPTQModel, in auto-gptq's checkpoint format."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.settle import settle
from trimtab.export.checkpoint.tensor_files import Checkpoint
from trimtab.recipes.export import GptqSection

# GPTQModel's worker pools need two at least, also on a machine of two cores.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, (os.cpu_count() or 2) // 2)))

_GROUP_SIZES = (128, 64, 32)
_PACKED = 32  # rows and columns that GPTQModel packs at once
_LAYER = re.compile(r"\.\d+\..*\.weight$")
_ROUTER = re.compile(r"\.(gate|router|shared_expert_gate)\.weight$")  # of experts: GPTQModel leaves them
_BATCH_TOKENS = 4096


def check_shapes(source: Path, section: GptqSection) -> None:
    """InputError when a linear layer does not divide into groups and packed words, by the files' headers."""
    shapes = {
        name: place.shape
        for name, place in Checkpoint(source).tensors.items()
        if len(place.shape) == 2 and _LAYER.search(name) and not _ROUTER.search(name)
    }
    for name, (rows, width) in shapes.items():
        if width % section.group_size == 0 and rows % _PACKED == 0:
            continue
        fitting = [g for g in _GROUP_SIZES if all(k % g == 0 and n % _PACKED == 0 for n, k in shapes.values())]
        allowed = ", ".join(map(str, fitting)) or "none; use export.quantize=nf4 or none"
        if rows % _PACKED:
            raise InputError(
                f"{source}: {name} has {rows} outputs, which GPTQ cannot pack: it needs a multiple of {_PACKED}; "
                "use export.quantize=nf4 or none"
            )
        raise InputError(
            f"export.quantize.gptq.group_size={section.group_size} does not divide the width {width} of {name}; "
            f"allowed here: {allowed}"
        )


def quantize(source: Path, target: Path, token_ids: list[list[int]], section: GptqSection) -> dict[str, float]:
    """Quantise the checkpoint in ``source`` into ``target``, calibrated on ``token_ids`` (one list a sample).

    Symmetric and without act-order (``desc_act``), as vLLM's kernels need. Layers are computed in float32 on the
    CPU, where it is faster than bfloat16; what is not quantised is saved in bfloat16. Gives each linear layer's
    relative output error over the calibration tokens, by name (see ``fast_gptqmodel``).
    """
    import torch
    from tqdm import tqdm

    from trimtab.export.forms.gptq_fast import fast_gptqmodel

    settle()
    on_gpu = torch.cuda.is_available()
    samples = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in token_ids]
    source, target = source.resolve(), target.resolve()
    with gptqmodel_quiet(), fast_gptqmodel(section.scale_candidates) as errors:
        from gptqmodel import GPTQModel, QuantizeConfig

        config = QuantizeConfig(
            bits=section.bits,
            group_size=section.group_size,
            desc_act=False,
            sym=True,
            damp_percent=section.damp_percent,
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
            model.quantize(samples, batch_size=max(1, _BATCH_TOKENS // max(map(len, token_ids))))
        _narrow(model.model)
        model.save(str(target))
    (target / "quant_log.csv").unlink(missing_ok=True)  # holds timings: the same input must give the same files
    return dict(sorted(errors.items()))


@contextlib.contextmanager
def gptqmodel_quiet() -> Iterator[None]:
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
    import torch

    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype == torch.float32:
            tensor.data = tensor.data.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
