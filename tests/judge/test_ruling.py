"""A judge over real HTTP: both orders, a win only where they agree, asked once, its cost, its failures."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from judge_rules import busy, first, longer, shown, silent
from logprob_endpoint import endpoint

from trimtab.judge.cache import JudgeCache, cache_key
from trimtab.judge.ruling import Question, Ruled, Spent, judge, ruling_of
from trimtab.recipes.judge import JudgeSection

PRICES = {"prompt": 2.0, "answer": 10.0, "currency": "EUR"}
PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}]
LONG = Question(PROMPT, "much longer", "short")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.judge.ruling._PAUSES", (0.0, 0.0))


def judged(url: str, questions: list[Question], cache: Path, **more: Any) -> tuple[list[Ruled], Spent]:
    section = JudgeSection.model_validate({"url": url, "model": "judge-1", "prices": PRICES} | more)
    with JudgeCache(cache) as opened:
        return asyncio.run(judge(section, questions, opened))


def test_a_win_counts_where_both_orders_agree(tmp_path: Path) -> None:
    questions = [LONG, Question(PROMPT, "tiny", "much longer"), Question(PROMPT, "same", "size")]
    with endpoint(longer) as served:
        ruled, spent = judged(served.url, questions, tmp_path / "c.sqlite")
        asked = Counter(shown(body) for _, body in served.requests)
    assert asked == Counter(
        [
            *[("much longer", "short"), ("short", "much longer")],
            *[("tiny", "much longer"), ("much longer", "tiny")],
            *[("same", "size"), ("size", "same")],
        ]
    )
    assert [each.ruling for each in ruled] == ["first", "second", "tie"]
    assert spent.asked == 6


def test_a_judge_that_prefers_a_place_decides_nothing(tmp_path: Path) -> None:
    with endpoint(first) as served:
        ruled, _ = judged(served.url, [LONG], tmp_path / "c.sqlite")
    assert ruled == [Ruled("inconsistent", ("first", "second"))]


def test_equal_answers_are_a_tie_and_nobody_is_asked(tmp_path: Path) -> None:
    with endpoint(first) as served:
        ruled, spent = judged(served.url, [Question(PROMPT, "same", "same")], tmp_path / "c.sqlite")
    assert ([each.ruling for each in ruled], spent.asked, served.requests) == (["tie"], 0, [])


@pytest.mark.parametrize(
    ("said", "ruling"),
    [
        (("first", "first"), "first"),
        (("second", "second"), "second"),
        (("tie", "tie"), "tie"),
        (("first", "tie"), "inconsistent"),
        (("second", "first"), "inconsistent"),
        (("first", None), "unreadable"),
    ],
)
def test_rulings_of_both_orders(said: tuple[str | None, str | None], ruling: str) -> None:
    assert ruling_of(said) == ruling


def test_cost_is_of_what_was_asked_now_and_a_second_run_asks_nothing(tmp_path: Path) -> None:
    with endpoint(longer) as served:
        _, once = judged(served.url, [LONG], tmp_path / "c.sqlite")
        _, again = judged(served.url, [LONG], tmp_path / "c.sqlite")
        number = len(served.requests)
        for change in (
            {"model": "judge-2"},
            {"criteria": "Be strict."},
            {"max_tokens": 9},
            {"fields": {"top_p": 1}},
        ):
            _, changed = judged(served.url, [LONG], tmp_path / "c.sqlite", **change)
            assert (changed.asked, changed.cached) == (2, 0), change
    assert (number, once.asked, once.cached, once.prompt_tokens, once.answer_tokens) == (2, 2, 0, 2000, 12)
    assert once.cost == pytest.approx((2000 * 2.0 + 12 * 10.0) / 1e6)
    assert (again.asked, again.cached, again.cost, again.currency) == (0, 2, 0.0, "EUR")
    assert once.as_text() == "asked: 2, cached: 0; 2000 + 12 tokens, 0.0041 EUR"


def test_fields_that_a_judge_refuses_can_be_left_out(tmp_path: Path) -> None:
    fields = {"max_tokens": None, "temperature": None, "max_completion_tokens": 900}
    with endpoint(longer) as served:
        judged(served.url, [LONG], tmp_path / "c.sqlite", fields=fields)
        (_, body), *_ = served.requests
    assert {key: body[key] for key in body if key != "messages"} == {
        "model": "judge-1",
        "seed": 0,
        "max_completion_tokens": 900,
    }
    with pytest.raises(ValueError, match="messages is set by Trimtab"):
        JudgeSection.model_validate({"url": "http://h", "model": "m", "fields": {"messages": []}})


def test_the_key_of_ones_own_endpoint_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "own")
    monkeypatch.delenv("TRIMTAB_JUDGE_KEY", raising=False)
    with endpoint(longer) as served:
        judged(served.url, [LONG], tmp_path / "1.sqlite")
        monkeypatch.setenv("TRIMTAB_JUDGE_KEY", "judge's")
        judged(served.url, [LONG], tmp_path / "2.sqlite")
        judged(served.url, [LONG], tmp_path / "3.sqlite", key_env="OPENAI_API_KEY")
    assert [headers.get("authorization") for headers, _ in served.requests] == [
        *[None, None],
        *["Bearer judge's"] * 2,
        *["Bearer own"] * 2,
    ]


def test_the_key_of_the_cache_is_of_everything() -> None:
    request = {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 0}
    keys = {
        cache_key(url, request | change)
        for url in ("http://a/v1", "http://b/v1")
        for change in ({}, {"model": "n"}, {"temperature": 1}, {"messages": []})
    }
    assert len(keys) == 8
    assert cache_key("u", {"a": 1, "b": 2}) == cache_key("u", {"b": 2, "a": 1})


def test_failures_are_told_and_not_kept(tmp_path: Path) -> None:
    with endpoint(busy) as served:
        ruled, spent = judged(served.url, [LONG, LONG], tmp_path / "c.sqlite", concurrency=1)
    assert (ruled, spent.asked) == ([Ruled("failed", error="slow down")] * 2, 0)
    assert len(served.requests) == 3 + 1  # twice more for the first question, then it is waited for no more
    with JudgeCache(tmp_path / "c.sqlite") as cache:
        assert cache._database.execute("SELECT count(*) FROM answers").fetchone() == (0,)


def test_a_judge_that_is_busy_is_asked_again_and_one_that_refuses_is_not(tmp_path: Path) -> None:
    waiting = [busy, lambda request: (502, {}), longer, longer]
    with endpoint(lambda request: waiting.pop(0)(request)) as served:
        ruled, spent = judged(served.url, [LONG], tmp_path / "busy.sqlite")
    assert ([each.ruling for each in ruled], spent.asked) == (["first"], 2)
    with endpoint(lambda request: (400, {"error": {"message": "too long"}})) as served:
        ruled, _ = judged(served.url, [LONG], tmp_path / "refuses.sqlite")
    assert (ruled, len(served.requests)) == ([Ruled("failed", error="too long")], 1)


def test_no_verdict_is_unreadable_and_what_is_not_counted_is_told(tmp_path: Path) -> None:
    with endpoint(silent) as served:
        ruled, spent = judged(served.url, [LONG], tmp_path / "c.sqlite")
    assert ([each.ruling for each in ruled], spent.uncounted) == (["unreadable"], 2)
    assert "(without 2 answers whose tokens were not told)" in spent.as_text()
