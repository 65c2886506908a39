"""``trimtab demo judge``: a model's rulings on what people voted on, with cost and agreement."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from trimtab.artifacts.errors import InputError
from trimtab.demo.judge import JudgeResult, judge_votes
from trimtab.demo.strengths import scoreboard
from trimtab.demo.votes import Vote, VoteStore
from trimtab.judge.cache import JudgeCache
from trimtab.recipes.demo import DemoSection


def run(section: DemoSection, store: Path, limit: int | None, *, as_json: bool) -> int:
    """Judge and print; 1 where the judge failed. InputError without a judge or without votes."""
    if section.judge is None:
        raise InputError(
            "the recipe names no judge; give demo.judge.url=http://HOST:PORT/v1 demo.judge.model=NAME "
            "(its key comes from TRIMTAB_JUDGE_KEY, or from the variable demo.judge.key_env names)"
        )
    with VoteStore(store, existing=True) as opened:
        votes = opened.all()
    path = section.judge.cache_path(store.parent)
    with JudgeCache(path) as cache, tqdm(desc="judge", unit="pair", file=sys.stderr, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = asyncio.run(judge_votes(section.judge, votes, cache, limit=limit, progress=progress))
    if as_json:
        print(json.dumps(as_content(result), indent=1, ensure_ascii=False))
    else:
        _print(result, votes)
    return 1 if result.rulings["failed"] else 0


def as_content(result: JudgeResult) -> dict[str, Any]:
    """The result as ``--json`` prints it."""
    return {
        "model": result.model,
        "rulings": dict(result.rulings),
        "arms": {
            arm: dict(zip(("wins", "no_winner", "losses"), counts, strict=True))
            for arm, counts in result.by_arm().items()
        },
        "spent": asdict(result.spent),
        "agreement": asdict(result.accord),
        "judged": [
            {
                "vote": each.comparison.vote.id,
                "first": each.comparison.first,
                "second": each.comparison.second,
                "ruling": each.ruled.ruling,
                "said": list(each.ruled.said),
                "error": each.ruled.error,
            }
            for each in result.judged
        ],
    }


def _print(result: JudgeResult, votes: list[Vote]) -> None:
    table = Table("arm", title=f"judged by {result.model}: {len(result.judged)} comparisons, both orders each")
    for column in ("wins", "no winner", "losses"):
        table.add_column(column, justify="right")
    for arm, counts in result.by_arm().items():
        table.add_row(arm, *map(str, counts))
    Console().print(table)
    rulings = result.rulings
    print(
        f"consistent winners: {rulings['first'] + rulings['second']}, ties: {rulings['tie']}, "
        f"other order, other winner: {rulings['inconsistent']}, unreadable: {rulings['unreadable']}, "
        f"failed: {rulings['failed']}"
    )
    print(result.spent.as_text())
    accord = result.accord
    if accord.share is None:
        print("agreement with people: no blind vote on these answers")
    else:
        kappa = "not defined" if accord.kappa is None else f"{accord.kappa:.2f}"
        print(
            f"agreement with people: {accord.share:.0%} of {accord.judgements} judgements, Cohen's kappa {kappa}"
        )
        among = scoreboard(votes, resamples=1).agreement.share
        print(f"people among themselves: {'no two on the same answers' if among is None else f'{among:.0%}'}")
    error = next((each.ruled.error for each in result.judged if each.ruled.error), None)
    if error:
        print(f"the judge failed: {error}")
