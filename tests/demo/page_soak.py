"""Twenty browsers on one page at once, for answers that fail, votes that are lost and memory that grows: exit 1.

.venv/bin/python tests/demo/page_soak.py                                   a page of its own, over a small endpoint
.venv/bin/python tests/demo/page_soak.py --url http://127.0.0.1:7860       a page that runs
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # run by itself, this folder alone is known
from browser import served
from chat_endpoint import chat_endpoint
from chromium import chromium
from playwright.sync_api import Browser, Page

from trimtab.demo.page import build
from trimtab.demo.votes import VoteStore

GROWTH = 0.15  # of this process's memory, from the first quarter to the last, that is allowed
PATIENCE_MS = 120_000


@contextmanager
def own_page(votes: Path) -> Iterator[str]:
    """A page over a small endpoint, both in this process."""
    with chat_endpoint() as endpoint, served(build(endpoint.url, votes=votes)) as url:
        yield url


def opened(browser: Browser, url: str, number: int) -> Page:
    """A browser of its own: nothing is shared with the others."""
    tab = browser.new_context(viewport={"width": 1000, "height": 800}).new_page()
    tab.set_default_timeout(PATIENCE_MS)
    tab.goto(f"{url}/?view={'judge' if number % 4 == 3 else 'compare'}")
    return tab


def ask(tab: Page, number: int, turn: int) -> str:
    """Ask in whichever view is open; the selector of its panes."""
    judging = number % 4 == 3
    # what is drawn anew has no mark
    tab.evaluate("document.querySelectorAll('article[data-state]').forEach(one => { one.dataset.old = 'old'; })")
    tab.locator("#judge-prompt textarea" if judging else "#prompt textarea").fill(
        f"Browser {number}, turn {turn}?"
    )
    tab.locator("#judge-send" if judging else "#send").click()
    return "#slots" if judging else "#panes"


def answered(tab: Page, panes: str) -> str | None:
    """Wait until every pane has ended, and vote where that is asked; what went wrong, None if nothing."""
    tab.wait_for_function(
        "(panes) => [...document.querySelectorAll(panes + ' [data-state]')].every(one => !one.dataset.old"
        " && ['done', 'failed', 'stopped'].includes(one.dataset.state))",
        arg=panes,
    )
    states = tab.locator(f"{panes} [data-state]").evaluate_all("each => each.map(one => one.dataset.state)")
    if set(states) != {"done"}:
        return f"panes ended as {states}"
    if panes == "#slots":
        tab.locator("#vote-best-0").click()
        tab.locator("[data-round=voted]").wait_for()
    return None


def load(browser: Browser, url: str, browsers: int, seconds: float) -> tuple[int, int, list[str], list[float]]:
    """Answers and votes that came, failures, and this process's memory after every turn, in MiB."""
    tabs = [opened(browser, url, number) for number in range(browsers)]
    end, turn = time.monotonic() + seconds, 0
    answers, votes, failures, memory = 0, 0, [], []
    while turn == 0 or time.monotonic() < end:
        asked = [ask(tab, number, turn) for number, tab in enumerate(tabs)]
        for number, (tab, panes) in enumerate(zip(tabs, asked, strict=True)):
            fault = answered(tab, panes)
            if fault:
                failures.append(f"browser {number}, turn {turn}: {fault}")
            answers, votes = answers + 1, votes + (panes == "#slots" and not fault)
        memory.append(psutil.Process().memory_info().rss / 2**20)
        turn += 1
    return answers, votes, failures, memory


def report(answers: int, votes: int, failures: list[str], memory: list[float]) -> int:
    """Print what was seen; the exit code."""
    for failure in failures[:10]:
        print(f"failed: {failure}")
    line = [f"questions={answers}", f"votes={votes}", f"failed={len(failures)}"]
    grown, quarter = 0.0, len(memory) // 4
    if quarter:
        first, last = statistics.median(memory[:quarter]), statistics.median(memory[-quarter:])
        grown = last / first - 1
        line += [f"rss_first_mib={first:.1f}", f"rss_last_mib={last:.1f}", f"growth={grown:.3f}"]
    print(" ".join(line))
    return int(bool(failures) or grown > GROWTH)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="many browsers on one page")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--browsers", type=int, default=20)
    parser.add_argument("--url", help="a page that runs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        if given.url:
            return report(*load(browser, given.url, given.browsers, 60 * given.minutes))
        store = Path(folder) / "votes.sqlite"
        with own_page(store) as url:
            answers, votes, failures, memory = load(browser, url, given.browsers, 60 * given.minutes)
        with VoteStore(store) as kept:
            if kept.count() != votes:
                failures.append(f"{votes} votes were acknowledged, {kept.count()} are kept")
        return report(answers, votes, failures, memory)


if __name__ == "__main__":
    sys.exit(main())
