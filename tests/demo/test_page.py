"""The page without a browser: figures, panes, answers under way, links, logins, and how failures are shown."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from browser import served
from chat_endpoint import STYLED, SmallEndpoint, chat_endpoint
from fastapi import FastAPI
from fastapi.testclient import TestClient
from openai import AsyncOpenAI

from trimtab.artifacts.errors import InputError
from trimtab.data.read import read_pairs
from trimtab.demo import build
from trimtab.demo.access import LOGINS_PER_MINUTE, Logins, Visitors
from trimtab.demo.answer_card import Face, Shown, answer_card
from trimtab.demo.arm import Arm, arms_of
from trimtab.demo.closed_api import closed_api
from trimtab.demo.diff import length_difference, word_diff
from trimtab.demo.examples import found
from trimtab.demo.figures import figures
from trimtab.demo.links import Linked, read_link, write_link
from trimtab.demo.look import look
from trimtab.demo.running import Running
from trimtab.demo.safe_markdown import safe_html
from trimtab.demo.sampling import Sampling
from trimtab.demo.stream import Progress, stream_answer

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def endpoint() -> Iterator[SmallEndpoint]:
    with chat_endpoint() as up:
        yield up


def collected(url: str, model: str, sampling: Sampling) -> list[Progress]:
    async def collect() -> list[Progress]:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        return [progress async for progress in stream_answer(client, model, HI, sampling)]

    return asyncio.run(collect())


def test_the_line_under_an_answer() -> None:
    writing = Progress("x", tokens=11, first_token_s=0.5, elapsed_s=1.5)
    assert figures(writing) == ["11 tokens", "first after 0.50 s", "10.0 tokens/s"]
    assert figures(writing, blind=True) == ["11 tokens"]
    cut = Progress("Yes.", tokens=1, first_token_s=0.5, elapsed_s=1.5, finish_reason="length", done=True)
    assert figures(cut)[0] == "1 token"
    assert figures(cut)[-2:] == [
        "cut at the token limit",
        "✗ style 2/4: 0 bullet points, not two or three",
    ]
    assert figures(cut, style=False)[-1] == "cut at the token limit"
    whole = Progress(STYLED, tokens=40, first_token_s=0.1, elapsed_s=1, finish_reason="stop", done=True)
    assert figures(whole)[-2:] == ["finished", "✓ chosen style"]
    assert "style" not in str(figures(cut.stopped()))


def test_an_answer_streams_with_its_figures(endpoint: SmallEndpoint) -> None:
    *growing, last = collected(endpoint.url, "orpo", Sampling(max_tokens=6, seed=3))
    assert [each.tokens for each in growing] == [1, 2, 3, 4, 5, 6]
    assert last.text == "Keep basil in a glass of"
    assert (last.tokens, last.finish_reason, last.done, last.error) == (6, "length", True, None)
    assert last.first_token_s == growing[0].first_token_s
    assert endpoint.asked[0]["seed"] == 3


def test_failures_are_the_last_item(endpoint: SmallEndpoint) -> None:
    (away,) = collected("http://127.0.0.1:9/v1", "orpo", Sampling())
    assert "cannot be reached" in (away.error or "")
    endpoint.failing = {"dpo"}
    (refused,) = collected(endpoint.url, "dpo", Sampling())
    assert refused.error == "the engine of dpo is not up"
    endpoint.breaking = {"orpo"}
    *_, broken = collected(endpoint.url, "orpo", Sampling())
    assert (broken.error, broken.done) == ("the engine of orpo ended", True)
    assert broken.text.startswith("Keep basil")


def test_stopping_keeps_what_has_come_and_closes_the_request(endpoint: SmallEndpoint) -> None:
    endpoint.pause["orpo"] = 5.0

    async def go() -> list[tuple[Progress, ...]]:
        client, running = AsyncOpenAI(base_url=endpoint.url, api_key="none"), Running()
        seen = []
        source = stream_answer(client, "orpo", HI, Sampling())
        async for latest in running.follow("me", [source]):
            seen.append(latest)
            await running.stop("another")
            if latest[0].text:
                await running.stop("me")
        assert not running._tasks
        return seen

    last = asyncio.run(go())[-1][0]
    assert (last.text, last.finish_reason, last.done, last.error) == ("Keep", "stopped", True, None)
    assert endpoint.left == ["orpo"]


def test_each_source_is_followed_by_itself() -> None:
    async def source(text: str, release: asyncio.Event) -> AsyncIterator[Progress]:
        yield Progress(text)
        await release.wait()
        yield Progress(text * 2, done=True)

    async def go() -> list[tuple[str, ...]]:
        first, second = asyncio.Event(), asyncio.Event()
        first.set()
        seen = []
        async for latest in Running().follow("me", [source("a", first), source("b", second)]):
            seen.append(tuple(each.text for each in latest))
            if latest[0].done:
                second.set()
        return seen

    seen = asyncio.run(go())
    assert ("aa", "b") in seen
    assert seen[-1] == ("aa", "bb")


def test_markdown_is_safe() -> None:
    bad = (
        "<script>x</script> <img src=x onerror=y> ![p](http://e.org/p.png) [a](javascript:x) [b](vbscript:x) "
        "[c](data:text/html,x) [d](https://e.org) <https://e.org/auto> [e](JaVaScRiPt:x)"
        "\n\n<div onclick=x>\n\n# Top"
    )
    made = safe_html(bad)
    assert set(re.findall(r"<([a-z0-9]+)", made)) == {"p", "a", "h4"}
    assert re.findall(r'href="([^"]+)"', made) == ["http://e.org/p.png", "https://e.org", "https://e.org/auto"]
    assert made.count('rel="noopener noreferrer nofollow"') == 3
    table = safe_html("| a | b |\n|---|---|\n| 1 | ~~2~~ |")
    assert "<td>1</td>" in table
    assert "<s>2</s>" in table


def test_cards_escape_and_hide() -> None:
    arm = Arm("orpo", "orpo", "http://e/v1", "gptq", "sha256:0123456789", 4, "orpo", 0.1)
    done = Shown(answers=(Progress("<b>x</b>", 1, 0.1, 0.2, "stop", done=True),))
    named = answer_card(Face("ORPO", arm), done)
    assert "GPTQ 4-bit" in named
    assert "01234567<" in named
    blind = answer_card(Face("A"), done)
    assert "ORPO" not in blind
    assert "GPTQ" not in blind
    assert "&lt;b&gt;" in blind
    failed = answer_card(Face("<i>"), Shown(answers=(Progress(done=True, error="<no>"),)))
    assert 'data-state="failed"' in failed
    assert "&lt;no&gt;" in failed
    assert "<i>" not in failed


def test_differences_by_word() -> None:
    assert word_diff("a glass of water", "a jar of <water>") == (
        "a <del>glass </del><ins>jar </ins>of <ins>&lt;</ins>water<ins>&gt;</ins>"
    )
    assert word_diff("same\n\ntext", "same text") == "same text"
    assert length_difference("a b c", "a", "Base") == "2 words shorter than Base"
    assert length_difference("a", "a b", "Base") == "1 word longer than Base"
    assert length_difference("a", "b", "Base") == "as long as Base"


def test_links_go_there_and_back() -> None:
    arms, usual = ("orpo", "dpo", "base"), Sampling()
    linked = Linked("judge", "Why?\n&é", "Be brief.", ("orpo",), Sampling(0.5, 0.9, 9, 3), 2)
    query = write_link(linked, arms, usual)
    assert query.startswith("?view=judge&")
    from urllib.parse import parse_qsl

    assert read_link(dict(parse_qsl(query[1:])), arms, usual, 5) == linked
    assert write_link(Linked("compare", "", "", arms, usual), arms, usual) == "?view=compare"
    odd = read_link({"view": "x", "arms": "none", "temperature": "99", "repeats": "7"}, arms, usual, 5)
    assert odd == Linked("compare", "", "", arms, usual, 5)
    assert read_link({"seed": "NaN"}, arms, usual, 5).sampling == usual
    assert read_link({"temperature": "nan"}, arms, usual, 5).sampling == usual
    with pytest.raises(InputError, match="6,000 characters"):
        write_link(Linked(prompt="x" * 6001), arms, usual)


def test_examples_are_found_by_words() -> None:
    pairs = read_pairs("sample/heldout")
    hits = found(pairs, "breaker FUSE")
    assert all("breaker" in text.lower() and "fuse" in text.lower() for text, _ in hits)
    assert hits
    assert found(pairs, "no such words here") == []
    assert len(found(pairs * 3, "")) == 3 * len(pairs)


def test_logins(tmp_path: Path) -> None:
    file = tmp_path / "logins"
    file.write_text("# people\nada:a:b\n\nbob:x\n")
    file.chmod(0o600)
    logins = Logins(file)
    assert logins("ada", "a:b")
    assert logins("bob", "x")
    assert not logins("ada", "x")
    assert not logins("eve", "")
    for _ in range(LOGINS_PER_MINUTE):
        logins("bob", "guess")
    assert not logins("bob", "x")
    for text, said in (("ada\n", "line 1"), ("# nobody\n", "names nobody"), ("ada:\n", "line 1")):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            Logins(file)
    file.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        Logins(file)
    with pytest.raises(InputError, match="cannot be read"):
        Logins(tmp_path / "none")


def test_visitors_are_limited_each_by_themselves() -> None:
    def visitor(name: str | None, host: str = "10.0.0.1") -> Any:
        return SimpleNamespace(username=name, client=SimpleNamespace(host=host))

    async def go() -> None:
        visitors = Visitors(5)
        assert await visitors.refusal(visitor("ada"), 3) is None
        assert await visitors.refusal(visitor("ada"), 2) is None
        assert "ask again in" in (await visitors.refusal(visitor("ada")) or "")
        assert await visitors.refusal(visitor("bob"), 5) is None
        assert await visitors.refusal(visitor(None), 5) is None
        assert await visitors.refusal(visitor(None, "10.0.0.2"), 5) is None
        assert "at once" in (await visitors.refusal(visitor("eve"), 6) or "")
        unlimited = Visitors()
        assert [await unlimited.refusal(visitor("ada"), 1000) for _ in range(3)] == [None] * 3

    asyncio.run(go())


def test_page_has_a_pane_an_arm_and_no_open_api(endpoint: SmallEndpoint, tmp_path: Path) -> None:
    page = build(endpoint.url, examples=read_pairs("sample/heldout")[:3], votes=tmp_path / "votes.sqlite")
    ids = {block.elem_id for block in page.blocks.values()}
    assert {"prompt", "send", "pane-orpo", "pane-dpo", "pane-base", "reference", "judge", "scoreboard"} <= ids
    assert page.get_api_info()["named_endpoints"] == {}
    assert page.fns
    assert all(fn.api_visibility == "private" for fn in page.fns.values())
    bare = build(arms_of(endpoint.url, models=("orpo",)), open_api=True)
    ids = {block.elem_id for block in bare.blocks.values()}
    assert "judge" not in ids
    assert "pane-dpo" not in ids
    assert bare.get_api_info()["named_endpoints"]


def test_page_mounts_in_another_application(endpoint: SmallEndpoint) -> None:
    import gradio as gr

    page, closed = build(endpoint.url), {"middleware": closed_api()}
    application = gr.mount_gradio_app(FastAPI(), page, path="/compare", app_kwargs=closed, **look())
    with TestClient(application) as client:
        shown = client.get("/compare/")
        assert shown.status_code == 200
        assert "trimtabLink" in shown.text
        assert "tt-pane" in shown.text
        assert client.post("/compare/gradio_api/call/stream", json={"data": []}).status_code == 404
        assert client.get("/compare/gradio_api/info").json()["named_endpoints"] == {}
    opened = gr.mount_gradio_app(FastAPI(), build(endpoint.url, open_api=True), path="/compare", **look())
    with TestClient(opened) as client:
        assert client.get("/compare/gradio_api/info").json()["named_endpoints"]


def test_a_page_whose_streams_fail_to_be_woken_is_closed_all_the_same(endpoint: SmallEndpoint) -> None:
    """``asyncio.Event.set`` from another thread fails when a waiter leaves at that moment."""

    class Woken:
        calls = 0

        def set(self) -> None:
            Woken.calls += 1
            if Woken.calls == 1:
                raise RuntimeError("deque mutated during iteration")

    page = build(endpoint.url)
    with served(page) as address:
        page.app.stop_event = Woken()
        page.close(verbose=False)
        with pytest.raises(httpx.TransportError):
            httpx.get(address, timeout=5)
    assert Woken.calls == 2
