"""The Compare view in a real browser, over a small endpoint that streams, stalls, fails and lies."""

import re
import time
from urllib.parse import parse_qs, urlsplit

from browser import ARMS, ask, rest, state
from chat_endpoint import SmallEndpoint
from playwright.sync_api import Browser, Page, expect


def test_three_answers_overlap_in_time(tab: Page, endpoint: SmallEndpoint) -> None:
    endpoint.pause = {"orpo": 0.03, "dpo": 0.03, "base": 0.06}
    ask(tab)
    tab.wait_for_function(
        "document.querySelectorAll('#panes [data-state=busy] .tt-text :not(.tt-wait)').length >= 3"
    )
    assert not tab.locator("#send").is_visible()
    for arm in ARMS:
        state(tab, arm, "done")
    times = {arm: [when for who, when in endpoint.written if who == arm] for arm in ARMS}
    assert max(each[0] for each in times.values()) < min(each[-1] for each in times.values())
    assert times["base"][-1] > times["orpo"][-1]
    for arm, words in (("orpo", "glass of water"), ("dpo", "jar of water"), ("base", "popular herb")):
        expect(tab.locator(f"#answer-{arm}")).to_contain_text(words)
        expect(tab.locator(f"#answer-{arm} .tt-figures")).to_contain_text(
            re.compile(r"\d+ tokens · first after [\d.]+ s · [\d.]+ tokens/s · finished · [✓✗]")
        )
    expect(tab.locator("#answer-orpo .tt-figures")).to_contain_text("✓ chosen style")
    expect(tab.locator("#answer-orpo .tt-chips")).to_contain_text("GPTQ 4-bit")
    expect(tab.locator("#answer-orpo strong")).to_have_text("stems")
    asked = [{key: body[key] for key in body if key != "model"} for body in endpoint.asked]
    assert asked[0] == asked[1] == asked[2]
    assert {body["model"] for body in endpoint.asked} == set(ARMS)


def test_stop_stops_and_closes_the_requests(tab: Page, endpoint: SmallEndpoint) -> None:
    endpoint.pause = dict.fromkeys(ARMS, 0.5)
    ask(tab)
    expect(tab.locator("#answer-base")).to_contain_text("Basil is")
    tab.locator("#stop").click()
    for arm in ARMS:
        state(tab, arm, "stopped")
        expect(tab.locator(f"#answer-{arm} .tt-figures")).to_contain_text("stopped")
    deadline = time.monotonic() + 10
    while sorted(endpoint.left) != sorted(ARMS):
        assert time.monotonic() < deadline, endpoint.left
        time.sleep(0.05)
    written = len(endpoint.written)
    tab.wait_for_timeout(1200)
    assert len(endpoint.written) == written


def test_a_closed_tab_closes_its_requests(browser: Browser, address: str, endpoint: SmallEndpoint) -> None:
    endpoint.pause = dict.fromkeys(ARMS, 0.5)
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(address)
    ask(tab)
    expect(tab.locator("#answer-base")).to_contain_text("Basil is")
    context.close()
    deadline = time.monotonic() + 20
    while sorted(endpoint.left) != sorted(ARMS):
        assert time.monotonic() < deadline, endpoint.left
        time.sleep(0.05)


def test_an_arm_that_fails_says_so_and_is_tried_again(tab: Page, endpoint: SmallEndpoint) -> None:
    endpoint.failing, endpoint.breaking = {"dpo"}, {"base"}
    ask(tab)
    state(tab, "orpo", "done")
    state(tab, "dpo", "failed")
    state(tab, "base", "failed")
    expect(tab.locator("#answer-dpo [role=alert]")).to_contain_text("the engine of dpo is not up")
    expect(tab.locator("#answer-base [role=alert]")).to_contain_text("the engine of base ended")
    expect(tab.locator("#answer-base .tt-text")).to_contain_text("popular herb")
    assert not tab.locator("#pane-orpo .tt-retry").is_visible()
    endpoint.failing, endpoint.breaking = set(), set()
    asked = len(endpoint.asked)
    tab.locator("#pane-dpo .tt-retry").click()
    state(tab, "dpo", "done")
    expect(tab.locator("#answer-dpo")).to_contain_text("jar of water")
    state(tab, "base", "failed")
    assert [body["model"] for body in endpoint.asked[asked:]] == ["dpo"]


def test_a_stalled_arm_holds_no_other_up(tab: Page, endpoint: SmallEndpoint) -> None:
    endpoint.pause["base"] = 60.0
    ask(tab)
    state(tab, "orpo", "done")
    state(tab, "dpo", "done")
    state(tab, "base", "busy")
    tab.keyboard.press("Escape")
    state(tab, "base", "stopped")


def test_settings_repeats_differences_and_a_conversation(tab: Page, endpoint: SmallEndpoint) -> None:
    tab.locator("#compare-settings > button").click()
    # As a person does: what is put into a field in the moment in which it appears can be lost.
    tab.locator("#compare-system textarea").press_sequentially("Be brief.", delay=30)
    tab.get_by_label("Seed").first.fill("7")
    tab.locator("#compare-settings").get_by_label("Answers from each arm").first.fill("2")
    tab.keyboard.press("Tab")
    ask(tab)
    for arm in ARMS:
        state(tab, arm, "done")
    assert len(endpoint.asked) == 6
    assert sorted(body["seed"] for body in endpoint.asked) == [7, 7, 7, 8, 8, 8]
    assert all(body["messages"][0] == {"role": "system", "content": "Be brief."} for body in endpoint.asked)
    assert tab.locator("#answer-orpo .tt-answer").count() == 2
    tab.locator("#diff").get_by_label("ORPO").check()
    expect(tab.locator("#answer-dpo ins").first).to_have_text("jar")
    expect(tab.locator("#answer-dpo del").first).to_have_text("glass")
    expect(tab.locator("#answer-base .tt-length").first).to_contain_text("shorter than ORPO")
    assert tab.locator("#answer-orpo ins").count() == 0
    tab.locator("#pane-orpo .tt-go-on").click()
    expect(tab.locator("#conversation .tt-turn")).to_have_count(2)
    ask(tab, "And parsley?")
    for arm in ARMS:
        state(tab, arm, "done")
    last = endpoint.asked[-1]["messages"]
    assert [message["role"] for message in last] == ["system", "user", "assistant", "user"]
    assert last[2]["content"] == endpoint.answers["orpo"]
    assert all(body["messages"] == last for body in endpoint.asked[-3:])
    tab.locator("#sent > button").click()
    expect(tab.locator("#sent-request")).to_contain_text('"seed": 7')
    tab.locator("#render").click()
    expect(tab.locator("#rendered")).to_contain_text("All arms read this same text")
    expect(tab.locator("#rendered")).to_contain_text("<|im_start|>system\nBe brief.<|im_end|>")


def test_a_link_carries_prompt_arms_and_settings(tab: Page, address: str, endpoint: SmallEndpoint) -> None:
    query = "prompt=Why+%3Cb%3E%3F&system=Be+brief.&arms=orpo,base&temperature=0.7&max_tokens=3&seed=5&repeats=2"
    tab.goto(f"{address}/?{query}")
    expect(tab.locator("#prompt textarea")).to_have_value("Why <b>?")
    expect(tab.locator("#pane-dpo")).to_be_hidden()
    expect(tab.locator("#pane-base")).to_be_visible()
    assert endpoint.asked == []
    tab.locator("#send").click()
    state(tab, "orpo", "done")
    state(tab, "base", "done")
    assert {body["model"] for body in endpoint.asked} == {"orpo", "base"}
    body = endpoint.asked[0]
    assert (body["temperature"], body["max_tokens"]) == (0.7, 3)
    assert sorted(each["seed"] for each in endpoint.asked) == [5, 5, 6, 6]
    expect(tab.locator("#answer-orpo .tt-figures").first).to_contain_text("cut at the token limit")
    tab.locator("#prompt textarea").fill("Another & one")
    tab.locator("#link").click()
    expect(tab).to_have_url(re.compile("Another"))
    written = {name: values[0] for name, values in parse_qs(urlsplit(tab.url).query).items()}
    assert written["prompt"] == "Another & one"
    assert (written["arms"], written["seed"], written["repeats"]) == ("orpo,base", "5", "2")


def test_keys(tab: Page) -> None:
    rest(tab)
    tab.keyboard.press("/")
    expect(tab.locator("#prompt textarea")).to_be_focused()
    tab.keyboard.type("a tie, n or x are letters here")
    tab.keyboard.press("Control+Enter")
    state(tab, "base", "done")
    expect(tab.locator("#prompt textarea")).to_have_value("a tie, n or x are letters here")
