"""Fixtures: a real browser on a page over a small endpoint.

The browser ends with its module, not with the session: Playwright's event loop runs as long, and within it
``asyncio.run`` of the tests that follow fails.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from browser import served
from chat_endpoint import SmallEndpoint, chat_endpoint
from chromium import chromium
from playwright.sync_api import Browser, Page, expect

from trimtab.data.read import read_pairs
from trimtab.demo.page import build


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shared_endpoint() -> Iterator[SmallEndpoint]:
    with chat_endpoint() as up:
        yield up


@pytest.fixture
def endpoint(shared_endpoint: SmallEndpoint) -> SmallEndpoint:
    shared_endpoint.reset()
    return shared_endpoint


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("votes") / "votes.sqlite"


@pytest.fixture(scope="module")
def shared_address(shared_endpoint: SmallEndpoint, store: Path) -> Iterator[str]:
    page = build(shared_endpoint.url, examples=read_pairs("sample/heldout")[:12], votes=store)
    with served(page) as url:
        yield url


@pytest.fixture
def address(shared_address: str, endpoint: SmallEndpoint, store: Path) -> str:
    """The page over an endpoint as it was at first, and without votes."""
    with closing(sqlite3.connect(store, isolation_level=None)) as database:
        database.execute("DELETE FROM votes")
    return shared_address


@pytest.fixture
def tab(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    opened = context.new_page()
    opened.goto(address)
    expect(opened.locator("#send")).to_be_visible(timeout=20_000)
    yield opened
    context.close()
