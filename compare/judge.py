"""What a language model as judge says of every two arms' answers (``compare.judge``)."""

import asyncio
from itertools import combinations
from pathlib import Path
from typing import Any

from trimtab.artifacts.errors import GateError
from trimtab.compare.texts import words
from trimtab.data.pair import Message
from trimtab.judge.cache import JudgeCache
from trimtab.judge.ruling import Question, Ruled, judge
from trimtab.recipes.compare import ArmJudgeSection

_WON = {"first": 1.0, "second": 0.0}  # all else is a tie


def judge_arms(
    section: ArmJudgeSection, prompts: list[list[Message]], answers: dict[str, list[str]], run_dir: Path
) -> list[dict[str, Any]]:
    """A row for each pair of arms: at each prompt whether the first one ``won`` (1, 0, a tie 0.5) and by how many
    words its answer is ``longer``; ``swayed``: how often the verdict followed the order instead of the answer, and
    ``unreadable``: on how many prompts there was none, which both count as ties. Prints what it cost. GateError
    when the judge fails; what it answered is kept."""
    arms = [(one, other) for other, one in combinations(answers, 2)]
    asked = [
        [Question(*each) for each in zip(prompts[: section.prompts], answers[one], answers[other], strict=False)]
        for one, other in arms
    ]
    path = section.cache_path(run_dir)
    with JudgeCache(path) as cache:
        ruled, spent = asyncio.run(judge(section, [each for questions in asked for each in questions], cache))
    print(f"judge {section.model}: {spent.as_text()}", flush=True)
    failed = [each.error for each in ruled if each.ruling == "failed"]
    if failed:
        raise GateError(
            f"the judge {section.url} failed on {len(failed)} of {len(ruled)} comparisons: {failed[0]}; "
            f"what it answered is kept in {path}, and the same command goes on there"
        )
    rest = iter(ruled)
    return [
        {"one": one, "other": other, "judge": section.model} | _ruled(questions, [next(rest) for _ in questions])
        for (one, other), questions in zip(arms, asked, strict=True)
    ]


def _ruled(questions: list[Question], ruled: list[Ruled]) -> dict[str, Any]:
    swayed = sum(set(each.said) == {"first", "second"} for each in ruled)
    return {
        "prompts": len(ruled),
        "won": [_WON.get(each.ruling, 0.5) for each in ruled],
        "longer": [len(words(each.first)) - len(words(each.second)) for each in questions],
        "swayed": swayed / len(ruled),
        "unreadable": sum(each.ruling == "unreadable" for each in ruled),
    }
