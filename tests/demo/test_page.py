"""The page without a browser: what stands under a pane, and how a failing endpoint is shown."""

import asyncio

from openai import AsyncOpenAI

from trimtab.data.read import read_pairs
from trimtab.demo import build
from trimtab.demo.page import describe
from trimtab.demo.stream import Progress, stream_answer


def test_the_line_under_a_pane() -> None:
    writing = Progress("x", tokens=11, first_token_s=0.5, elapsed_s=1.5)
    assert describe(writing) == "11 tokens · first after 0.5 s · 10.0 tokens/s"
    done = Progress("Yes.", tokens=2, first_token_s=0.5, elapsed_s=1.5, finish_reason="length", done=True)
    assert describe(done).endswith("✗ 0 bullet points, not two or three · cut at the token limit")
    assert describe(Progress(error="gone")) == "⚠️ gone"


def test_an_endpoint_that_is_away_is_shown_in_the_pane() -> None:
    async def collect() -> list[Progress]:
        client = AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0)
        return [progress async for progress in stream_answer(client, "orpo", "hi", 5)]

    (only,) = asyncio.run(collect())
    assert "cannot be reached" in (only.error or "")


def test_page_has_a_pane_an_arm_and_no_open_api() -> None:
    page = build("http://127.0.0.1:9/v1", ("orpo", "dpo", "base"), read_pairs("sample/heldout")[:3])
    ids = {block.elem_id for block in page.blocks.values()}
    assert {"prompt", "send", "pane-orpo", "pane-dpo", "pane-base", "reference", "examples"} <= ids
    assert page.get_api_info()["named_endpoints"] == {}
