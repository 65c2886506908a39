"""Votes as preference pairs for the next training, by rules that docs/demo.md states and that a report counts."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.data.check.template import MARKERS
from trimtab.data.pair import Pair, RowError, make_pair, turn
from trimtab.data.write import check_target, pair_writer
from trimtab.demo.strengths import Comparison, comparisons
from trimtab.demo.votes import Vote

Messages = tuple[tuple[str, str], ...]
Key = tuple[Messages, str, str]  # the prompt, and two texts in their own order


@dataclass
class ExportReport:
    """``votes`` that were read, ``pairs`` that were written of ``judgements`` (a rater's verdict on two answers);
    ``left_out``: votes or comparisons, by the rule."""

    votes: int = 0
    judgements: int = 0
    pairs: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def as_text(self) -> str:
        """Lines for a terminal."""
        lines = [f"{self.pairs} pairs from {self.judgements} judgements in {self.votes} votes"]
        lines += [f"  left out: {count} {rule}" for rule, count in sorted(self.left_out.items())]
        if not self.pairs:
            lines.append("nothing was written: vote blind for answers that differ, then give the same command")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Side:
    """One answer of a comparison."""

    text: str
    arm: str
    artifact: dict[str, Any]


@dataclass(frozen=True)
class _Judgement:
    """What a vote says of two answers; ``better`` is the text preferred, None for a tie."""

    vote: Vote
    sides: tuple[_Side, _Side]
    better: str | None


def export(votes: list[Vote], target: Path, *, force: bool = False) -> ExportReport:
    """Write the pairs of ``votes`` to ``target`` (.jsonl); without a pair nothing is written.

    InputError when ``target`` cannot be written, or is there without ``force``.
    """
    check_target(target, force=force)
    pairs, report = pairs_of(votes)
    if pairs:
        with pair_writer(target) as write:
            for pair in pairs:
                write(pair)
    return report


def pairs_of(votes: list[Vote]) -> tuple[list[Pair], ExportReport]:
    """The pairs, in the order of their first votes, and what was left out."""
    report = ExportReport(votes=len(votes))
    judged: dict[Key, list[_Judgement]] = defaultdict(list)
    for vote in sorted(votes, key=lambda each: (each.created, each.id)):
        if not vote.blind:
            report.left_out["votes that were not blind"] += 1
            continue
        report.left_out["answers that failed"] += sum(bool(answer.error) for answer in vote.answers.values())
        for comparison in comparisons(vote):
            if rule := _left_out_comparison(comparison):
                report.left_out[rule] += 1
                continue
            judgement = _judgement(comparison)
            judged[_key(judgement)].append(judgement)
            report.judgements += 1
    decided = [pair for judgements in judged.values() if (pair := _decided(judgements, report))]
    pairs = _without_circles(decided, report)
    report.pairs = len(pairs)
    return pairs, report


def _left_out_comparison(comparison: Comparison) -> str | None:
    answers = [comparison.vote.answers[arm] for arm in (comparison.first, comparison.second)]
    if any(answer.finish_reason == "length" for answer in answers):
        return "comparisons with an answer cut at the token limit"
    if any(answer.finish_reason != "stop" or not answer.text.strip() for answer in answers):
        return "comparisons with an answer that failed, was stopped or is empty"
    if comparison.texts[0] == comparison.texts[1]:
        return "comparisons of equal answers"
    if any(MARKERS.search(text) for text in (comparison.prompt, *comparison.texts)):
        return "comparisons with text like a chat template's control tokens"
    return None


def _judgement(comparison: Comparison) -> _Judgement:
    first, second = (
        _Side(text, arm, comparison.vote.artifacts.get(arm, {}))
        for arm, text in zip((comparison.first, comparison.second), comparison.texts, strict=True)
    )
    better = {"first": first.text, "second": second.text, "tie": None}[comparison.outcome]
    return _Judgement(comparison.vote, (first, second), better)


def _key(judgement: _Judgement) -> Key:
    prompt = tuple((message["role"], message["content"]) for message in judgement.vote.prompt)
    one, other = sorted(side.text for side in judgement.sides)
    return prompt, one, other


def _decided(judgements: list[_Judgement], report: ExportReport) -> Pair | None:
    """One pair of all judgements of the same two answers; None where no answer has most raters behind it."""
    last = {each.vote.rater: each for each in judgements}  # a rater who judges again has changed their mind
    report.left_out["judgements that their rater gave again later"] += len(judgements) - len(last)
    counts = Counter(each.better for each in last.values())
    better, votes_for = counts.most_common(1)[0]
    if set(counts) == {None}:
        report.left_out["judgements that prefer nothing (tie, all bad, equals)"] += len(last)
        return None
    if better is None or 2 * votes_for <= len(last):
        report.left_out["judgements of raters who are divided"] += len(last)
        return None
    behind = [each for each in last.values() if each.better == better]
    report.left_out["judgements that a majority overrules"] += len(last) - len(behind)
    worse = next(side.text for side in behind[0].sides if side.text != better)
    report.left_out["judgements merged with an equal one"] += len(behind) - 1
    try:
        return make_pair(
            [dict(message) for message in behind[0].vote.prompt],
            [turn("assistant", better, "chosen")],
            [turn("assistant", worse, "rejected")],
            {"provenance": _provenance(better, worse, behind, list(last.values()))},
        )
    except RowError as error:
        report.left_out[f"pairs that cannot be trained on: {error}"] += 1
        return None


def _provenance(
    better: str, worse: str, behind: list[_Judgement], all_of_them: list[_Judgement]
) -> dict[str, Any]:
    """Where a row comes from, in one form for all rows. No rater can be told from it."""
    sampling = dict.fromkeys(
        tuple((key, each.vote.sampling.get(key)) for key in ("temperature", "top_p", "max_tokens", "seed"))
        for each in behind
    )
    return {
        "source": "trimtab demo votes",
        "votes": [each.vote.id for each in behind],
        "raters_for": len(behind),
        "raters_against": sum(each.better not in (better, None) for each in all_of_them),
        "raters_tied": sum(each.better is None for each in all_of_them),
        "chosen": _artifacts(better, behind),
        "rejected": _artifacts(worse, behind),
        "sampling": [dict(each) for each in sampling],
        "first_vote": behind[0].vote.created,
        "last_vote": behind[-1].vote.created,
    }


def _artifacts(text: str, behind: list[_Judgement]) -> list[dict[str, Any]]:
    """What gave ``text``: several arms, or versions of one, may say the same."""
    sides = [side for each in behind for side in each.sides if side.text == text]
    found = {(side.arm, side.artifact.get("artifact"), side.artifact.get("digest")): None for side in sides}
    return [{"arm": arm, "artifact": kind, "digest": digest} for arm, kind, digest in found]


def _without_circles(pairs: list[Pair], report: ExportReport) -> list[Pair]:
    """Majorities of one prompt may prefer in a circle (A to B, B to C, C to A): none of these pairs is kept."""
    worse_than: dict[tuple[Messages, str], set[str]] = defaultdict(set)
    for pair in pairs:
        worse_than[_asked(pair), pair.answers[0]].add(pair.answers[1])
    kept = [pair for pair in pairs if not _leads_to(worse_than, _asked(pair), pair.answers[1], pair.answers[0])]
    report.left_out["pairs that prefer in a circle"] += len(pairs) - len(kept)
    report.left_out = +report.left_out
    return kept


def _asked(pair: Pair) -> Messages:
    return tuple((message["role"], message["content"]) for message in pair.prompt)


def _leads_to(worse_than: dict[tuple[Messages, str], set[str]], prompt: Messages, start: str, end: str) -> bool:
    """Whether ``start`` is, by steps, better than ``end``."""
    seen, waiting = set[str](), [start]
    while waiting:
        text = waiting.pop()
        if text == end:
            return True
        if text not in seen:
            seen.add(text)
            waiting += worse_than.get((prompt, text), ())
    return False
