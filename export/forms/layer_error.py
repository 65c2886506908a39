"""How far each linear layer's weight is from the one it was quantised from, as figures and as one picture."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.artifacts.errors import InputError
from trimtab.export.checkpoint.tensor_files import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

_PLACE = re.compile(r"\.(\d+)\.(.+)$")  # the layer's number, and what follows


@dataclass(frozen=True)
class LayerError:
    """``relative``: ||W - Q||_F / ||W||_F of the layer ``name``, which is the ``kind`` (self_attn.q_proj, ...) of
    decoder layer ``layer``."""

    name: str
    layer: int
    kind: str
    relative: float


def layer_errors(reference_dir: Path, quantised_dir: Path) -> list[LayerError]:
    """Errors of all quantised weights of a GPTQ or NF4 directory, by layer, against the model it was made from.

    Read a tensor at a time, summed in float64. InputError when the directories do not belong together.
    """
    reference = Checkpoint(reference_dir).tensors
    errors = []
    for name, weight in _reader(quantised_dir)(quantised_dir):
        if name not in reference or reference[name].shape != tuple(weight.shape):
            raise InputError(
                f"{reference_dir} has no {name} of shape {tuple(weight.shape)}; "
                f"give the model that {quantised_dir} was made from"
            )
        original = reference[name].read().double()
        relative = float((original - weight.double()).norm() / original.norm().clamp(min=1e-300))
        module = name.removesuffix(".weight")
        if (place := _PLACE.search(module)) is None:
            raise InputError(f"{quantised_dir}: {name} is in no numbered layer, so it has no place in a picture")
        errors.append(LayerError(module, int(place[1]), place[2], relative))
    if not errors:
        raise InputError(f"{quantised_dir} has no quantised weights; give a GPTQ or NF4 directory")
    return sorted(errors, key=lambda error: (error.layer, error.name))


def plot_layer_errors(errors: list[LayerError], path: Path) -> None:
    """A PNG of relative errors, layers across, kinds of module down, the worst framed. Same input, same bytes."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    kinds, layers = list(dict.fromkeys(error.kind for error in errors)), sorted({error.layer for error in errors})
    grid = np.full((len(kinds), len(layers)), np.nan)
    for error in errors:
        grid[kinds.index(error.kind), layers.index(error.layer)] = 100 * error.relative
    width = 3.0 + 0.36 * max(len(layers), 8)
    figure = Figure(figsize=(width, 1.5 + 0.36 * len(kinds)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(grid, cmap="viridis", aspect="auto")
    worst = max(errors, key=lambda error: error.relative)
    corner = (layers.index(worst.layer) - 0.5, kinds.index(worst.kind) - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="red", linewidth=2))
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for row, column in np.ndindex(grid.shape):
        if not np.isnan(value := grid[row, column]):
            colour = "black" if value > middle else "white"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=6, color=colour)
    axes.set_xticks(range(len(layers)), [str(layer) for layer in layers], fontsize=7)
    axes.set_yticks(range(len(kinds)), kinds, fontsize=8)
    axes.set_xlabel("decoder layer", fontsize=8)
    mean = sum(error.relative for error in errors) / len(errors)
    axes.set_title(
        f"Relative weight error after quantising, % (mean {100 * mean:.1f}, "
        f"worst {100 * worst.relative:.1f}: layer {worst.layer} {worst.kind})",
        fontsize=9,
    )
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01).ax.tick_params(labelsize=7)
    figure.savefig(path, metadata={"Software": None})


def _reader(directory: Path) -> "Callable[[Path], Iterator[tuple[str, Tensor]]]":
    names = Checkpoint(directory).tensors
    if any(name.endswith(".qweight") for name in names):
        from trimtab.export.forms.gptq_format import dequantized_tensors

        return dequantized_tensors
    from trimtab.export.forms.nf4 import dequantized_tensors as of_nf4

    return of_nf4
