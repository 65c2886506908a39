"""Drift as a table that a person reads."""

import math

from trimtab.artifacts.resources import MIB
from trimtab.export.measuring.measure import Drift

_LABEL = 34


def drift_table(drift: Drift) -> list[str]:
    """Lines: what was measured, the figures of reference (A) and model (B) with their change, and what is between
    both."""
    least = "at least " if drift.known is not None else ""
    lines = [
        f"{drift.pairs} pairs, {drift.tokens} answer tokens, {drift.answers} greedy answers",
        "",
        _row("", "A", "B", "change"),
        *_sizes(drift),
        _of_both("NLL of chosen, nats a token", drift.reference_nll, drift.nll, ".4f"),
        _of_both("perplexity of chosen", _exp(drift.reference_nll), _exp(drift.nll), ".5g"),
        _of_both("preference accuracy", drift.reference_preference_accuracy, drift.preference_accuracy, ".4f"),
        _of_both(
            "preference margin, nats a token", drift.reference_preference_margin, drift.preference_margin, ".4f"
        ),
        "",
        _row("KL(A || B), nats a token, mean", f"{least}{drift.kl:.6f}"),
        _row("KL(A || B), 99th percentile", f"{least}{drift.kl_p99:.6f}"),
        _row("same most likely token", f"{drift.top1:.4f}"),
    ]
    if drift.same_answers is not None and drift.leading_tokens is not None:
        lines += [
            _row("same greedy answers", f"{drift.same_answers:.4f}"),
            _row("leading tokens that agree", f"{drift.leading_tokens:.4f}"),
        ]
    if drift.known is not None:
        lines += [
            "",
            f"KL is a lower bound: an endpoint tells of the {drift.known} most likely tokens, all others are one.",
        ]
    return [*lines, ""]


def _sizes(drift: Drift) -> list[str]:
    if drift.size is None or drift.reference_size is None:
        known = [size for size in (drift.reference_size, drift.size) if size is not None]
        side = "A" if drift.reference_size is not None else "B"
        return [_row(f"weights of {side}, MiB", f"{known[0] / MIB:.1f}")] if known else []
    return [_of_both("weights, MiB", drift.reference_size / MIB, drift.size / MIB, ".1f")]


def _of_both(label: str, reference: float, model: float, form: str) -> str:
    return _row(label, f"{reference:{form}}", f"{model:{form}}", f"{model - reference:+{form}}")


def _row(label: str, *cells: str) -> str:
    return (f"{label:<{_LABEL}}" + "".join(f"{cell:>12}" for cell in cells)).rstrip()


def _exp(nll: float) -> float:
    return math.exp(nll) if nll < 700 else math.inf
