"""The page of a small comparison, opened from disk in a real browser: by width, in light and dark, printed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from chromium import chromium, serious_faults
from playwright.sync_api import Browser, BrowserContext, Page
from small_run import write_run

from trimtab.compare.page import render_page
from trimtab.compare.run import compare, load_report, report_dir

Scheme = Literal["light", "dark"]
SECTIONS = ["glance", "figures", "claims", "cost", "wins", "drift", "training", "answers", "made"]
SCRIPT = "Why <script>window.ran = true</script> & <b>how</b>?"
PRINTED = 688  # pixels between the margins of A4: 182 mm at 96 to the inch
# WCAG 2.2, success criterion 1.4.3: of each heading's text on the colour that is behind it
CONTRASTS = """() => [...document.querySelectorAll('h1, h2, h3, h4, .verdict p, thead th')].map(element => {
  const parsed = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  let behind = element;
  while ((parsed(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
  const [high, low] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
    .map(colour => luminance(parsed(colour))).sort((a, b) => b - a);
  return [element.textContent.slice(0, 40), (high + 0.05) / (low + 0.05)];
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as it was written, but for one prompt."""
    recipe = write_run(tmp_path_factory.mktemp("runs"))
    compare(recipe)
    report = load_report(recipe)
    report["answers"][0]["prompt"] = SCRIPT
    page = report_dir(recipe) / "index.html"
    page.write_text(render_page(report), encoding="utf-8")
    return page


def opened(context: BrowserContext, file: Path) -> tuple[Page, list[str]]:
    """The page, and what went wrong while it opened: errors, and requests for anything else."""
    tab, faults = context.new_page(), []
    tab.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("request", lambda request: faults.append(request.url) if request.url != file.as_uri() else None)
    tab.goto(file.as_uri(), wait_until="networkidle")
    return tab, faults


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_opens_from_disk(browser: Browser, page_file: Path, width: int, scheme: Scheme) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    tab, faults = opened(context, page_file)
    tab.emulate_media(color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 23, 30)"
    )
    contrasts = tab.evaluate(CONTRASTS)
    assert len(contrasts) > 30
    assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []
    assert [heading.get_attribute("id") for heading in tab.locator("h2").all()] == SECTIONS
    assert all(heading.is_visible() for heading in tab.locator("h1, h2, h3, h4").all())
    assert faults == []
    context.close()


def test_what_data_says_is_shown_as_text(browser: Browser, page_file: Path) -> None:
    context = browser.new_context()
    tab, faults = opened(context, page_file)
    assert tab.locator("#answers ~ section h3").first.inner_text() == SCRIPT
    assert tab.evaluate("window.ran") is None
    assert tab.locator("script").count() == 0
    assert faults == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Browser, page_file: Path, scheme: Scheme) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    tab, _ = opened(context, page_file)
    tab.emulate_media(color_scheme=scheme)
    assert serious_faults(tab) == []
    context.close()


def test_page_prints(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": PRINTED, "height": 900}, color_scheme="dark")
    tab, _ = opened(context, page_file)
    printed = tab.pdf(format="A4", prefer_css_page_size=True)
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    tab.emulate_media(media="print")
    assert tab.evaluate("document.documentElement.scrollWidth") <= PRINTED
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    context.close()
