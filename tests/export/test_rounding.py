"""Stochastic rounding: to neighbours, right on average, repeatable; an update too small for the type survives."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from trimtab.artifacts.errors import GateError, InputError
from trimtab.cli.main import main
from trimtab.export.by_directory import merge_directory
from trimtab.export.checkpoint.model_files import copy_tokenizer
from trimtab.export.checkpoint.tensor_files import Checkpoint
from trimtab.export.merging.merge import check_merge, merge
from trimtab.export.merging.rounding import Rounding, stochastic
from trimtab.recipes.export import ExportSection

TYPES = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_values_of_the_type_stay(dtype: torch.dtype) -> None:
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    every = every[every.isfinite()]
    for uniform in (0.0, 0.5, 1 - 2**-24):
        assert torch.equal(stochastic(every, dtype, torch.full_like(every, uniform)), every)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_goes_to_either_neighbour_by_its_share_of_the_way(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    scale = torch.logspace(-9, 3, 4000)
    for sign in (1, -1):
        values = sign * scale * (1 + torch.rand(4000))
        low = stochastic(values, dtype, torch.full_like(values, 1 - 2**-24))
        high = stochastic(values, dtype, torch.zeros_like(values))
        assert torch.equal(low.to(dtype).float(), low)
        assert torch.equal(high.to(dtype).float(), high)
        nearest = values.to(dtype).float()
        assert ((low <= values) & (values <= high) & ((nearest == low) | (nearest == high))).all()
        apart = high - low
        share = torch.where(apart > 0, (values - low) / apart, 0.5)
        before, after = (stochastic(values, dtype, (share + d).clamp(0, 1 - 2**-24)) for d in (-0.01, 0.01))
        inner = (apart > 0) & (share > 0.02) & (share < 0.98)
        assert torch.equal(before[inner], high[inner])
        assert torch.equal(after[inner], low[inner])


@pytest.fixture
def base(tmp_path: Path, tiny_model: Path) -> Path:
    """A model whose layers all see nearly the same input, so that updates can act together as trained ones do."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.get_input_embeddings().weight.data += 1
    model.save_pretrained(tmp_path / "base")
    copy_tokenizer(tiny_model, tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def small(tmp_path: Path, base: Path) -> Path:
    """An adapter whose update is a fraction of bfloat16's step at most weights."""
    targets = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"]
    config = LoraConfig(r=1, lora_alpha=1, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            parameter.data.fill_(1)
        elif "lora_B" in name:
            parameter.data.copy_(1e-4 * torch.randn_like(parameter).sign())
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def tensors(directory: Path) -> dict[str, Tensor]:
    return {name: place.read() for name, place in Checkpoint(directory).tensors.items()}


def merged(base: Path, adapter: Path, target: Path, seed: int | None) -> dict[str, Tensor]:
    target.mkdir()
    merge(check_merge(base, adapter, target, rounding=Rounding(seed)), target)
    return tensors(target)


def test_a_small_update_survives(small: Path, base: Path, tmp_path: Path) -> None:
    before = tensors(base)
    nearest = merged(base, small, tmp_path / "nearest", None)
    dithered = merged(base, small, tmp_path / "stochastic", 0)
    assert before.keys() == nearest.keys() == dithered.keys()
    factors = tensors_of_adapter(small)
    kept = {"nearest": 0.0, "stochastic": 0.0}
    for name, weight in before.items():
        if name not in factors:
            assert torch.equal(dithered[name], weight), name
            continue
        a, b = factors[name]
        update = b @ a
        for way, result in (("nearest", nearest), ("stochastic", dithered)):
            moved = result[name].float() - weight.float()
            kept[way] += float((moved * update).sum() / update.square().sum()) / len(factors)
    assert kept["stochastic"] == pytest.approx(1, abs=0.05)
    assert kept["nearest"] < 0.6


def tensors_of_adapter(directory: Path) -> dict[str, tuple[Tensor, Tensor]]:
    from safetensors.torch import load_file

    file = load_file(directory / "adapter_model.safetensors")
    modules = {key.removesuffix(".lora_A.weight") for key in file if key.endswith(".lora_A.weight")}
    return {
        f"{module.removeprefix('base_model.model.')}.weight": (
            file[f"{module}.lora_A.weight"],
            file[f"{module}.lora_B.weight"],
        )
        for module in modules
    }


def test_the_seed_decides(small: Path, base: Path, tmp_path: Path) -> None:
    one, again, other = (merged(base, small, tmp_path / str(i), seed) for i, seed in enumerate((3, 3, 4)))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_auto_takes_it_where_rounding_to_nearest_is_past_the_limit(
    small: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def exported(out: Path, **section: object) -> dict[str, object]:
        verify = {"pairs": 4, "answers": 0}
        return merge_directory(
            small,
            out,
            base=str(base),
            data="sample/heldout",
            section=ExportSection.model_validate(section | {"verify": verify}),
        ).metrics

    kl = {
        rounding: exported(tmp_path / rounding, merge_rounding=rounding, merged_kl=1)["drift"]["kl"]
        for rounding in ("nearest", "stochastic")
    }
    assert 0 < 2 * kl["stochastic"] < kl["nearest"]
    between = (kl["stochastic"] * kl["nearest"]) ** 0.5

    metrics = exported(tmp_path / "auto", merged_kl=between)
    assert metrics["merge_rounding"] == "stochastic"
    assert metrics["merge_kl"] == pytest.approx(
        {"original-nearest": kl["nearest"], "original-stochastic": kl["stochastic"]}, abs=2e-6
    )
    assert "closest to training is original-stochastic" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "auto").iterdir()} == {p.name for p in (tmp_path / "nearest").iterdir()}

    metrics = exported(tmp_path / "wide", merged_kl=1)
    assert (metrics["merge_rounding"], "merge_kl" in metrics) == ("nearest", False)
    with pytest.raises(GateError, match="merge_rounding=stochastic"):
        exported(tmp_path / "refused", merge_rounding="nearest", merged_kl=between)
    assert not (tmp_path / "refused").exists()


def test_on_the_command_line(small: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ["--base", str(base), "--rounding", "stochastic", "--unverified"]
    assert main(["export", "merge", str(small), "--out", str(out), *more]) == 0
    want = merged(base, small, tmp_path / "want", 0)
    assert all(torch.equal(tensor, want[name]) for name, tensor in tensors(out).items())


def test_pefts_own_merge_rounds_to_nearest_only(small: Path, base: Path, tmp_path: Path) -> None:
    path = small / "adapter_config.json"
    path.write_text(path.read_text().replace('"init_lora_weights": true', '"init_lora_weights": "pissa"'))
    with pytest.raises(InputError, match="merge_rounding=nearest"):
        check_merge(base, small, tmp_path, rounding=Rounding(0))
