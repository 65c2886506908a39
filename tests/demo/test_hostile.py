"""Hostile answers and visitors in a real browser: nothing runs, nothing is fetched, nothing is told."""

from pathlib import Path

import pytest
from browser import ARMS, ask, served, state
from chat_endpoint import SmallEndpoint
from playwright.sync_api import Browser, Page, expect

from trimtab.demo.access import Logins
from trimtab.demo.page import build

HOSTILE = """<script>window.hurt = 'script'</script><img src=x onerror="window.hurt = 'img'">
<iframe src="http://127.0.0.1:9/frame"></iframe><style>body { display: none }</style>

![tracker](http://127.0.0.1:9/pixel.png) [click](javascript:window.hurt='link') <b onclick="window.hurt=1">bold</b>
[data](data:text/html,<script>window.hurt='data'</script>) [fine](https://example.org/a)

`${window.hurt='template'}` {{constructor.constructor('window.hurt=2')()}} ${window.hurt=3}"""


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
