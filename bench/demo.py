"""What the page adds to an endpoint's first token: from the click to the word on the screen, in a browser.

An endpoint that writes its first word after a fixed time is asked in turn: by itself, over HTTP, until its first
token; and from the page, from the click on Compare until an answer's first word is painted. All three arms are
asked at once, as always; the slowest of them counts.

    python bench/demo.py --smoke    one round, no figure to quote
    python bench/demo.py --quick    a few rounds, under 50 seconds
    python bench/demo.py            the whole measurement, into bench/results

The line: milliseconds that the page adds (added_first_token_ms).
"""

import json
import statistics
import sys
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "demo"))
from browser import served
from chat_endpoint import SmallEndpoint, chat_endpoint
from chromium import chromium
from playwright.sync_api import Page
from results_file import forms, print_figures, spread, write_results

from trimtab.demo.page import build

ARMS = ("orpo", "dpo", "base")
SMOKE_ROUNDS, QUICK_ROUNDS, ROUNDS = 1, 8, 40
WARM_UP = 3  # rounds that are not counted
WAIT_S = 0.1  # the endpoint's own time to its first token
PAUSE_S = 0.05  # between words
_MEASURED = ("gradio", "openai", "httpx", "playwright")

# Resolves with the milliseconds from the click until every arm's pane shows a word, at the frame that paints it.
_CLICK = """() => new Promise((resolve) => {
  const words = () => [...document.querySelectorAll('#panes article')]
    .every((pane) => pane.querySelector('.tt-text > p:not(.tt-wait)'));
  const cleared = () => [...document.querySelectorAll('#panes article')].every((p) => p.dataset.state !== 'done');
  const began = performance.now();
  let fresh = cleared();
  const watch = new MutationObserver(() => {
    fresh = fresh || cleared();
    if (!fresh || !words()) return;
    watch.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - began)));
  });
  watch.observe(document.getElementById('panes'), { subtree: true, childList: true, attributes: true });
  document.querySelector('#send').click();
})"""


def direct_ms(client: httpx.Client, url: str) -> float:
    """Milliseconds until the endpoint's first token, the three arms one after the other; the median of them."""
    times = []
    for arm in ARMS:
        body = {"model": arm, "messages": [{"role": "user", "content": "x"}], "max_tokens": 3, "stream": True}
        began = time.perf_counter()
        with client.stream("POST", f"{url}/chat/completions", json=body) as answer:
            written = [time.perf_counter() for line in answer.iter_lines() if '"content"' in line]
            times.append(1000 * (written[0] - began))
    return statistics.median(times)


def page_ms(tab: Page) -> float:
    """Milliseconds from the click until all three arms show a word."""
    tab.locator("#fresh").evaluate("button => button.click()")
    tab.wait_for_function(
        "[...document.querySelectorAll('#panes article')].every(one => one.dataset.state === 'empty')"
    )
    tab.locator("#prompt textarea").fill("How do I keep basil fresh?")
    tab.wait_for_timeout(200)
    took = float(tab.evaluate(_CLICK))
    tab.wait_for_function(
        "[...document.querySelectorAll('#panes article')].every(one => one.dataset.state === 'done')"
    )
    return took


def measure(rounds: int) -> dict[str, list[float]]:
    """Both in turn, ``rounds`` times after those that are not counted."""
    figures: dict[str, list[float]] = {"direct_ms": [], "page_ms": []}
    with chat_endpoint() as endpoint, served(build(endpoint.url)) as url, chromium() as browser:
        slow_start(endpoint)
        tab = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
        tab.goto(url)
        tab.locator("#send").wait_for()
        with httpx.Client() as client:
            for number in range(WARM_UP + rounds):
                direct, page = direct_ms(client, endpoint.url), page_ms(tab)
                if number >= WARM_UP:
                    figures["direct_ms"].append(direct)
                    figures["page_ms"].append(page)
    figures["added_first_token_ms"] = [
        page - direct for page, direct in zip(figures["page_ms"], figures["direct_ms"], strict=True)
    ]
    return figures


def slow_start(endpoint: SmallEndpoint) -> None:
    """The endpoint thinks before it writes."""
    endpoint.wait = WAIT_S
    endpoint.pause = dict.fromkeys(ARMS, PAUSE_S)
    endpoint.answers = dict.fromkeys(ARMS, "One two three four five six.")


def main() -> None:
    """Measure, print the figures; the whole measurement is written too."""
    given = forms(__doc__, "few rounds").parse_args()
    rounds = SMOKE_ROUNDS if given.smoke else QUICK_ROUNDS if given.quick else ROUNDS
    figures = measure(rounds)
    added = {"added_first_token_ms": statistics.median(figures["added_first_token_ms"])}
    if rounds == ROUNDS:
        content = {
            "arms": len(ARMS),
            "summary": {name: round(value, 1) for name, value in added.items()},
            "figures": {name: spread(values, 1) for name, values in figures.items()},
        }
        write_results("demo", _MEASURED, content)
    print(json.dumps({name: spread(values, 1) for name, values in figures.items()}), file=sys.stderr)
    print_figures(added, "smoke" if given.smoke else "")


if __name__ == "__main__":
    main()
