"""A judge that is asked over HTTP, in both orders."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from experiment import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from trimtab.artifacts.errors import GateError
from trimtab.compare.judge import JUDGE_KEY, judge_arms, letter, outcome
from trimtab.recipes.compare import JudgeSection


@contextmanager
def judge_endpoint(rule: str) -> Iterator[tuple[str, list[dict]]]:
    """An OpenAI endpoint that prefers the answer with ``rule`` in it, or (``first``) whichever stands first."""
    asked: list[dict] = []

    async def complete(request: Request) -> JSONResponse:
        body = await request.json()
        asked.append(body | {"key": request.headers["authorization"]})
        text = body["messages"][1]["content"]
        first, second = (rule in text.split(f"<{side}>")[1].split(f"</{side}>")[0] for side in "AB")
        said = "A" if rule == "first" or (first and not second) else "B" if second and not first else "T"
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        return JSONResponse(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "j", "choices": [choice]}
        )

    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    try:
        yield f"http://127.0.0.1:{port}/v1", asked
    finally:
        server.should_exit = True
        thread.join()


ANSWERS = {"base": ["bad", "bad", "good"], "orpo": ["good", "good", "good"]}
PROMPTS = ["one?", "two?", "three?"]


def test_the_better_answer_wins_in_both_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JUDGE_KEY, "secret")
    with judge_endpoint("good") as (url, asked):
        (row,) = judge_arms(JudgeSection(base_url=url, model="j"), PROMPTS, ANSWERS)
    assert (row["one"], row["other"], row["prompts"]) == ("orpo", "base", 3)
    assert row["rate"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert row["swayed"] == 0
    assert len(asked) == 6
    assert {one["key"] for one in asked} == {"Bearer secret"}
    assert "secret" not in json.dumps(row)


def test_a_judge_that_goes_by_the_order_decides_nothing() -> None:
    with judge_endpoint("first") as (url, _):
        (row,) = judge_arms(JudgeSection(base_url=url, model="j", prompts=2), PROMPTS, ANSWERS)
    assert (row["rate"], row["swayed"], row["prompts"]) == (0.5, 1, 2)


def test_a_judge_that_fails_is_an_error() -> None:
    section = JudgeSection(base_url=f"http://127.0.0.1:{free_port()}/v1", model="j")
    with pytest.raises(GateError, match="the judge http"):
        judge_arms(section, PROMPTS[:1], ANSWERS)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("A", "B", (1.0, False)),
        ("B", "A", (0.0, False)),
        ("A", "A", (0.5, True)),
        ("T", "A", (0.5, False)),
        (None, "A", (0.5, False)),
    ],
)
def test_outcomes_of_both_orders(first: str | None, second: str, expected: tuple[float, bool]) -> None:
    assert outcome(first, second) == expected


def test_letters() -> None:
    assert (letter("A"), letter("The better one is B."), letter("Tie: T"), letter("neither")) == (
        "A",
        "B",
        "T",
        None,
    )
