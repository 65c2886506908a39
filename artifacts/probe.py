"""Probes: held-out conversations with the log-probabilities an artifact gives them, to check a server by."""

from typing import Any

from trimtab.artifacts.manifest import Probe

PROBES = 8


def make_probes(model: Any, tokenizer: Any, conversations: list[list[dict[str, str]]]) -> list[Probe]:
    """Probes of ``model`` (a transformers causal LM) on the first eight of ``conversations``."""
    import torch

    probes = []
    device = next(model.parameters()).device
    for messages in conversations[:PROBES]:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, :-1]
        logp = torch.log_softmax(logits.float(), -1)
        target = torch.tensor(ids[1:], device=device)[:, None]
        values = [round(v, 5) for v in logp.gather(-1, target)[:, 0].tolist()]
        probes.append(Probe(messages=messages, token_ids=ids, logprobs=values))
    return probes


def probe_difference(expected: list[float], got: list[float]) -> float:
    """Mean absolute difference of log-probabilities, nats a token."""
    if len(expected) != len(got):
        raise ValueError(f"{len(got)} log-probabilities for {len(expected)} tokens")
    return sum(abs(e - g) for e, g in zip(expected, got, strict=True)) / len(expected)
