"""Take README's picture of the page: `make demo` in one terminal, then `.venv/bin/python docs/screenshot.py`."""

import shutil
import sys

from playwright.sync_api import expect, sync_playwright

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
EXAMPLE = "how to give feedback to a teammate"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]

with sync_playwright() as playwright:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
    page = browser.new_page(viewport={"width": 1440, "height": 1240}, device_scale_factor=1)
    page.goto(ADDRESS)
    examples = page.locator("#examples").get_by_role("button")
    expect(examples.first).to_be_visible()
    chosen = examples.filter(has_text=EXAMPLE)
    (chosen if chosen.count() else examples).first.click()
    expect(page.locator("#chosen")).to_contain_text("Next step:")
    page.get_by_role("button", name="Compare").click()
    for figures in page.locator("[id^=figures-]").all():
        expect(figures).to_contain_text("tokens/s", timeout=180_000)
    page.wait_for_function(
        "[...document.querySelectorAll('[id^=figures-]')].every(f => /[✓✗]/.test(f.textContent))"
    )
    page.wait_for_timeout(1000)
    page.screenshot(path="docs/page.png")
    browser.close()
