"""The whole way with the real model, real training, real vLLM and a real browser, on a tiny budget."""

import asyncio
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from chromium import chromium
from experiment import ARMS, Run, started
from openai import OpenAI
from playwright.sync_api import Page, expect

from trimtab.artifacts.manifest import read_manifest, verify_files

pytestmark = [pytest.mark.slow, pytest.mark.alone]


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
    from trimtab.data.read import read_pairs

    store = tmp_path / "votes.sqlite"
    with (
        started(run.command("demo", f"demo.votes={store}", "--serve"), "page: ") as (process, _),
        chromium() as seen,
    ):
        tab = seen.new_page(viewport={"width": 1500, "height": 1000})
        tab.set_default_timeout(120_000)
        expect.set_options(timeout=120_000)
        check_three_answers(tab, page_address(run))
        check_preference(tab)
        check_votes(tab, page_address(run))
        check_endpoint(run)
        check_log_probabilities(run)
        check_an_engine_killed_under_the_page(tab, page_address(run), process)
    votes = tmp_path / "votes.jsonl"
    for arguments in (
        ("demo", "votes", "export", str(store), "--output", str(votes)),
        ("data", "check", str(votes)),
    ):
        command = [sys.executable, "-m", "trimtab.cli.main", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    pairs = read_pairs(str(votes))
    assert pairs
    assert all(pair.extra["provenance"] for pair in pairs)
    more = ("name=loop", f"data.train={votes}", "train.arms=[orpo]", "train.max_steps=1")
    trained = run.trimtab("train", *more, "train.per_device_train_batch_size=1", "train.eval_pairs=2")
    assert trained.returncode == 0, trained.stdout[-2000:] + trained.stderr[-2000:]
    assert read_manifest(run.directory.parent / "loop" / "orpo" / "adapter", "adapter").metrics["steps"] == 1


def page_address(run: Run) -> str:
    return next(o for o in run.overrides if "demo.port" in o).replace("demo.port=", "http://127.0.0.1:")


def check_three_answers(tab: Page, address: str) -> None:
    """They overlap in time (they are long), and each ends with its figures; an example brings its own answers."""
    tab.goto(f"{address}/?max_tokens=80&prompt=Write+a+long+story+about+the+sea.")
    expect(tab.locator("#prompt textarea")).to_have_value("Write a long story about the sea.")
    tab.locator("#send").click()
    tab.wait_for_function(
        "[...document.querySelectorAll('#panes [data-state=busy]')].filter(p => p.querySelector('.tt-figures'))"
        ".length === 3"
    )
    for arm in ("orpo", "dpo", "base"):
        expect(tab.locator(f"#answer-{arm} .tt-figures")).to_contain_text(re.compile("[✓✗]"))
        assert len(tab.locator(f"#answer-{arm} .tt-text").inner_text()) > 20
        expect(tab.locator(f"#answer-{arm} header")).to_contain_text("GPTQ 4-bit")
    tab.locator("#compare-examples input").click()
    tab.get_by_role("option").first.click()
    expect(tab.locator("#reference .tt-chosen")).to_contain_text("Next step:")
    expect(tab.locator("#reference .tt-rejected")).not_to_be_empty()
    tab.locator("#sent > button").click()
    tab.locator("#render").click()
    expect(tab.locator("#rendered")).to_contain_text("All arms read this same text")


def check_preference(tab: Page) -> None:
    """Figures of every arm, DPO's beside its reference."""
    tab.get_by_role("tab", name="Preference").click()
    tab.locator("#preference-examples input").click()
    tab.get_by_role("option").first.click()
    expect(tab.locator("#preference-chosen textarea")).not_to_have_value("")
    tab.locator("#measure").click()
    expect(tab.locator("#preferences article[data-state=done]")).to_have_count(3)
    dpo = tab.locator("#preferences article", has=tab.locator("h2", has_text=re.compile("^DPO$")))
    expect(dpo).to_contain_text("reference base")


def check_log_probabilities(run: Run) -> None:
    """What the Preference view asks for is what the artifact's probe has of the same answer, token by token."""
    from trimtab.demo.arm import Arm, arms_of
    from trimtab.demo.prompt_logprobs import AnswerLogprobs, answer_logprobs

    async def asked(arm: Arm, messages: list[dict[str, str]]) -> AnswerLogprobs:
        async with httpx.AsyncClient(timeout=300) as client:
            (got,) = await answer_logprobs(client, arm, messages[:-1], (messages[-1]["content"],))
            return got

    for arm in arms_of(f"http://127.0.0.1:{run.port}/v1"):
        probe = read_manifest(run.directory / arm.name / "gptq").probe[0]
        with ThreadPoolExecutor(1) as pool:  # the browser's own loop runs in this thread
            got = pool.submit(asyncio.run, asked(arm, probe.messages)).result()
        assert got.tokens[-1] == "<|im_end|>"
        expected = probe.logprobs[-len(got.logprobs) - 1 : -1]  # after the end of the turn is a line break
        apart = [abs(one - other) for one, other in zip(got.logprobs, expected, strict=True)]
        assert sum(apart) / len(apart) < 0.2, arm.name


def check_votes(tab: Page, address: str) -> None:
    """Blind votes for answers that are whole, until some can be exported; then names, and the scoreboard."""
    tab.goto(f"{address}/?view=judge")
    tab.locator("#judge-settings > button").click()
    tab.locator("#judge-settings").get_by_label("Temperature").first.fill("1")
    tab.locator("#judge-settings").get_by_label("Most tokens").first.fill("160")
    whole = 0
    for number, thing in enumerate(("fruit", "colour", "river", "city", "bird", "tree", "tool", "song")):
        tab.locator("#judge-prompt textarea").fill(f"Name one {thing}. Answer with one short sentence.")
        tab.locator("#judge-send").click()
        expect(tab.locator("[data-round=open]")).to_be_attached()
        expect(tab.locator("#vote-tie")).to_be_visible()
        expect(tab.locator("#slots")).not_to_contain_text("ORPO")
        ended = [
            at for at, text in enumerate(tab.locator("#slots article").all_inner_texts()) if "finished" in text
        ]
        texts = {tab.locator(f"#judge-answer-{at} .tt-text").inner_text() for at in ended}
        tab.locator(f"#vote-best-{ended[0]}" if ended else "#vote-none").click()
        expect(tab.locator("#verdict")).to_contain_text(f"{number + 1} vote")
        expect(tab.locator("#slots")).to_contain_text("ORPO")
        whole += len(texts) > 1
        if whole >= 2:
            break
    assert whole >= 1, "no two whole answers differed"
    tab.get_by_role("tab", name="Scoreboard").click()
    expect(tab.locator("#board tbody tr")).to_have_count(3)


def check_an_engine_killed_under_the_page(tab: Page, address: str, process: psutil.Process) -> None:
    """Its pane says so, and the others go on to their ends."""
    tab.goto(f"{address}/?max_tokens=300&prompt=Write+a+long+story+about+a+ship.")
    expect(tab.locator("#prompt textarea")).to_have_value("Write a long story about a ship.")
    tab.locator("#send").click()
    for arm in ARMS:
        expect(tab.locator(f"#answer-{arm} .tt-figures")).to_be_visible()
    for each in process.children(recursive=True):
        line = " ".join(each.cmdline())
        if "api_server" in line and "/dpo/" in line:
            each.kill()
    expect(tab.locator("#answer-dpo [role=alert]")).to_contain_text("ended before its answer did")
    expect(tab.locator("#pane-dpo .tt-retry")).to_be_visible()
    for arm in ("orpo", "base"):
        expect(tab.locator(f"#answer-{arm} article")).to_have_attribute("data-state", "done")


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
