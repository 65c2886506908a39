"""How far one model is from another, wherever they are: measured, shown, and held against limits."""

import json
from dataclasses import dataclass, replace
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import Check
from trimtab.data.pair import Pair
from trimtab.data.render import render_pair
from trimtab.export.measuring.measure import Drift, measure
from trimtab.export.measuring.subjects import Subject, open_subject
from trimtab.recipes.export import DriftLimits, VerifySection

_MERGED = {"model", "merged"}  # without a manifest a merged model is just a model
_SAMPLED = 4  # pairs that tokenizers are compared on where a vocabulary is out of sight


@dataclass(frozen=True)
class Verification:
    """What was compared, the figures, and a verdict for each limit."""

    reference: Subject
    model: Subject
    drift: Drift
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether every figure is within its limit."""
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Plain data; figures that are no finite number are null."""
        sides = {"reference": self.reference, "model": self.model}
        verdicts = [check.model_dump() for check in self.checks]
        for verdict in verdicts:
            verdict["value"] = verdict["value"] if abs(verdict["value"]) < float("inf") else None
        return {
            **{name: {"place": s.place, "kind": s.kind, "remark": s.remark} for name, s in sides.items()},
            "drift": self.drift.figures(),
            "checks": verdicts,
            "passed": self.passed,
        }

    def as_text(self) -> str:
        """A table for a person, then one line a check."""
        from trimtab.export.measuring.drift_table import drift_table

        names = [f"{s.place} ({s.remark or s.kind})" for s in (self.reference, self.model)]
        verdicts = [
            f"{'ok  ' if check.passed else 'FAIL'}  {check.figure}: {check.value:g}, limit {check.limit:g}"
            for check in self.checks
        ]
        return "\n".join([f"A  {names[0]}", f"B  {names[1]}", *drift_table(self.drift), *verdicts])


def verify(
    reference: str,
    model: str,
    pairs: list[Pair],
    *,
    base: str | None = None,
    tokenizer_of: str | None = None,
    max_length: int = 1024,
    section: VerifySection | None = None,
    limits: DriftLimits | None = None,
    merged_kl: float = 1e-3,
    top: int = 20,
) -> Verification:
    """Open both places (see ``open_subject``), measure ``model`` against ``reference``, and check the limits.

    ``base`` is what adapters are put on; where both are endpoints the tokenizer is that of ``tokenizer_of``. Of an
    endpoint ``top`` log-probabilities a token are asked. Both models are in memory at once: what is compared, each
    token's distribution over the vocabulary, is too much to keep. InputError for places, tokenizers or pairs that
    do not go together.
    """
    section = section or VerifySection()
    one, other = open_subject(reference, base, top=top), open_subject(model, base, top=top)
    pairs = pairs[: section.pairs]
    tokenizer = _common_tokenizer(one, other, pairs, tokenizer_of or base)
    drift = measure(
        one.measured,
        other.measured,
        tokenizer,
        pairs,
        max_length,
        answers=section.answers,
        answer_tokens=section.answer_tokens,
    )
    drift = replace(drift, size=other.size, reference_size=one.size)
    compared = f"{one.kind} and {other.kind}, {drift.tokens} held-out answer tokens"
    kinds = {one.kind, other.kind}
    kind = "merged" if "adapter" in kinds and kinds & _MERGED else other.kind
    return Verification(one, other, drift, checks(drift, kind, compared, limits or DriftLimits(), merged_kl))


def checks(drift: Drift, kind: str, compared: str, limits: DriftLimits, merged_kl: float) -> list[Check]:
    """Verdicts on ``drift`` for a manifest: of a ``merged`` model from its adapter on the base the mean KL alone,
    of any other kind what ``limits`` names. A figure that is no number passes nothing."""
    kl = round(drift.kl, 6)
    figure = "mean KL, nats a token" + ("" if drift.known is None else f" (at least, from {drift.known} a token)")
    if kind == "merged":
        return [Check(compared=compared, figure=figure, value=kl, limit=merged_kl, passed=kl <= merged_kl)]
    top1 = round(drift.top1, 6)
    drop = round(drift.reference_preference_accuracy - drift.preference_accuracy, 6)
    most = limits.preference_accuracy_drop
    verdicts = [
        (figure, kl, limits.kl, kl <= limits.kl),
        ("top-1 agreement", top1, limits.top1, top1 >= limits.top1),
        ("drop of preference accuracy", drop, most, drop <= most),
    ]
    return [
        Check(compared=compared, figure=name, value=value, limit=limit, passed=passed)
        for name, value, limit, passed in verdicts
    ]


def as_json_text(verification: Verification) -> str:
    """``as_json`` as it is printed and written."""
    return json.dumps(verification.as_json(), indent=1, ensure_ascii=False, allow_nan=False)


def _common_tokenizer(one: Subject, other: Subject, pairs: list[Pair], name: str | None) -> Any:
    """The tokenizer of both. InputError where the same text is not the same ids to both."""
    own = [(s, s.tokenizer) for s in (one, other) if s.tokenizer is not None]
    if not own:
        if name is None:
            raise InputError("two endpoints give no tokenizer; name a model of their family: --base MODEL")
        from trimtab.artifacts.base_model import resolve_tokenizer

        own = [(one, resolve_tokenizer(name))]
    first, tokenizer = own[0]
    texts = [text for pair in pairs for text in render_pair(tokenizer, pair)]
    if len(own) == 2:
        _, theirs = own[1]
        same = texts == [text for pair in pairs for text in render_pair(theirs, pair)]
        if not same or _ids(tokenizer, texts) != _ids(theirs, texts):
            raise InputError(
                f"{one.place} and {other.place} do not make the same tokens of the pairs (tokenizer or chat "
                "template differ), so their log-probabilities cannot be compared; give models of one family"
            )
    for subject in (one, other):
        if subject.kind == "endpoint":
            _check_endpoint(
                subject, tokenizer, texts[: 3 * _SAMPLED], first.place if first.tokenizer else str(name)
            )
    return tokenizer


def _check_endpoint(subject: Subject, tokenizer: Any, texts: list[str], of: str) -> None:
    """InputError where the server makes other tokens of ``texts``."""
    served: Any = subject.measured
    if any(served.token_ids(text) != ids for text, ids in zip(texts, _ids(tokenizer, texts), strict=True)):
        raise InputError(
            f"{subject.place} does not make the same tokens of the pairs as {of}; "
            "give the endpoint of a model of this family"
        )


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids
