"""Errors of single layers against their definition in float64, for both quantised forms, and their picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trimtab.artifacts.errors import InputError
from trimtab.export.forms.layer_error import LayerError, layer_errors, plot_layer_errors
from trimtab.recipes.export import GptqSection


@pytest.fixture(scope="module")
def gptq(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trimtab.export.forms.gptq import quantize

    target = tmp_path_factory.mktemp("layers") / "gptq"
    generator = torch.Generator().manual_seed(0)
    samples = [torch.randint(5, 49000, (60,), generator=generator).tolist() for _ in range(16)]
    quantize(tiny_model, target, samples, GptqSection(scale_candidates=4))
    return target


@pytest.fixture(scope="module")
def nf4(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trimtab.export.forms.nf4 import quantize_nf4

    target = tmp_path_factory.mktemp("layers") / "nf4"
    quantize_nf4(tiny_model, target)
    return target


@pytest.mark.parametrize("form", ["gptq", "nf4"])
def test_errors_by_definition(form: str, tiny_model: Path, request: pytest.FixtureRequest) -> None:
    from trimtab.export.measuring.load import load_model

    directory = request.getfixturevalue(form)
    errors = layer_errors(tiny_model, directory)
    assert len(errors) == 2 * 7
    assert [e.layer for e in errors] == [0] * 7 + [1] * 7
    reference = load_file(tiny_model / "model.safetensors")
    weights = load_model(directory, form).state_dict()
    for error in errors:
        w, q = (t[f"{error.name}.weight"].double().cpu() for t in (reference, weights))
        assert error.relative == pytest.approx(((w - q) ** 2).sum().item() ** 0.5 / (w**2).sum().item() ** 0.5)
        assert error.name == f"model.layers.{error.layer}.{error.kind}"
        assert 0.01 < error.relative < 0.2


def test_directories_that_do_not_belong_together(tiny_model: Path, gptq: Path, embedded: Path) -> None:
    with pytest.raises(InputError, match=r"has no model\.layers\.0\..* of shape .*; give the model that"):
        layer_errors(embedded, gptq)
    with pytest.raises(InputError, match="has no quantised weights; give a GPTQ or NF4 directory"):
        layer_errors(tiny_model, tiny_model)


def test_the_picture_shows_every_layer_and_has_the_same_bytes_again(tmp_path: Path) -> None:
    from matplotlib.image import imread

    errors = [
        LayerError(f"model.layers.{layer}.{kind}", layer, kind, 0.05 + 0.01 * layer)
        for layer in range(4)
        for kind in ("self_attn.q_proj", "mlp.down_proj")
    ]
    for name in ("first.png", "second.png"):
        plot_layer_errors(errors, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    pixels = imread(tmp_path / "first.png")[..., :3].reshape(-1, 3)
    viridis = np.array([[0.267004, 0.004874, 0.329415], [0.993248, 0.906157, 0.143936]])  # its ends
    for colour in viridis:
        assert (np.abs(pixels - colour).max(1) < 0.01).sum() > 500
