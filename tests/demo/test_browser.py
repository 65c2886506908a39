"""The page in a real browser, over a small endpoint that streams, stalls, fails and lies."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import chromium, serious_faults, served
from chat_endpoint import SmallEndpoint, chat_endpoint
from playwright.sync_api import Browser, Page, expect

from trimtab.data.read import read_pairs
from trimtab.demo.access import Logins
from trimtab.demo.page import build
from trimtab.demo.votes import VoteStore

ARMS = ("orpo", "dpo", "base")
VIEWS = ("compare", "judge", "scoreboard", "preference", "batch")
HOSTILE = """<script>window.hurt = 'script'</script><img src=x onerror="window.hurt = 'img'">
<iframe src="http://127.0.0.1:9/frame"></iframe><style>body { display: none }</style>

![tracker](http://127.0.0.1:9/pixel.png) [click](javascript:window.hurt='link') <b onclick="window.hurt=1">bold</b>
[data](data:text/html,<script>window.hurt='data'</script>) [fine](https://example.org/a)

`${window.hurt='template'}` {{constructor.constructor('window.hurt=2')()}} ${window.hurt=3}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shared_endpoint() -> Iterator[SmallEndpoint]:
    with chat_endpoint() as up:
        yield up


@pytest.fixture
def endpoint(shared_endpoint: SmallEndpoint) -> SmallEndpoint:
    shared_endpoint.reset()
    return shared_endpoint


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("votes") / "votes.sqlite"


@pytest.fixture(scope="module")
def shared_address(shared_endpoint: SmallEndpoint, store: Path) -> Iterator[str]:
    page = build(shared_endpoint.url, examples=read_pairs("sample/heldout")[:12], votes=store)
    with served(page) as url:
        yield url


@pytest.fixture
def address(shared_address: str, endpoint: SmallEndpoint, store: Path) -> str:
    """The page over an endpoint as it was at first, and without votes."""
    with closing(sqlite3.connect(store, isolation_level=None)) as database:
        database.execute("DELETE FROM votes")
    return shared_address


@pytest.fixture
def tab(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    opened = context.new_page()
    opened.goto(address)
    expect(opened.locator("#send")).to_be_visible()
    yield opened
    context.close()


def ask(tab: Page, prompt: str = "How do I keep basil fresh?") -> None:
    tab.locator("#prompt textarea").fill(prompt)
    tab.locator("#send").click()


def state(tab: Page, arm: str, wanted: str) -> None:
    expect(tab.locator(f"#answer-{arm} article")).to_have_attribute("data-state", wanted, timeout=20_000)


def open_view(tab: Page, address: str, view: str) -> None:
    tab.goto(f"{address}/?view={view}")
    expect(tab.get_by_role("tab", name=view.capitalize(), selected=True)).to_be_visible()


def rest(tab: Page) -> None:
    """No field has the keyboard: keys are shortcuts."""
    tab.evaluate("document.activeElement.blur()")


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
    tab.locator("#compare-system textarea").fill("Be brief.")
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


def test_hostile_markdown_does_nothing(tab: Page, endpoint: SmallEndpoint) -> None:
    endpoint.answers["orpo"] = HOSTILE
    fetched: list[str] = []
    tab.on("request", lambda request: fetched.append(request.url))
    ask(tab)
    state(tab, "orpo", "done")
    tab.locator("#diff").get_by_label("Base").check()
    expect(tab.locator("#answer-orpo .tt-diff")).to_be_visible()
    tab.locator("#diff").get_by_label("Off").check()
    pane = tab.locator("#answer-orpo .tt-text")
    expect(pane).to_contain_text("<script>window.hurt")
    expect(pane).to_contain_text("${window.hurt='template'}")
    expect(pane).to_contain_text("{{constructor")
    for element in ("script", "img", "iframe", "style", "b", "[onclick]", "[onerror]"):
        assert pane.locator(element).count() == 0, element
    links = pane.locator("a").evaluate_all("each => each.map(a => [a.href, a.rel])")
    assert [href for href, _ in links] == ["http://127.0.0.1:9/pixel.png", "https://example.org/a"]
    assert all("noopener" in rel for _, rel in links)
    assert tab.evaluate("window.hurt") is None
    assert not [url for url in fetched if "127.0.0.1:9/" in url or "example.org" in url]


def test_blind_vote_reveal_and_scoreboard(tab: Page, address: str, store: Path) -> None:
    open_view(tab, address, "judge")
    tab.locator("#judge-prompt textarea").fill("How do I keep basil fresh?")
    tab.locator("#judge-send").click()
    expect(tab.locator("#vote-tie")).to_be_visible(timeout=20_000)
    slots = tab.locator("#slots")
    for name in ("ORPO", "DPO", "Base", "GPTQ", "tokens/s", "first after"):
        expect(slots).not_to_contain_text(name)
    best = next(at for at in range(3) if "glass of water" in tab.locator(f"#judge-answer-{at}").inner_text())
    tab.locator("#vote-reason textarea, #vote-reason input").fill("It has a next step.")
    rest(tab)
    tab.keyboard.press("abc"[best])
    expect(tab.locator("#verdict")).to_contain_text(f"{'ABC'[best]} was ORPO")
    expect(tab.locator(f"#judge-answer-{best} header")).to_contain_text("your pick")
    expect(tab.locator("#vote-tie")).to_be_hidden()
    with VoteStore(store) as votes:
        (vote,) = votes.all()
    assert (vote.verdict, vote.ranking[0], vote.blind) == ("best", ("orpo",), True)
    assert vote.reason == "It has a next step."
    assert vote.shown[best] == "orpo"
    assert vote.answers["orpo"].text.startswith("Keep basil")
    assert vote.artifacts["dpo"]["digest"] == "sha256:1c2d3e4f5a6b7c8d"
    assert "127.0.0.1" not in vote.rater
    tab.keyboard.press("n")
    expect(tab.locator("#verdict [data-round=voted]")).to_have_count(0)
    expect(tab.locator("#vote-tie")).to_be_visible(timeout=20_000)
    rest(tab)
    tab.keyboard.press("x")
    expect(tab.locator("#verdict")).to_contain_text("2 votes so far")
    tab.get_by_role("tab", name="Scoreboard").click()
    expect(tab.locator("#board tbody tr")).to_have_count(3)
    expect(tab.locator("#board tbody tr").first).to_contain_text("ORPO")
    expect(tab.locator("#board .tt-figures-big")).to_contain_text("2blind votes")
    tab.reload()


def test_a_ranking_and_an_unblinded_vote(tab: Page, address: str, store: Path) -> None:
    open_view(tab, address, "judge")
    tab.locator("#blind input").uncheck()
    tab.locator("#judge-prompt textarea").fill("How do I keep basil fresh?")
    tab.locator("#judge-send").click()
    expect(tab.locator("#vote-tie")).to_be_visible(timeout=20_000)
    expect(tab.locator("#judge-answer-0 header")).to_contain_text("ORPO")
    tab.locator("#ranking > button").click()
    tab.locator("#place-0").get_by_label("2nd").check()
    tab.locator("#place-2").get_by_label("1st").check()
    tab.locator("#vote-rank").click()
    expect(tab.locator("#verdict")).to_contain_text("C was Base")
    with VoteStore(store) as votes:
        (vote,) = votes.all()
    assert (vote.verdict, vote.ranking, vote.blind) == ("rank", (("base",), ("orpo", "dpo")), False)
    tab.get_by_role("tab", name="Scoreboard").click()
    expect(tab.locator("#board")).to_contain_text("No votes yet")
    expect(tab.locator("#board")).to_contain_text("1 (not blind)")


def test_a_round_begun_while_another_streams_takes_its_own_answers(
    tab: Page, address: str, endpoint: SmallEndpoint, store: Path
) -> None:
    open_view(tab, address, "judge")
    endpoint.pause = dict.fromkeys(ARMS, 0.3)
    tab.locator("#judge-prompt textarea").fill("The first?")
    tab.locator("#judge-prompt textarea").press("Enter")
    expect(tab.locator("#judge-answer-0 .tt-figures")).to_be_visible()
    endpoint.pause = dict.fromkeys(ARMS, 0.01)
    tab.locator("#judge-prompt textarea").fill("The second?")
    tab.locator("#judge-prompt textarea").press("Enter")
    expect(tab.locator("#vote-tie")).to_be_visible(timeout=20_000)
    expect(tab.locator("#slots")).not_to_contain_text("stopped")
    tab.locator("#vote-tie").click()
    expect(tab.locator("#verdict")).to_contain_text("Your vote is kept")
    with VoteStore(store) as votes:
        (vote,) = votes.all()
    assert vote.prompt == ({"role": "user", "content": "The second?"},)
    assert {arm: answer.text for arm, answer in vote.answers.items()} == endpoint.answers


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


def test_preference_is_measured_and_drawn(tab: Page, address: str) -> None:
    open_view(tab, address, "preference")
    expect(tab.locator("#preferences")).to_contain_text("Pick a held-out example")
    tab.locator("#measure").click()
    expect(tab.locator("#preferences [role=alert]")).to_contain_text("fill all three fields")
    tab.locator("#preference-examples input").click()
    tab.get_by_role("option").first.click()
    expect(tab.locator("#preference-chosen textarea")).not_to_have_value("")
    tab.locator("#measure").click()
    cards = tab.locator("#preferences article")
    expect(cards).to_have_count(3)
    expect(cards.nth(0)).to_contain_text("ORPO's scale")
    expect(cards.nth(0)).not_to_contain_text("DPO's scale")
    expect(cards.nth(1)).to_contain_text("DPO's scale")
    expect(cards.nth(1)).to_contain_text("reference base")
    assert cards.nth(0).locator(".tt-for").count() > 2
    assert cards.nth(2).locator(".tt-for").count() == 0


def test_a_batch_runs_with_its_progress_and_files(tab: Page, address: str, tmp_path: Path) -> None:
    open_view(tab, address, "batch")
    file = tmp_path / "prompts.txt"
    file.write_text("How do I keep basil fresh?\nAnd <i>parsley</i>?\n")
    tab.locator("#batch-file input[type=file]").set_input_files(file)
    expect(tab.locator("#batch-file")).to_contain_text("prompts")
    tab.locator("#batch-run").click()
    expect(tab.locator("[data-batch=done]")).to_contain_text("2 prompts, 0 answers failed", timeout=20_000)
    expect(tab.locator("#batch-state tbody tr")).to_have_count(2)
    expect(tab.locator("#batch-state")).to_contain_text("And <i>parsley</i>?")
    for ending in (".html", ".csv", ".jsonl"):
        expect(tab.locator("#batch-results")).to_contain_text(ending)


def test_login_and_a_limit_on_answers(
    browser: Browser, endpoint: SmallEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-known-to-the-server")
    logins = tmp_path / "logins"
    logins.write_text("ada:correct horse\n")
    logins.chmod(0o600)
    page = build(endpoint.url, requests_per_minute=3)
    with served(page, auth=Logins(logins)) as url:
        context = browser.new_context()
        tab = context.new_page()
        seen: list[str] = []
        tab.on("response", lambda answer: seen.append(answer.text() if "/config" in answer.url else ""))
        tab.goto(url)
        expect(tab.locator("#send")).to_have_count(0)
        assert context.request.get(f"{url}/config").status == 401
        tab.locator("input").first.fill("ada")
        tab.locator("input[type=password]").fill("wrong")
        tab.get_by_role("button", name="Login").click()
        expect(tab.get_by_text("Incorrect")).to_be_visible()
        tab.locator("input").first.fill("ada")
        tab.locator("input[type=password]").fill("correct horse")
        tab.get_by_role("button", name="Login").click()
        expect(tab.locator("#send")).to_be_visible()
        ask(tab)
        for arm in ARMS:
            state(tab, arm, "done")
        ask(tab)
        state(tab, "orpo", "failed")
        expect(tab.locator("#answer-orpo [role=alert]")).to_contain_text("3 answers a minute are allowed here")
        assert "sk-known-to-the-server" not in tab.content() + "".join(seen)
        assert endpoint.authorizations == {"Bearer sk-known-to-the-server"}
        context.close()


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


def test_the_footer_and_the_api_are_closed(browser: Browser, tab: Page, address: str) -> None:
    fetched: list[str] = []
    tab.on("request", lambda request: fetched.append(request.url))
    tab.reload()
    expect(tab.locator("#send")).to_be_visible()
    assert {url for url in fetched if not url.startswith((address, "data:", "blob:"))} == set()
    expect(tab.locator("footer")).to_be_hidden()
    assert tab.request.get(f"{address}/gradio_api/info").json()["named_endpoints"] == {}
    for path in ("openapi.json", "call/stream", "run/stream", "api/stream"):
        for ask_for in (tab.request.get, tab.request.post):
            assert ask_for(f"{address}/gradio_api/{path}").status == 404, path
