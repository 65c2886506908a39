"""Losses against float64 references written from the papers' equations."""

import math

import pytest
import torch

from trimtab.train.losses import dpo_loss, log1mexp, log_odds, orpo_odds_ratio_loss

MEANS = [(-0.2, -0.9), (-3.0, -2.0), (-1e-4, -5.0), (-12.0, -1e-3), (-0.7, -0.69)]


@pytest.mark.parametrize(("chosen", "rejected"), MEANS)
def test_orpo_by_equations_4_to_7(chosen: float, rejected: float) -> None:
    p, q = math.exp(chosen), math.exp(rejected)
    odds = (p / (1 - p)) / (q / (1 - q))
    reference = -math.log(1 / (1 + math.exp(-math.log(odds))))
    pair = torch.tensor([[chosen], [rejected]], dtype=torch.float64)
    loss, ratio = orpo_odds_ratio_loss(*pair)
    assert loss.item() == pytest.approx(reference, rel=1e-6)
    assert ratio.item() == pytest.approx(math.log(odds), rel=1e-6)
    loss32, _ = orpo_odds_ratio_loss(*pair.float())
    assert loss32.item() == pytest.approx(reference, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_odds_stay_finite_and_differentiable_at_both_ends(dtype: torch.dtype) -> None:
    means = torch.tensor(
        [0.0, -1e-30, -1e-8, -1e-3, -math.log(2), -1.0, -50.0, -5000.0], dtype=dtype, requires_grad=True
    )
    odds = log_odds(means)
    odds.sum().backward()
    assert torch.isfinite(odds).all()
    assert torch.isfinite(means.grad).all()
    assert (odds.diff() <= 0).all()


def test_log1mexp_keeps_its_digits() -> None:
    for x in (-1e-12, -1e-6, -0.1, -math.log(2), -0.7, -5.0, -40.0):
        exact = math.log(-math.expm1(x)) if x > -0.5 else math.log1p(-math.exp(x))
        assert log1mexp(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(exact, rel=1e-12)
    x = torch.linspace(-6, -0.01, 40, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log1mexp, x)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_dpo_by_equation_7(smoothing: float) -> None:
    chosen, rejected, beta = 1.5, -0.75, 0.3
    sigmoid = 1 / (1 + math.exp(-beta * (chosen - rejected)))
    reference = -(1 - smoothing) * math.log(sigmoid) - smoothing * math.log(1 - sigmoid)
    ratios = torch.tensor([[chosen], [rejected]], dtype=torch.float64)
    lengths = torch.tensor([[3, 4]])
    assert dpo_loss(*ratios, lengths, beta, "sigmoid", smoothing).item() == pytest.approx(reference, rel=1e-6)


def test_ipo_by_equation_17_per_token() -> None:
    ratios = torch.tensor([[1.5], [-0.75]], dtype=torch.float64)
    reference = (1.5 / 3 - -0.75 / 4 - 1 / (2 * 0.3)) ** 2
    loss = dpo_loss(*ratios, torch.tensor([[3, 4]]), 0.3, "ipo", 0.0)
    assert loss.item() == pytest.approx(reference, rel=1e-6)
