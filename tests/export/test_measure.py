"""Drift figures against a float64 computation by their definitions."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from trimtab.data.read import read_pairs
from trimtab.data.render import render_pair
from trimtab.export.measure import measure_drift

PAIRS = read_pairs("sample/heldout")[:5]


@pytest.fixture(scope="module")
def models(tiny_model: Path):
    reference = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    changed = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    torch.manual_seed(1)
    for parameter in changed.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return reference, changed


def test_a_model_does_not_drift_from_itself(models, tokenizer) -> None:
    drift = measure_drift(models[0], models[0], tokenizer, PAIRS, 512)
    assert drift.kl == 0
    assert drift.top1 == 1
    assert drift.nll == drift.reference_nll
    assert drift.pairs == len(PAIRS)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_figures_by_definition(models, tokenizer, batch_size: int) -> None:
    drift = measure_drift(*models, tokenizer, PAIRS, 512, batch_size)
    double = [m.double() for m in models]
    kl, same, tokens, chosen_nll, chosen_tokens, margins = 0.0, 0, 0, 0.0, 0, []
    for pair in PAIRS:
        text = render_pair(tokenizer, pair)
        means = []
        for side in (text.chosen, text.rejected):
            start = len(tokenizer(text.prompt, add_special_tokens=False)["input_ids"])
            ids = torch.tensor([tokenizer(text.prompt + side, add_special_tokens=False)["input_ids"]])
            with torch.no_grad():
                p, q = (torch.log_softmax(m(input_ids=ids).logits[0, start - 1 : -1], -1) for m in double)
            kl += (p.exp() * (p - q)).sum().item()
            same += (p.argmax(-1) == q.argmax(-1)).sum().item()
            tokens += len(p)
            logp = q.gather(-1, ids[0, start:, None])[:, 0]
            means.append(logp.mean().item())
            if side is text.chosen:
                chosen_nll -= logp.sum().item()
                chosen_tokens += len(logp)
        margins.append(means[0] - means[1])
    for m in models:
        m.float()
    assert drift.tokens == tokens
    assert drift.kl == pytest.approx(kl / tokens, rel=1e-4)
    assert drift.top1 == pytest.approx(same / tokens, abs=2 / tokens)
    assert drift.nll == pytest.approx(chosen_nll / chosen_tokens, rel=1e-5)
    assert drift.preference_margin == pytest.approx(sum(margins) / len(margins), rel=1e-3)
    assert drift.preference_accuracy == sum(m > 0 for m in margins) / len(margins)


def test_truncation_cuts_answers_at_max_length(models, tokenizer) -> None:
    assert (
        measure_drift(*models, tokenizer, PAIRS, 80).tokens < measure_drift(*models, tokenizer, PAIRS, 512).tokens
    )
