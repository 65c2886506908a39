"""The Preference and the Batch view in a real browser."""

from pathlib import Path

from browser import open_view
from playwright.sync_api import Page, expect


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
