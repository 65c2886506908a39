"""A page over the small endpoint, a real browser on it, what is done there, and what axe says of what it shows."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import axe_playwright_python
from playwright.sync_api import Browser, expect, sync_playwright
from playwright.sync_api import Page as Tab

from trimtab.demo.page import Page

ARMS = ("orpo", "dpo", "base")
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "no Chromium: run `make browser`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


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


def serious_faults(tab: Tab) -> list[str]:
    """What axe finds of impact serious or critical in what is shown: rule, impact, elements."""
    if not tab.evaluate("Boolean(window.axe)"):
        tab.evaluate(AXE.read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert found["passes"] or found["violations"] or found["incomplete"]
    return [
        f"{rule['id']} ({rule['impact']}): {[node['html'][:160] for node in rule['nodes'][:4]]}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]
