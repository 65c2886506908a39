"""Held-out examples in a real browser: searched, found among many, shown."""

from browser import served
from chat_endpoint import SmallEndpoint
from playwright.sync_api import Browser, Page, expect

from trimtab.data.read import read_pairs
from trimtab.demo.page import build


def test_examples_are_searched_and_shown(tab: Page) -> None:
    field = tab.locator("#compare-examples input")
    field.click()
    field.press_sequentially("circuit breaker")
    expect(tab.get_by_role("option")).to_have_count(1)
    tab.get_by_role("option").first.click()
    expect(tab.locator("#prompt textarea")).to_have_value(
        "What is the difference between a fuse and a circuit breaker?"
    )
    expect(tab.locator("#reference .tt-chosen")).to_contain_text("Next step:")
    expect(tab.locator("#reference .tt-rejected")).not_to_be_empty()


def test_an_example_is_found_by_its_words(browser: Browser, endpoint: SmallEndpoint) -> None:
    pairs = read_pairs("sample/train")
    wanted = pairs[505].prompt[-1]["content"]
    with served(build(endpoint.url, examples=pairs)) as url:
        tab = browser.new_page()
        tab.goto(url)
        assert tab.locator("#compare-find").count() == 0
        tab.locator("#compare-examples input").press_sequentially("other sites WORK")
        tab.get_by_role("option", name=wanted).click()
        expect(tab.locator("#prompt textarea")).to_have_value(wanted)
        tab.close()


def test_one_of_many_examples_is_found(browser: Browser, endpoint: SmallEndpoint) -> None:
    pairs = read_pairs("sample/train")
    wanted = pairs[505].prompt[-1]["content"]
    many = pairs[:500] * 5 + [pairs[505]]
    with served(build(endpoint.url, examples=many)) as url:
        tab = browser.new_page()
        tab.goto(url)
        listed = tab.locator("#compare-examples")
        expect(listed).to_contain_text("The first 2000")
        listed.locator("input").press_sequentially(wanted)
        expect(tab.get_by_role("option", name=wanted)).to_have_count(0)
        tab.locator("#compare-find").locator("input, textarea").press_sequentially("other sites WORK")
        expect(listed).to_contain_text("1 found")
        listed.locator("input").click()
        tab.get_by_role("option", name=wanted).click()
        expect(tab.locator("#prompt textarea")).to_have_value(wanted)
        tab.close()
