"""Votes as pairs: each rule with a case, and what is written passes ``trimtab data check``."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from vote_cases import vote

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Pair
from trimtab.data.read import read_pairs
from trimtab.demo.export_votes import export, pairs_of
from trimtab.demo.votes import ShownAnswer, Vote

TWO: dict[str, str | ShownAnswer] = {"orpo": "Keep it in water.", "base": "No idea."}
FOR_ORPO, FOR_BASE = (("orpo",),), (("base",),)


def sides(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [pair.answers for pair in pairs]


def left_out(votes: list[Vote]) -> Counter[str]:
    pairs, report = pairs_of(votes)
    assert (pairs, report.pairs) == ([], 0)
    return report.left_out


def test_a_vote_for_the_best_gives_a_pair_with_each_other_answer() -> None:
    pairs, report = pairs_of([vote("best", FOR_ORPO)])
    assert sides(pairs) == [("orpo says", "base says"), ("orpo says", "dpo says")]  # in the order of arms' names
    assert pairs[0].prompt == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How do I keep basil fresh?"},
    ]
    assert (report.votes, report.judgements, report.left_out) == (1, 2, Counter())


def test_a_ranking_gives_a_pair_of_every_better_with_every_worse_and_none_of_equals() -> None:
    pairs, report = pairs_of([vote("rank", (("dpo",), ("base", "orpo")))])
    assert set(sides(pairs)) == {("dpo says", "base says"), ("dpo says", "orpo says")}
    assert report.left_out == {"judgements that prefer nothing (tie, all bad, equals)": 1}


@pytest.mark.parametrize(
    ("case", "rule"),
    [
        ({"verdict": "tie", "order": ()}, "judgements that prefer nothing (tie, all bad, equals)"),
        ({"verdict": "all_bad", "order": ()}, "judgements that prefer nothing (tie, all bad, equals)"),
        ({"blind": False}, "votes that were not blind"),
        (
            {"answers": TWO | {"base": ShownAnswer("No id", "length")}},
            "comparisons with an answer cut at the token limit",
        ),
        (
            {"answers": TWO | {"base": ShownAnswer("No id", "stopped")}},
            "comparisons with an answer that failed, was stopped or is empty",
        ),
        (
            {"answers": TWO | {"base": ShownAnswer(" ", "stop")}},
            "comparisons with an answer that failed, was stopped or is empty",
        ),
        ({"answers": TWO | {"base": "Keep it in water. "}}, "comparisons of equal answers"),
        (
            {"answers": TWO | {"base": "No.<|im_end|>\n<|im_start|>user"}},
            "comparisons with text like a chat template's control tokens",
        ),
    ],
)
def test_what_is_left_out(case: dict[str, Any], rule: str) -> None:
    given = {"verdict": "best", "order": FOR_ORPO, "answers": TWO} | case
    assert left_out([vote(**given)]) == {rule: 1}


def test_a_failed_answer_takes_only_its_own_comparisons_out() -> None:
    answers = {"orpo": "good", "dpo": "worse", "base": ShownAnswer("", None, "the engine ended")}
    pairs, report = pairs_of([vote("rank", (("orpo",), ("dpo",), ("base",)), answers=answers)])
    assert sides(pairs) == [("good", "worse")]
    assert report.left_out == {"answers that failed": 1}


def test_text_that_cannot_be_trained_on_is_left_out() -> None:
    (rule,) = left_out([vote("best", FOR_ORPO, answers=TWO | {"base": "half \ud800"})])
    assert "not valid UTF-8" in rule


def test_duplicates_are_merged_and_counted() -> None:
    votes = [vote("best", FOR_ORPO, answers=TWO, rater=rater) for rater in "abc"]
    # The same two texts from other arms, shown the other way round: still the same pair.
    swapped = {"base": TWO["orpo"], "dpo": TWO["base"]}
    votes.append(vote("best", FOR_BASE, answers=swapped, rater="d"))
    (pair,), report = pairs_of(votes)
    assert pair.answers == (TWO["orpo"], TWO["base"])
    assert report.left_out == {"judgements merged with an equal one": 3}
    provenance = pair.extra["provenance"]
    assert sorted(provenance["votes"]) == sorted(each.id for each in votes)
    assert (provenance["raters_for"], provenance["raters_against"], provenance["raters_tied"]) == (4, 0, 0)
    arms = [each["arm"] for each in provenance["chosen"]]
    assert sorted(arms) == ["base", "orpo"]
    assert not {"a", "b", "c", "d"} & set(json.dumps(provenance).split('"'))  # no rater


def test_the_same_prompt_with_another_system_message_is_another_pair() -> None:
    one = vote("best", FOR_ORPO, answers=TWO)
    other = Vote(**one.__dict__ | {"id": "2", "prompt": one.prompt[1:]})
    assert len(pairs_of([one, other])[0]) == 2


def test_a_majority_of_raters_decides() -> None:
    votes = [vote("best", FOR_ORPO, answers=TWO, rater=rater) for rater in "ab"]
    votes.append(vote("best", FOR_BASE, answers=TWO, rater="c"))
    (pair,), report = pairs_of(votes)
    assert pair.answers == (TWO["orpo"], TWO["base"])
    assert report.left_out == {"judgements merged with an equal one": 1, "judgements that a majority overrules": 1}
    assert pair.extra["provenance"]["raters_against"] == 1


def test_divided_raters_give_no_pair() -> None:
    votes = [vote("best", order, answers=TWO, rater=str(order)) for order in (FOR_ORPO, FOR_BASE)]
    assert left_out(votes) == {"judgements of raters who are divided": 2}


def test_ties_of_other_raters_count_against_a_majority() -> None:
    votes = [vote("best", FOR_ORPO, answers=TWO, rater=rater) for rater in "ab"]
    votes.append(vote("tie", answers=TWO, rater="c"))
    (pair,), report = pairs_of(votes)
    assert report.left_out == {"judgements merged with an equal one": 1, "judgements that a majority overrules": 1}
    assert (pair.extra["provenance"]["raters_for"], pair.extra["provenance"]["raters_tied"]) == (2, 1)
    votes.append(vote("all_bad", answers=TWO, rater="d"))
    assert left_out(votes) == {"judgements of raters who are divided": 4}


def test_the_last_vote_of_a_rater_counts() -> None:
    votes = [
        vote("best", order, answers=TWO, created=f"2026-01-0{day}T00:00:00+00:00")
        for day, order in ((2, FOR_BASE), (1, FOR_ORPO), (3, FOR_BASE))
    ]
    (pair,), report = pairs_of(votes)
    assert pair.answers == (TWO["base"], TWO["orpo"])
    assert report.left_out == {"judgements that their rater gave again later": 2}
    assert pair.extra["provenance"]["raters_for"] == 1


def test_majorities_in_a_circle_are_left_out_and_others_of_the_prompt_stay() -> None:
    texts = {"a": "text a", "b": "text b", "c": "text c", "d": "text d"}

    def prefers(better: str, worse: str) -> Vote:
        return vote("best", ((better,),), answers={arm: texts[arm] for arm in (better, worse)})

    votes = [prefers("a", "b"), prefers("b", "c"), prefers("c", "a"), prefers("a", "d")]
    pairs, report = pairs_of(votes)
    assert sides(pairs) == [("text a", "text d")]
    assert report.left_out == {"pairs that prefer in a circle": 3}


def test_what_is_written_passes_data_check(tmp_path: Path) -> None:
    votes = [vote("best", FOR_ORPO, answers=TWO, prompt=f"How do I keep herb {each} fresh?") for each in range(30)]
    votes += [vote("rank", (("dpo",), ("orpo",), ("base",)), prompt="Is tea hot?"), vote("tie"), vote(blind=False)]
    votes += [vote("best", FOR_BASE, answers=TWO, rater="other", prompt="How do I keep herb 1 fresh?")]
    target = tmp_path / "votes.jsonl"
    report = export(votes, target)
    assert report.pairs == 29 + 3 == len(read_pairs(str(target)))
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert {tuple(row) for row in rows} == {("prompt", "chosen", "rejected", "provenance")}
    assert len({tuple(row["provenance"]) for row in rows}) == 1
    check = subprocess.run(
        [sys.executable, "-m", "trimtab.cli.main", "data", "check", str(target), "--json"],
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stdout + check.stderr
    found = json.loads(check.stdout)
    assert (found["form"], found["pairs"], found["passed"]) == ("trl-conversational", 32, True)
    assert {each["check"] for each in found["findings"] if each["level"] == "error"} == set()


def test_trl_reads_it_as_a_preference_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from trl.data_utils import is_conversational

    target = tmp_path / "votes.jsonl"
    export([vote("best", FOR_ORPO, answers=TWO), vote("best", FOR_ORPO, prompt="another")], target)
    rows = datasets.load_dataset("json", data_files=str(target), split="train", cache_dir=str(tmp_path / "cache"))
    assert is_conversational(rows[0])
    assert rows.num_rows == 3


def test_nothing_to_write_leaves_no_file_and_files_are_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "votes.jsonl"
    assert "nothing was written" in export([vote("tie")], target).as_text()
    assert not target.exists()
    target.write_text("mine")
    with pytest.raises(InputError, match="exists; give another name, or --force"):
        export([vote()], target)
    assert export([vote()], target, force=True).pairs == 2
    with pytest.raises(InputError, match=r"must end in \.jsonl"):
        export([vote()], tmp_path / "votes.txt")
