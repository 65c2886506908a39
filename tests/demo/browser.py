"""A page on a free port, and what people do there."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page as Tab
from playwright.sync_api import expect

from trimtab.demo.page import Page

ARMS = ("orpo", "dpo", "base")


@contextmanager
def served(page: Page, **options: Any) -> Iterator[str]:
    """The page on a free port of loopback; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, **options)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        page.close(verbose=False)


def ask(tab: Tab, prompt: str = "How do I keep basil fresh?") -> None:
    """Ask all arms in the Compare view."""
    tab.locator("#prompt textarea").fill(prompt)
    tab.locator("#send").click()


def state(tab: Tab, arm: str, wanted: str) -> None:
    """Wait until the arm's pane is ``wanted``: busy, done, stopped, failed."""
    expect(tab.locator(f"#answer-{arm} article")).to_have_attribute("data-state", wanted, timeout=20_000)


def open_view(tab: Tab, address: str, view: str) -> None:
    """Open the page anew in ``view``."""
    tab.goto(f"{address}/?view={view}")
    expect(tab.get_by_role("tab", name=view.capitalize(), selected=True)).to_be_visible()


def rest(tab: Tab) -> None:
    """No field has the keyboard: keys are shortcuts."""
    tab.evaluate("document.activeElement.blur()")
