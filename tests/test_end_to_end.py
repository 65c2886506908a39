"""The whole way with the real model, real training, real vLLM and a real browser, on a tiny budget."""

import json
import re
import shutil
from pathlib import Path

import httpx
import pytest
from experiment import ARMS, Run, started
from openai import OpenAI

from trimtab.artifacts.manifest import read_manifest, verify_files

pytestmark = pytest.mark.slow


def test_run_ends_with_the_comparison_and_whole_artifacts(run: Run) -> None:
    assert "preference accuracy" in run.output
    for arm in ARMS:
        assert re.search(rf"│ {arm} +│", run.output)
        for kind in ("merged", "gptq"):
            directory = run.directory / arm / kind
            manifest = read_manifest(directory, kind)
            assert verify_files(directory, manifest) == []
            assert all(check.passed for check in manifest.verification)
            assert len(manifest.probe) == 8
    for arm in ("dpo", "orpo"):
        adapter = read_manifest(run.directory / arm / "adapter", "adapter")
        assert adapter.metrics["steps"] == 2
        assert read_manifest(run.directory / arm / "merged").parents[-1].digest == adapter.digest
    report = json.loads((run.directory / "report" / "report.json").read_text())
    assert [row["arm"] for row in report["arms"]] == list(ARMS)
    assert all(answer[arm]["tokens"] > 0 for answer in report["answers"] for arm in ARMS)
    leftovers = [p for p in run.directory.rglob("*") if "partial" in p.name or p.suffix in (".bin", ".pt", ".pkl")]
    assert leftovers == []


def test_second_run_redoes_nothing(run: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.directory.rglob("*") if path.is_file()}
    again = run.trimtab("run")
    assert again.returncode == 0, again.stderr
    assert "preference accuracy" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in run.directory.rglob("*") if path.is_file()} == before


def test_page_shows_three_answers_from_one_prompt(run: Run, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "no Chromium: run `make browser`"
    from playwright.sync_api import expect, sync_playwright

    with started(run.command("demo", "--serve"), "page: "), sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.goto(next(o for o in run.overrides if "demo.port" in o).replace("demo.port=", "http://127.0.0.1:"))
        page.get_by_label("Prompt").fill("What is the capital of France?")
        page.get_by_role("button", name="Compare").click()
        for arm in ("orpo", "dpo", "base"):
            expect(page.locator(f"#figures-{arm}")).to_contain_text(re.compile("[✓✗]"), timeout=120_000)
            assert len(page.locator(f"#answer-{arm}").inner_text()) > 20
        page.locator("#examples").get_by_role("button").first.click()
        expect(page.locator("#chosen")).to_contain_text("Next step:")
        expect(page.locator("#rejected")).not_to_be_empty()
        page.screenshot(path=tmp_path / "page.png")
        browser.close()
        check_endpoint(run)


def check_endpoint(run: Run) -> None:
    """The OpenAI API over the running endpoint, its guard, and a second server on its port."""
    client = OpenAI(base_url=f"http://127.0.0.1:{run.port}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == list(ARMS)
    prompt = [{"role": "user", "content": "What is the capital of France?"}]
    for arm in ARMS:
        pieces = client.chat.completions.create(
            model=arm,
            messages=prompt,
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(pieces)
        assert chunks[-1].usage.completion_tokens == 8
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        whole = client.chat.completions.create(model=arm, messages=prompt, max_tokens=8, temperature=0)
        assert whole.choices[0].message.content == text
    completed = client.completions.create(model="base", prompt="One, two,", max_tokens=3, temperature=0)
    assert "three" in completed.choices[0].text
    check_rendering(client, run)
    address = f"http://127.0.0.1:{run.port}"
    assert httpx.post(f"{address}/tokenize", json={"model": "base", "prompt": "x"}).status_code == 404
    assert httpx.post(f"{address}/v1/completions", json={"model": "none"}).status_code == 404
    second = run.trimtab("serve")
    assert second.returncode == 2
    assert "cannot be listened on" in second.stderr


def check_rendering(client: OpenAI, run: Run) -> None:
    """For pairs of every form the server makes the prompt tokens that training used."""
    from transformers import AutoTokenizer

    from trimtab.data.read import read_pairs
    from trimtab.data.render import render_pair

    tokenizer = AutoTokenizer.from_pretrained(run.directory / "orpo" / "adapter")
    for path in sorted(Path("tests/data/golden").glob("*.jsonl")):
        for pair in read_pairs(str(path)):
            answered = client.chat.completions.create(
                model="orpo", messages=pair.prompt, max_tokens=1, extra_body={"return_token_ids": True}
            )
            trained_on = tokenizer(render_pair(tokenizer, pair).prompt, add_special_tokens=False)["input_ids"]
            assert answered.model_extra["prompt_token_ids"] == trained_on, (path.stem, pair.prompt)
