"""The pieces put in place of GPTQModel's give what those give, and are gone afterwards."""

from pathlib import Path

import pytest
import torch

from trimtab.export.forms import gptq_fast
from trimtab.export.forms.gptq_fast import fast_gptqmodel
from trimtab.export.forms.gptq_products import add_gram, linear, remembered
from trimtab.export.measuring.measure import compute_device

CPU_ONLY = pytest.mark.skipif(compute_device() != "cpu", reason="on a GPU the forward passes are GPTQModel's own")


def test_a_gram_matrix_is_summed_by_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    for width in (5, 64, 130):
        first, second = (torch.randn(50, width, generator=generator) for _ in range(2))
        total = torch.zeros(width, width)
        add_gram(total, first)
        add_gram(total, second)
        rows = torch.cat([first, second]).double()
        assert torch.allclose(total.double(), rows.T @ rows, rtol=1e-5, atol=1e-4)
        assert torch.equal(total, total.T)


def test_products_are_those_of_torch() -> None:
    x, weight, bias = torch.randn(3, 7, 20), torch.randn(9, 20), torch.randn(9)
    assert torch.allclose(linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias), atol=1e-5)
    assert torch.allclose(linear(x, weight, None), torch.nn.functional.linear(x, weight), atol=1e-5)


def test_an_output_is_remembered_for_one_input_and_one_weight() -> None:
    layer = torch.nn.Linear(8, 4)
    with torch.no_grad():
        batches = [torch.randn(3, 8), torch.randn(2, 8)]
        first = [remembered(layer, x) for x in batches]
        again = [remembered(layer, x.clone()) for x in batches]
        assert [a.data_ptr() for a in first] == [a.data_ptr() for a in again]
        other = torch.randn(3, 8)
        assert torch.allclose(remembered(layer, other), layer(other), atol=1e-6)
        assert remembered(layer, batches[0]).data_ptr() == first[0].data_ptr()
        first[0].add_(1)  # as a model might do in place
        assert torch.allclose(remembered(layer, batches[0]), layer(batches[0]), atol=1e-6)
        layer.weight.data = torch.randn(4, 8)
        assert torch.allclose(remembered(layer, batches[1]), layer(batches[1]), atol=1e-6)


@CPU_ONLY
def test_hessians_are_those_of_gptqmodel(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same calibration through GPTQModel's own passes and ours, nothing being rounded between them."""
    from gptqmodel import GPTQModel, QuantizeConfig
    from gptqmodel.quantization.gptq import GPTQ

    from trimtab.export.forms import gptq  # noqa: F401 - sets the number of workers that GPTQModel needs

    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(5, 49000, (40 + 7 * row,), generator=generator).tolist() for row in range(12)]
    seen: dict[str, dict[str, torch.Tensor]] = {"stock": {}, "ours": {}}

    def keep(into: dict[str, torch.Tensor]) -> object:
        def quantize(self, blocksize=128):
            hessian = self.finalize_hessian(target_device=None)
            into[self._named_module.full_name] = hessian.clone()
            weight, groups = self.module.weight.data, self.columns // 32
            scale = torch.full((self.rows, groups), 0.01)
            index = torch.arange(self.columns, dtype=torch.int32) // 32
            self.H = None
            return weight.clone(), scale, torch.full_like(scale, 8), index, 0.0, 0.0, 0.05, self.nsamples

        return quantize

    def run() -> None:
        config = QuantizeConfig(bits=4, group_size=32, desc_act=False, sym=True, offload_to_disk=False)
        model = GPTQModel.load(str(tiny_model), config, device="cpu", dtype=torch.float32)
        model.quantize([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows], batch_size=4)

    monkeypatch.chdir(tiny_model.parent)
    monkeypatch.setattr(GPTQ, "quantize", keep(seen["stock"]))
    run()
    with fast_gptqmodel(4):
        monkeypatch.setattr(GPTQ, "quantize", keep(seen["ours"]))
        run()
    assert seen["stock"].keys() == seen["ours"].keys()
    assert len(seen["ours"]) == 2 * 7
    for name, hessian in seen["stock"].items():
        assert torch.allclose(seen["ours"][name], hessian, rtol=1e-4, atol=1e-5 * float(hessian.abs().max())), name


def test_gptqmodel_is_itself_again_afterwards() -> None:
    from gptqmodel.nn_modules.hooked_linear import HookedLinear
    from gptqmodel.quantization.gptq import GPTQ

    before = (GPTQ.quantize, GPTQ.add_batch, HookedLinear.forward)
    with pytest.raises(ZeroDivisionError), fast_gptqmodel(4):
        assert GPTQ.quantize is not before[0]
        raise ZeroDivisionError
    assert before == (GPTQ.quantize, GPTQ.add_batch, HookedLinear.forward)


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gptq_fast, "VERSION", "7.6.1")
    with pytest.raises(RuntimeError, match=r"fits GPTQModel 7\.6\.1, but 7\.6\.0 is installed"), fast_gptqmodel(4):
        pass
