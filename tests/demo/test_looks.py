"""How the page looks: what axe finds of every view, in light and dark, and a phone's width."""

import pytest
from browser import ARMS, ask, open_view, state
from chat_endpoint import SmallEndpoint
from chromium import serious_faults
from playwright.sync_api import Browser, expect

VIEWS = ("compare", "judge", "scoreboard", "preference", "batch")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Browser, address: str, endpoint: SmallEndpoint, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, color_scheme=scheme)
    tab = context.new_page()
    for view in VIEWS:
        open_view(tab, address, view)
        assert tab.evaluate("document.querySelectorAll('.dark').length > 0") == (scheme == "dark")
        assert serious_faults(tab) == [], view
    open_view(tab, address, "compare")
    endpoint.failing = {"dpo"}
    tab.locator("#compare-examples input").click()
    tab.get_by_role("option").first.click()
    expect(tab.locator("#reference .tt-chosen")).to_be_visible()
    tab.locator("#send").click()
    state(tab, "dpo", "failed")
    state(tab, "base", "done")
    tab.locator("#diff").get_by_label("ORPO").check()
    expect(tab.locator("#answer-base ins").first).to_be_visible()
    tab.locator("#compare-settings > button").click()
    assert serious_faults(tab) == []
    endpoint.failing = set()
    open_view(tab, address, "judge")
    tab.locator("#judge-next").evaluate("button => button.click()")
    expect(tab.locator("#vote-tie")).to_be_visible(timeout=20_000)
    tab.locator("#ranking > button").click()
    assert serious_faults(tab) == []
    tab.locator("#vote-best-0").click()
    expect(tab.locator("[data-round=voted]")).to_be_visible()
    assert serious_faults(tab) == []
    tab.get_by_role("tab", name="Scoreboard").click()
    expect(tab.locator("#board tbody tr")).to_have_count(3)
    assert serious_faults(tab) == []
    tab.get_by_role("tab", name="Preference").click()
    tab.locator("#preference-examples input").click()
    tab.get_by_role("option").first.click()
    tab.locator("#measure").click()
    expect(tab.locator("#preferences article")).to_have_count(3)
    assert serious_faults(tab) == []
    context.close()


def test_a_phone_needs_no_sideways_scrolling(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True)
    tab = context.new_page()
    for view in VIEWS:
        tab.goto(f"{address}/?view={view}")
        expect(tab.locator(f"#{view}")).to_be_visible()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390, view
    tab.goto(address)
    ask(tab)
    state(tab, "base", "done")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tops = [tab.locator(f"#pane-{arm}").bounding_box()["y"] for arm in ARMS]  # type: ignore[index]
    assert tops == sorted(tops)
    assert tops[0] < tops[1] < tops[2]
    context.close()
