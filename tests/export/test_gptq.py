"""Settings refused before any work; checkpoints through GPTQModel, read back by the format and by its kernel."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import file_sums
from trimtab.export.forms.gptq import check_shapes, quantize
from trimtab.export.forms.gptq_format import dequantized_tensors, load_dequantized
from trimtab.recipes.export import GptqSection

SAMPLES = 24


def samples(rows: int = SAMPLES) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(5, 49000, (int(20 + 3 * row),), generator=generator).tolist() for row in range(rows)]


def test_group_size_must_divide_all_layers(embedded: Path, tmp_path: Path) -> None:
    check_shapes(embedded, GptqSection(group_size=64))
    with pytest.raises(InputError, match=r"group_size=128 does not divide the width 576 of .*layers\.0") as error:
        check_shapes(embedded, GptqSection(group_size=128))
    assert str(error.value).endswith("allowed here: 64, 32")

    def write(**shapes: tuple[int, int]) -> Path:
        named = {f"model.layers.0.{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
        save_file(named | {"model.embed_tokens.weight": torch.zeros(7, 9)}, tmp_path / "model.safetensors")
        return tmp_path

    with pytest.raises(InputError, match=r"width 40 of .*down_proj.*none; use export.quantize=nf4"):
        check_shapes(write(q_proj=(64, 64), down_proj=(64, 40)), GptqSection())
    with pytest.raises(InputError, match=r"k_proj.* has 24 outputs, .* a multiple of 32"):
        check_shapes(write(q_proj=(64, 64), k_proj=(24, 64)), GptqSection())
    check_shapes(write(q_proj=(64, 64), gate=(6, 64)), GptqSection())


@pytest.fixture(scope="module", params=[(4, 32), (8, 64)], ids=["4 bits", "8 bits"])
def quantised(
    request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, GptqSection, dict[str, float]]]:
    bits, group_size = request.param
    section = GptqSection(bits=bits, group_size=group_size, scale_candidates=4)
    target = tmp_path_factory.mktemp("gptq") / "out"
    yield target, section, quantize(tiny_model, target, samples(), section)


def by_definition(tensors: dict[str, torch.Tensor], stem: str, bits: int, group_size: int) -> torch.Tensor:
    """Weight [out, in] in float64, value by value from the packed words."""
    words, zero_words, scales = (tensors[f"{stem}.{part}"] for part in ("qweight", "qzeros", "scales"))
    per_word, mask = 32 // bits, (1 << bits) - 1
    rows, columns = words.shape[0] * per_word, words.shape[1]
    weight = torch.empty(columns, rows, dtype=torch.float64)
    for k in range(rows):
        group = k // group_size
        for n in range(columns):
            code = (int(words[k // per_word, n]) >> bits * (k % per_word)) & mask
            zero = ((int(zero_words[group, n // per_word]) >> bits * (n % per_word)) & mask) + 1
            weight[n, k] = (code - zero) * float(scales[group, n])
    return weight


def test_files_are_read_by_their_definition(quantised: tuple[Path, GptqSection, dict[str, float]]) -> None:
    directory, section, _ = quantised
    tensors = load_file(directory / "model.safetensors")
    read = dict(dequantized_tensors(directory))
    assert len(read) == 2 * 7
    for stem in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        weight = by_definition(tensors, stem, section.bits, section.group_size)
        assert torch.equal(read[f"{stem}.weight"].double(), weight)
    stated = json.loads((directory / "config.json").read_text())["quantization_config"]
    assert (stated["bits"], stated["group_size"], stated["sym"], stated["desc_act"]) == (
        *(section.bits, section.group_size),
        *(True, False),
    )


def test_gptqmodels_own_kernel_has_the_same_weights(
    quantised: tuple[Path, GptqSection, dict[str, float]],
) -> None:
    from gptqmodel import BACKEND, GPTQModel

    directory, _, _ = quantised
    model = GPTQModel.load(str(directory), device="cpu", backend=BACKEND.TORCH)
    modules = dict(model.model.named_modules())
    read = dict(dequantized_tensors(directory))
    for name in ("model.layers.0.mlp.gate_proj", "model.layers.1.self_attn.v_proj"):
        got = modules[name].dequantize_weight().T.double()
        want = read[f"{name}.weight"].double()
        assert torch.allclose(got, want, rtol=2**-8, atol=2**-24), (got - want).abs().max()


def test_output_errors_are_those_of_the_calibration_inputs(
    quantised: tuple[Path, GptqSection, dict[str, float]], tiny_model: Path
) -> None:
    from transformers import AutoModelForCausalLM

    directory, _, errors = quantised
    assert len(errors) == 2 * 7
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    norm, embed = model.model.layers[0].input_layernorm, model.model.embed_tokens
    with torch.no_grad():
        rows = torch.cat([norm(embed(torch.tensor(ids))) for ids in samples()]).double()
    name = "model.layers.0.self_attn.q_proj"
    weight = model.get_submodule(name).weight.detach().double()
    difference = weight - dict(dequantized_tensors(directory))[f"{name}.weight"].double()
    want = (rows @ difference.T).norm() / (rows @ weight.T).norm()
    assert errors[name] == pytest.approx(float(want), rel=1e-3)


def test_the_model_loads_with_its_weights(quantised: tuple[Path, GptqSection, dict[str, float]]) -> None:
    directory, _, _ = quantised
    model = load_dequantized(directory)
    read = dict(dequantized_tensors(directory))
    for name, weight in read.items():
        assert torch.equal(model.state_dict()[name], weight), name
    plain = load_file(directory / "model.safetensors")
    assert torch.equal(model.model.norm.weight, plain["model.norm.weight"].float())
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_same_inputs_give_the_same_files(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        quantize(tiny_model, tmp_path / name, samples(), GptqSection(scale_candidates=4))
    sums = file_sums(tmp_path / "first")
    assert sums == file_sums(tmp_path / "second")
    assert not any(name.endswith((".bin", ".pt", ".csv", ".py")) for name in sums)
