"""A judge of arms' answers, over HTTP: a row for each pair of arms, what it cost, what it could not say."""

import json
from pathlib import Path
from typing import Any

import pytest
from experiment import free_port
from judge_rules import first, longer, silent
from logprob_endpoint import Answer, chat_answer, endpoint

from trimtab.artifacts.errors import GateError
from trimtab.compare.judge import judge_arms
from trimtab.compare.page_tables import win_matrix
from trimtab.recipes.compare import ArmJudgeSection

ANSWERS = {"base": ["bad", "bad", "equal", "size"], "orpo": ["better", "better", "equal", "same"]}
PROMPTS = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{n}?"}] for n in range(4)]


def rows(answer: Answer, run_dir: Path, **more: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    with endpoint(answer) as served:
        section = ArmJudgeSection.model_validate({"url": served.url, "model": "j"} | more)
        return judge_arms(section, PROMPTS, ANSWERS, run_dir), served.requests


def test_the_better_answer_wins_in_both_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIMTAB_JUDGE_KEY", "secret")
    (row,), requests = rows(longer, tmp_path, prices={"prompt": 1, "answer": 1})
    assert row == {
        "one": "orpo",
        "other": "base",
        "judge": "j",
        "prompts": 4,
        "won": [1, 1, 0.5, 0.5],
        "longer": [0, 0, 0, 0],
        "swayed": 0,
        "unreadable": 0,
    }
    assert len(requests) == 6  # equal answers are a tie
    assert {headers["authorization"] for headers, _ in requests} == {"Bearer secret"}
    assert all("system: Be brief.\nuser: " in body["messages"][-1]["content"] for _, body in requests)
    told = capsys.readouterr().out
    assert told == "judge j: asked: 6, cached: 0; 6000 + 36 tokens, 0.0060 USD\n"
    assert "secret" not in json.dumps(row) + told + (tmp_path / "judge.sqlite").read_bytes().decode("latin1")


def test_a_judge_that_goes_by_the_order_decides_nothing(tmp_path: Path) -> None:
    (row,), _ = rows(first, tmp_path, prompts=2)
    assert (row["won"], row["swayed"], row["prompts"]) == ([0.5, 0.5], 1, 2)


def test_a_tie_in_one_order_is_a_tie_and_no_swaying(tmp_path: Path) -> None:
    said = iter(["1", "tie"])
    (row,), _ = rows(lambda request: chat_answer(f"Verdict: {next(said)}"), tmp_path, prompts=1)
    assert (row["won"], row["swayed"], row["unreadable"]) == ([0.5], 0, 0)


def test_no_verdict_is_a_tie_that_is_told(tmp_path: Path) -> None:
    (row,), _ = rows(silent, tmp_path)
    assert (row["won"], row["swayed"], row["unreadable"]) == ([0.5] * 4, 0, 3)
    half = dict.fromkeys(("low", "high", "controlled", "controlled_low", "controlled_high", "votes"))
    half |= {"rate": 0.5}
    wins = [half | {"one": "orpo", "other": "base", "judge": row | half}]
    page = win_matrix({"figures": {"base": {}, "orpo": {}}, "wins": wins})
    assert page.count("judge unreadable: 3 of 4") == 2


def test_lengths_are_in_words_of_the_first_arms_answer(tmp_path: Path) -> None:
    said = {"base": ["one two", "a"], "orpo": ["one", "a, b and c"]}
    with endpoint(longer) as served:
        section = ArmJudgeSection(url=served.url, model="j")
        (row,) = judge_arms(section, PROMPTS[:2], said, tmp_path)
    assert row["longer"] == [-1, 3]


def test_a_judge_that_fails_is_an_error_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_refused(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        refused = "user: 1?" in request["messages"][-1]["content"]
        return (400, {"error": {"message": "too long"}}) if refused else longer(request)

    works = [False]
    with endpoint(lambda request: (longer if works[0] else one_refused)(request)) as served:
        section = ArmJudgeSection(url=served.url, model="j")
        with pytest.raises(GateError, match=r"the judge http\S+ failed on 1 of 4 comparisons: too long; .*judge"):
            judge_arms(section, PROMPTS, ANSWERS, tmp_path)
        assert "asked: 4, cached: 0" in capsys.readouterr().out
        works[0] = True
        (row,) = judge_arms(section, PROMPTS, ANSWERS, tmp_path)
    assert "asked: 2, cached: 4" in capsys.readouterr().out
    assert row["won"] == [1, 1, 0.5, 0.5]


def test_a_judge_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.judge.ruling._PAUSES", ())
    section = ArmJudgeSection(url=f"http://127.0.0.1:{free_port()}/v1", model="j")
    with pytest.raises(GateError, match=r"the judge http.*cannot be reached"):
        judge_arms(section, PROMPTS[:1], ANSWERS, tmp_path)
