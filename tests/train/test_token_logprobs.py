"""Block-wise log-probabilities against log_softmax over all logits at once, in value and gradient."""

from typing import Any

import pytest
import torch

import trimtab.train.token_logprobs as module
from trimtab.train.token_logprobs import token_logprobs


def plain(hidden: Any, weight: Any, targets: Any, bias: Any) -> torch.Tensor:
    logits = hidden @ weight.T + (0 if bias is None else bias)
    return torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_log_softmax(trained_head: bool, with_bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)
    torch.manual_seed(0)
    double = {"dtype": torch.float64}
    hidden = torch.randn(11, 6, **double, requires_grad=True)
    weight = torch.randn(23, 6, **double, requires_grad=trained_head)
    bias = torch.randn(23, **double, requires_grad=trained_head) if with_bias else None
    targets, above = torch.randint(23, (11,)), torch.randn(11, **double)
    leaves = [leaf for leaf in (hidden, weight, bias) if leaf is not None and leaf.requires_grad]
    results = []
    for value in (token_logprobs(hidden, weight, targets, bias), plain(hidden, weight, targets, bias)):
        results.append([value, *torch.autograd.grad((value * above).sum(), leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_target_of_no_probability_stays_finite() -> None:
    weight = torch.tensor([[200.0], [0.0], [-200.0]])
    hidden = torch.ones(3, 1, requires_grad=True)
    logprobs = token_logprobs(hidden, weight, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(logprobs, torch.tensor([0.0, -200.0, -400.0]))
    logprobs.sum().backward()
    torch.testing.assert_close(hidden.grad, torch.tensor([[0.0], [-200.0], [-400.0]]))


def test_float32_is_as_good_as_log_softmax() -> None:
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(700, 64), torch.randn(5000, 64), torch.randint(5000, (700,))
    exact = plain(hidden.double(), weight.double(), targets, None)
    ours, usual = token_logprobs(hidden, weight, targets, None), plain(hidden, weight, targets, None)
    assert (ours - exact).abs().max() <= 2 * (usual - exact).abs().max()
