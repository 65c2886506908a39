"""The Judge view and the Scoreboard in a real browser: rounds, votes, names after them."""

from pathlib import Path

from browser import ARMS, open_view, rest
from chat_endpoint import SmallEndpoint
from playwright.sync_api import Page, expect

from trimtab.demo.votes import VoteStore


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
