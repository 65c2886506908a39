"""Take the pictures of README and docs/demo.md: `make demo` in one terminal, this in another, by .venv/bin/python.

Votes are cast to have a scoreboard: give the page a store of its own (demo.votes=FILE), or they are yours.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
PICTURES = Path(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parent / "demo")
EXAMPLE = "how to give feedback to a teammate"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
PATIENCE_MS = 300_000
VOTES = 6
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


def picked(tab: Page, view: str) -> None:
    """An example in ``view``: that of ``EXAMPLE`` where the data has it."""
    tab.locator(f"#{view}-examples input").click()
    tab.locator(f"#{view}-examples input").press_sequentially(EXAMPLE)
    if tab.get_by_role("option").count() == 0:
        tab.locator(f"#{view}-examples input").fill("")
    tab.get_by_role("option").first.click()


def settled(tab: Page, panes: str) -> None:
    """Wait until every pane has its answer."""
    tab.wait_for_function(
        "(panes) => [...document.querySelectorAll(panes + ' article')].every(one => one.dataset.state === 'done')",
        arg=panes,
        timeout=PATIENCE_MS,
    )
    tab.wait_for_timeout(500)


def compared(tab: Page) -> None:
    """Compare, with an example's answers beside."""
    picked(tab, "compare")
    expect(tab.locator("#reference .tt-chosen")).to_be_visible()
    tab.locator("#send").click()
    settled(tab, "#panes")


def judged(tab: Page) -> None:
    """Judge, before the vote."""
    picked(tab, "judge")
    expect(tab.locator("#judge-prompt textarea")).not_to_have_value("")
    tab.locator("#judge-send").click()
    expect(tab.locator("#vote-tie")).to_be_visible(timeout=PATIENCE_MS)


def voted(tab: Page) -> None:
    """Scoreboard, after votes for whichever answer keeps the chosen style."""
    tab.get_by_role("tab", name="Judge").click()
    for number in range(VOTES):
        if number or not tab.locator("#vote-tie").is_visible():
            tab.locator("#judge-next").evaluate("button => button.click()")
            expect(tab.locator("[data-round=open]")).to_be_attached(timeout=PATIENCE_MS)
            expect(tab.locator("#vote-tie")).to_be_visible(timeout=PATIENCE_MS)
        styled = [
            at for at, text in enumerate(tab.locator("#slots article").all_inner_texts()) if "Next step:" in text
        ]
        tab.locator(f"#vote-best-{styled[0]}" if styled else "#vote-none").click()
        expect(tab.locator("[data-round=voted]")).to_be_attached()
    tab.get_by_role("tab", name="Scoreboard").click()
    expect(tab.locator("#board tbody tr").first).to_be_visible()


def measured(tab: Page) -> None:
    """Preference of an example."""
    picked(tab, "preference")
    expect(tab.locator("#preference-chosen textarea")).not_to_have_value("")
    tab.locator("#measure").click()
    expect(tab.locator(".tt-scales").first).to_be_visible(timeout=PATIENCE_MS)


def batched(tab: Page) -> None:
    """A batch of three prompts."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.txt"
        file.write_text("How do I keep basil fresh?\nWhat is compost for?\nHow can I sleep better?\n")
        tab.locator("#batch-file input[type=file]").set_input_files(file)
        expect(tab.locator("#batch-file")).to_contain_text("prompts")
    tab.locator("#batch-run").click()
    expect(tab.locator("[data-batch=done]")).to_be_visible(timeout=PATIENCE_MS)


VIEWS = {"compare": compared, "judge": judged, "scoreboard": voted, "preference": measured, "batch": batched}


def main() -> None:
    """Every view at a desk, light and dark; Compare on a phone."""
    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        tab = browser.new_context(viewport=DESKTOP, color_scheme="light").new_page()
        for view, prepare in VIEWS.items():
            if view != "scoreboard":  # comes after Judge, with its round still open
                tab.goto(f"{ADDRESS}/?view={view}")
                expect(tab.get_by_role("tab", name=view.capitalize(), selected=True)).to_be_visible()
                tab.wait_for_timeout(1000)
            prepare(tab)
            for scheme in ("light", "dark"):
                tab.evaluate("dark => document.body.classList.toggle('dark', dark)", scheme == "dark")
                tab.wait_for_timeout(700)
                tab.screenshot(path=PICTURES / f"{view}-{scheme}.png", full_page=view in ("compare", "preference"))
            tab.evaluate("document.body.classList.remove('dark')")
        phone = browser.new_context(viewport=PHONE, device_scale_factor=2, is_mobile=True).new_page()
        phone.goto(ADDRESS)
        phone.wait_for_timeout(1000)
        compared(phone)
        phone.screenshot(path=PICTURES / "compare-phone.png")
        browser.close()


if __name__ == "__main__":
    main()
