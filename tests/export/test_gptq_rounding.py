"""Rounding against GPTQ's equations in float64, and against what it is meant to be better than."""

import pytest
import torch
from torch import Tensor

from trimtab.export.forms.gptq_rounding import held_scale, round_weight

ROWS, COLUMNS, GROUP, BITS = 64, 24, 32, 4


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Weight [in, out], a Hessian of correlated inputs, and the upper factor of its inverse; float64."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(400, ROWS, generator=generator, dtype=torch.float64)
    inputs = inputs @ torch.randn(ROWS, ROWS, generator=generator, dtype=torch.float64)
    hessian = inputs.T @ inputs / len(inputs)
    hessian += 0.05 * hessian.diagonal().mean() * torch.eye(ROWS)
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    return torch.randn(ROWS, COLUMNS, generator=generator, dtype=torch.float64), hessian, factor


def by_the_equations(weight: Tensor, hessian: Tensor, scales: Tensor) -> Tensor:
    """GPTQ by its definition: round a row, correct the others by the inverse Hessian of those that are left."""
    weight, codes = weight.clone(), torch.empty_like(weight)
    for row in range(ROWS):
        scale = scales[row // GROUP]
        codes[row] = (weight[row] / scale).round().clamp(-8, 7)
        error = weight[row] - codes[row] * scale
        inverse = torch.linalg.inv(hessian[row:, row:])
        weight[row:] -= inverse[:, :1] / inverse[0, 0] * error
    return codes


def loss(weight: Tensor, hessian: Tensor, rounded: Tensor) -> float:
    difference = weight - rounded
    return float((difference * (hessian @ difference)).sum())


@pytest.mark.parametrize("candidates", [0, 6])
def test_codes_are_those_of_gptq_with_the_same_scales(candidates: int) -> None:
    weight, hessian, factor = problem()
    got = round_weight(weight.clone(), factor, group_size=GROUP, bits=BITS, candidates=candidates)
    assert torch.equal(got.codes, by_the_equations(weight, hessian, got.scales.double()))


def test_in_float32_it_is_nearly_the_same() -> None:
    weight, hessian, factor = problem()
    exact = round_weight(weight.clone(), factor, group_size=GROUP, bits=BITS, candidates=6)
    got = round_weight(weight.float(), factor.float(), group_size=GROUP, bits=BITS, candidates=6)
    losses = [loss(weight, hessian, r.codes * r.scales.double().repeat_interleave(GROUP, 0)) for r in (exact, got)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_search_is_better_than_the_largest_weight() -> None:
    shares = []
    for seed in range(5):
        weight, hessian, factor = problem(seed)
        losses = []
        for candidates in (0, 6):
            r = round_weight(weight.clone(), factor, group_size=GROUP, bits=BITS, candidates=candidates)
            losses.append(loss(weight, hessian, r.codes * r.scales.repeat_interleave(GROUP, 0)))
        shares.append(losses[1] / losses[0])
    assert max(shares) < 0.9


def test_the_first_groups_scale_is_the_best_of_all_tried() -> None:
    """No scale of either sign on a much finer grid does better by more than the grid's own coarseness."""
    weight, _, factor = problem(3)
    got = round_weight(weight[:GROUP].clone(), factor[:GROUP, :GROUP], group_size=GROUP, bits=BITS, candidates=16)
    largest = weight[:GROUP].abs().amax(0) / 7.5
    hessian = torch.linalg.inv(factor[:GROUP, :GROUP].T @ factor[:GROUP, :GROUP])

    def losses(scales: Tensor) -> Tensor:
        work, codes = weight[:GROUP].clone(), torch.empty(GROUP, COLUMNS, dtype=torch.float64)
        for row in range(GROUP):
            codes[row] = (work[row] / scales).round().clamp(-8, 7)
            error = (work[row] - codes[row] * scales) / factor[row, row]
            work[row:] -= factor[row, row:GROUP, None] * error
        difference = weight[:GROUP] - codes * scales
        return (difference * (hessian @ difference)).sum(0)

    grid = torch.stack([losses(s * largest) for p in torch.linspace(0.65, 1.05, 81) for s in (p, -p)]).amin(0)
    mine = losses(got.scales[0].double())
    assert float((mine / grid).mean()) < 1.1
    assert bool((got.scales < 0).any())
    assert bool((got.scales > 0).any())


def test_scales_are_exact_in_both_16_bit_types() -> None:
    scales = torch.tensor([1.2345e-2, -7.7e-3, 3e-9, -3e-9, 0.0, 4.5])
    held = held_scale(scales)
    assert torch.equal(held, held.half().float())
    assert torch.equal(held, held.bfloat16().float())
    assert bool((held != 0).all())
    assert torch.allclose(held[[0, 1, 5]], scales[[0, 1, 5]], rtol=2**-8)
