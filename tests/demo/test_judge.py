"""A judge of votes over real HTTP: each two texts once, wins by arm, its agreement with people."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from judge_rules import busy, first, longer, silent
from logprob_endpoint import endpoint
from vote_cases import vote

from trimtab.demo.agreement import cohen_kappa
from trimtab.demo.judge import JudgeResult, judge_votes
from trimtab.demo.votes import Vote, VoteStore
from trimtab.judge.cache import JudgeCache
from trimtab.recipes.judge import JudgeSection


def judged(url: str, votes: list[Vote], cache: Path) -> JudgeResult:
    with JudgeCache(cache) as opened:
        return asyncio.run(judge_votes(JudgeSection(url=url, model="judge-1"), votes, opened))


def two(long: str, short: str, prompt: str, better: str = "orpo", rater: str = "r1") -> Vote:
    """A blind vote for ``better``, of orpo's ``long`` and base's ``short``."""
    return vote("best", ((better,),), answers={"orpo": long, "base": short}, prompt=prompt, rater=rater)


def test_a_win_counts_where_both_orders_agree(tmp_path: Path) -> None:
    votes = [two("much longer", "short", "p1"), two("same", "size", "p2")]
    with endpoint(longer) as served:
        result = judged(served.url, votes, tmp_path / "c.sqlite")
    assert {each.comparison.prompt.split("\0")[-1]: each.ruled.ruling for each in result.judged} == {
        "p1": "second",  # arms in the order of their names: base, orpo
        "p2": "tie",
    }
    assert result.by_arm() == {"base": (0, 1, 1), "orpo": (1, 1, 0)}


def test_a_judge_that_prefers_a_place_wins_nobody_anything(tmp_path: Path) -> None:
    with endpoint(first) as served:
        result = judged(served.url, [two("a long one", "short", "p1")], tmp_path / "c.sqlite")
    assert result.rulings == {"inconsistent": 1}
    assert result.by_arm() == {"base": (0, 1, 0), "orpo": (0, 1, 0)}


def test_the_same_two_texts_are_judged_once(tmp_path: Path) -> None:
    votes = [two("much longer", "short", "p1"), two("much longer", "short", "p1", rater="r2")]
    with endpoint(longer) as served:
        result = judged(served.url, votes, tmp_path / "c.sqlite")
    assert (len(result.judged), len(served.requests), result.spent.asked) == (1, 2, 2)


def test_failures_are_not_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.judge.ruling._PAUSES", ())
    votes = [two("much longer", "short", "p1")]
    for answer, ruling in ((busy, "failed"), (silent, "unreadable")):
        with endpoint(answer) as served:
            result = judged(served.url, votes, tmp_path / f"{ruling}.sqlite")
        assert (result.rulings, result.by_arm(), result.accord.judgements) == ({ruling: 1}, {}, 0)


def test_agreement_with_people_by_hand(tmp_path: Path) -> None:
    votes = [
        two("much longer", "short", "p1", "orpo", "r1"),  # agrees
        two("much longer", "short", "p1", "base", "r2"),  # does not
        two("tiny", "a good deal longer", "p2", "base", "r1"),  # agrees
        two("same", "size", "p3", "orpo", "r1"),  # judge: tie
        Vote(**two("quite long", "no", "p4").__dict__ | {"blind": False}),  # is judged, and not compared
    ]
    with endpoint(longer) as served:
        result = judged(served.url, votes, tmp_path / "c.sqlite")
    assert len(result.judged) == 4
    assert (result.accord.judgements, result.accord.share) == (4, 0.5)
    # The better text's place in alphabetical order: "much longer", "short"; "a good", "tiny"; "same", "size".
    judge, people = ["one", "one", "one", None], ["one", "other", "one", "one"]
    assert result.accord.kappa == pytest.approx(cohen_kappa(list(zip(judge, people, strict=True))))
    assert result.accord.kappa == pytest.approx((0.5 - 0.75 * 0.75) / (1 - 0.75 * 0.75))


def test_the_command_prints_rulings_cost_and_agreement(tmp_path: Path) -> None:
    recipe, store = tmp_path / "recipe.yaml", tmp_path / "runs" / "small" / "votes.sqlite"
    recipe.write_text(json.dumps({"name": "small", "output_dir": str(tmp_path / "runs")}))
    with VoteStore(store) as opened:
        opened.add(two("much longer", "short", "p1"))
        opened.add(two("much longer", "short", "p1", rater="r2"))

    def command(*more: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", "trimtab.cli.main", "demo", "judge", str(recipe), *more]
        return subprocess.run(line, capture_output=True, text=True, env=os.environ | {"JUDGE_KEY": "secret-1"})

    missing = command()
    assert (missing.returncode, "names no judge" in missing.stderr) == (2, True)
    with endpoint(longer) as served:
        keys = ["demo.judge.model=m", f"demo.judge.url={served.url}", "demo.judge.key_env=JUDGE_KEY"]
        told = command(*keys, "demo.judge.prices={prompt: 1, answer: 1}")
        as_json = command(*keys, "--json")
        headers = {headers["authorization"] for headers, _ in served.requests}
    assert (told.returncode, headers) == (0, {"Bearer secret-1"}), told.stderr
    assert "consistent winners: 1, ties: 0" in told.stdout
    assert "asked: 2, cached: 0; 2000 + 12 tokens, 0.0020 USD" in told.stdout
    assert "agreement with people: 100% of 2 judgements" in told.stdout
    assert "people among themselves: 100%" in told.stdout
    assert json.loads(as_json.stdout)["spent"]["cached"] == 2
    assert "secret-1" not in told.stdout + told.stderr + store.with_name("judge.sqlite").read_bytes().decode(
        "latin1"
    )
