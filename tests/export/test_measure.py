"""Drift figures against a float64 computation by their definitions."""

import math
from pathlib import Path

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM

from trimtab.artifacts.errors import InputError
from trimtab.data.read import read_pairs
from trimtab.data.render import render_pair
from trimtab.export.measuring.answers import Answer, answers_of
from trimtab.export.measuring.distributions import Distributions, compare, divergence
from trimtab.export.measuring.local_model import LocalModel, leading
from trimtab.export.measuring.measure import measure_drift

PAIRS = read_pairs("sample/heldout")[:5]


@pytest.fixture(scope="module")
def models(tiny_model: Path):
    reference = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    changed = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    torch.manual_seed(1)
    for parameter in changed.parameters():
        parameter.data += 0.003 * torch.randn_like(parameter)
    return reference, changed


def test_a_model_does_not_drift_from_itself(models, tokenizer) -> None:
    drift = measure_drift(models[0], models[0], tokenizer, PAIRS, 512, answers=2, answer_tokens=6)
    assert (drift.kl, drift.kl_p99, drift.top1) == (0, 0, 1)
    assert (drift.same_answers, drift.leading_tokens, drift.answers) == (1, 1, 2)
    assert drift.nll == drift.reference_nll
    assert drift.pairs == len(PAIRS)


@pytest.mark.parametrize("max_tokens", [1, 700])
def test_figures_by_definition(models, tokenizer, max_tokens: int) -> None:
    drift = measure_drift(*models, tokenizer, PAIRS, 512, max_tokens=max_tokens)
    double = [m.double() for m in models]
    kl, same, nlls, means = [], 0, [[], []], [[], []]
    for pair in PAIRS:
        text = render_pair(tokenizer, pair)
        for side in (text.chosen, text.rejected):
            start = len(tokenizer(text.prompt, add_special_tokens=False)["input_ids"])
            ids = torch.tensor([tokenizer(text.prompt + side, add_special_tokens=False)["input_ids"]])
            with torch.no_grad():
                p, q = (torch.log_softmax(m(input_ids=ids).logits[0, start - 1 : -1], -1) for m in double)
            kl += (p.exp() * (p - q)).sum(-1).tolist()
            same += (p.argmax(-1) == q.argmax(-1)).sum().item()
            for at, logp in enumerate((p, q)):
                of_text = logp.gather(-1, ids[0, start:, None])[:, 0]
                means[at].append(of_text.mean().item())
                nlls[at] += (-of_text).tolist() if side is text.chosen else []
    for m in models:
        m.float()
    margins = [numpy.subtract(side[::2], side[1::2]) for side in means]
    assert drift.tokens == len(kl)
    assert drift.kl == pytest.approx(numpy.mean(kl), rel=1e-5)
    assert drift.kl_p99 == pytest.approx(numpy.quantile(kl, 0.99), rel=1e-5)
    assert drift.top1 == pytest.approx(same / len(kl), abs=2 / len(kl))
    assert drift.reference_nll == pytest.approx(numpy.mean(nlls[0]), rel=1e-6)
    assert drift.nll == pytest.approx(numpy.mean(nlls[1]), rel=1e-6)
    assert drift.figures()["perplexity"] == pytest.approx(math.exp(numpy.mean(nlls[1])), rel=1e-3)
    assert drift.reference_preference_margin == pytest.approx(margins[0].mean(), rel=1e-3)
    assert drift.preference_margin == pytest.approx(margins[1].mean(), rel=1e-3)
    assert drift.reference_preference_accuracy == (margins[0] > 0).mean()
    assert drift.preference_accuracy == (margins[1] > 0).mean()


def test_greedy_answers_are_those_of_generate(models, tokenizer) -> None:
    one, other = map(LocalModel, models)
    prompts = [answer.prompt for answer in answers_of(tokenizer, PAIRS, 512)[::2]]
    answers = one.greedy(prompts, 12, tokenizer.eos_token_id)
    wanted = []
    for model in models:
        rows = [
            model.generate(torch.tensor([p]), max_new_tokens=12, do_sample=False)[0, len(p) :] for p in prompts
        ]
        wanted.append([row.tolist() for row in rows])
    assert answers == wanted[0]
    agreed = other.follows(
        [Answer(*both) for both in zip(prompts, answers, strict=True)], 12, tokenizer.eos_token_id, 256
    )
    assert 0 < sum(agreed) < sum(map(len, answers))
    assert agreed == [leading(*both) for both in zip(*wanted, strict=True)]
    drift = measure_drift(*models, tokenizer, PAIRS, 512, answers=5, answer_tokens=12)
    shares = [n / len(answer) for n, answer in zip(agreed, answers, strict=True)]
    assert drift.leading_tokens == pytest.approx(sum(shares) / 5)
    assert drift.same_answers == pytest.approx(sum(share == 1 for share in shares) / 5)


def test_greedy_answers_end_at_the_end_of_turn(models, tokenizer) -> None:
    prompts = [[5, 6, 7], [8, 9]]
    free = LocalModel(models[0]).greedy(prompts, 6, -1)
    stop = free[0][2]
    stopped = LocalModel(models[0]).greedy(prompts, 6, stop)
    assert stopped[0] == free[0][: free[0].index(stop) + 1]
    assert all(row[:-1].count(stop) == 0 for row in stopped)


def test_truncation_cuts_answers_at_max_length(models, tokenizer) -> None:
    short = measure_drift(*models, tokenizer, PAIRS, 80)
    assert short.tokens < measure_drift(*models, tokenizer, PAIRS, 512).tokens
    with pytest.raises(InputError, match="none of 5 pairs has a prompt of less than max_length=4 tokens"):
        measure_drift(*models, tokenizer, PAIRS, 4)


def test_small_divergences_are_exact() -> None:
    torch.manual_seed(0)
    p = torch.randn(20, 5000) * 3
    q = p + 1e-4 * torch.randn_like(p)
    exact = _kl(p.double(), q.double())
    got = divergence(Distributions(p).part(slice(None)), Distributions(q).part(slice(None)))
    assert exact.mean() < 1e-8
    assert torch.allclose(got.double(), exact, atol=2e-7)


def test_what_is_no_number_is_seen() -> None:
    p, q = torch.randn(2, 50), torch.randn(2, 50)
    q[1, 3] = torch.nan
    top = _top(p, 5, torch.tensor([1, 2]))
    for reference in (Distributions(p), top):
        kl = compare(reference, Distributions(q), torch.tensor([1, 2])).kl
        assert kl.isnan().tolist() == [False, True]
    q[1, 3], p[1, 4], q[1, 4] = 0, -torch.inf, -torch.inf  # ruled out by both: no divergence from that
    assert compare(Distributions(p), Distributions(q), torch.tensor([1, 2])).kl.isfinite().all()


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("partly", ["reference", "model", "both"])
def test_the_bucketed_divergence_is_a_lower_bound_by_definition(k: int, partly: str) -> None:
    torch.manual_seed(k)
    p, q = torch.randn(30, 200) * 2, torch.randn(30, 200) * 2
    targets = torch.randint(0, 200, (30,))
    one = Distributions(p) if partly == "model" else _top(p, k, targets)
    other = Distributions(q) if partly == "reference" else _top(q, k, targets)
    got = compare(one, other, targets)
    wanted = []
    for row in range(30):
        known = [set(d.ids[row].tolist()) - {-1} if d.ids is not None else set(range(200)) for d in (one, other)]
        both = sorted(known[0] & known[1])
        ps, qs = (torch.softmax(logits[row].double(), -1) for logits in (p, q))
        ps, qs = (torch.cat([s[both], 1 - s[both].sum(-1, keepdim=True)]) for s in (ps, qs))
        wanted.append((ps * (ps / qs).log()).sum())
    exact = _kl(p.double(), q.double())
    assert torch.allclose(got.kl.double(), torch.stack(wanted), atol=1e-5)
    assert (got.kl <= exact + 1e-5).all()
    assert torch.equal(got.same, p.argmax(-1) == q.argmax(-1))
    for logits, found in ((p, got.reference), (q, got.model)):
        logp = torch.log_softmax(logits.double(), -1).gather(-1, targets[:, None])[:, 0]
        assert torch.allclose(found.double(), logp, atol=1e-5)


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    p, q = torch.log_softmax(p, -1), torch.log_softmax(q, -1)
    return (p.exp() * (p - q)).sum(-1)


def _top(logits: torch.Tensor, k: int, targets: torch.Tensor) -> Distributions:
    """What an endpoint tells: the k most likely tokens and the text's own, in any order, filled up with -1."""
    logp = torch.log_softmax(logits, -1)
    ids = torch.full((len(logits), k + 1), -1)
    for row, target in enumerate(targets.tolist()):
        best = logp[row].topk(k).indices.tolist()
        known = best if target in best else [target, *best]
        ids[row, : len(known)] = torch.tensor(known)
    scores = logp.gather(-1, ids.clamp(min=0)).masked_fill(ids < 0, -torch.inf)
    return Distributions(scores, ids)
