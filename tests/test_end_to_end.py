"""The whole way with the real model, real training, real vLLM and a real browser, on a tiny budget."""

import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from openai import APIError, OpenAI

from trimtab.artifacts.manifest import MANIFEST, read_manifest, verify_files

pytestmark = pytest.mark.slow

RECIPE = "recipes/quickstart.yaml"
ARMS = ("base", "dpo", "orpo")
TINY = [
    "name=tiny",
    "train.max_steps=2",
    "train.per_device_train_batch_size=2",
    "train.eval_pairs=4",
    "export.quantize.calibration.samples=12",
    "export.quantize.limits={kl: 1.0, top1: 0.3, preference_accuracy_drop: 0.5}",
    "export.verify={pairs: 8, answers: 2, answer_tokens: 16}",
    "compare.prompts=3",
    "compare.side_by_side=2",
    "compare.max_tokens=32",
    "demo.max_tokens=24",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Run:
    """A tiny experiment: its overrides, directory, endpoint, and what the first run printed."""

    overrides: list[str]
    directory: Path
    port: int
    output: str = ""
    seconds: float = 0
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, name: str, *more: str) -> list[str]:
        return [sys.executable, "-m", "trimtab.cli.main", name, RECIPE, *self.overrides, *more]

    def trimtab(self, name: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(name, *more), capture_output=True, text=True, check=False, timeout=1500)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The experiment after `trimtab run`."""
    output_dir = tmp_path_factory.mktemp("runs")
    port = free_port()
    overrides = [*TINY, f"output_dir={output_dir}", f"serve.port={port}", f"demo.port={free_port()}"]
    run = Run(overrides, output_dir / "tiny", port)
    began = time.monotonic()
    done = run.trimtab("run")
    run.output, run.seconds = done.stdout, time.monotonic() - began
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return run


@contextmanager
def started(command: list[str], until: str, timeout: float = 400) -> Iterator[tuple[psutil.Process, list[str]]]:
    """A command that stays up, once it has printed ``until``; then SIGTERM, exit 0, and no process left."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []
    incoming: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.append(line)
            incoming.put(line)
        incoming.put("")

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + timeout
    try:
        while until not in (line := incoming.get(timeout=max(1, deadline - time.monotonic()))):
            assert line, f"ended before {until!r}: {''.join(lines)[-3000:]}"
        family = psutil.Process(process.pid).children(recursive=True)
        yield psutil.Process(process.pid), lines
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0, "".join(lines)[-3000:]
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


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


def test_adapters_mode_serves_all_arms_on_one_engine(run: Run) -> None:
    with started(run.command("serve", "--mode", "adapters"), "ready: ") as (process, lines):
        assert sum("answers as its" in line for line in lines) == 3
        engines = [p for p in process.children() if "api_server" in " ".join(p.cmdline())]
        assert len(engines) == 1
        client = OpenAI(base_url=f"http://127.0.0.1:{run.port}/v1", api_key="none")
        for arm in ARMS:
            answer = client.completions.create(model=arm, prompt="One, two,", max_tokens=3, temperature=0)
            assert answer.choices[0].text
        check_a_killed_engine(client, engines[0], run)


def check_a_killed_engine(client: OpenAI, engine: psutil.Process, run: Run) -> None:
    """kill -9 under eight streams: each ends with an error, and the engine comes back and answers."""

    def stream(arm: str) -> str:
        pieces = client.completions.create(model=arm, prompt="One, two,", max_tokens=1500, stream=True, seed=1)
        try:
            for _ in pieces:
                started_streams.put(arm)
        except APIError as error:
            return error.message
        return "ended as if it were whole"

    started_streams: queue.Queue[str] = queue.Queue()
    with ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(stream, arm) for arm in (*ARMS, *ARMS, "orpo", "dpo")]
        for _ in range(40):
            started_streams.get(timeout=60)
        engine.kill()
        assert {stream.result(timeout=30) for stream in streams} == {
            f"the engine of {arm!r} ended before its answer did" for arm in ARMS
        }
    address = f"http://127.0.0.1:{run.port}/ready"
    deadline = time.monotonic() + 5  # the streams end a moment before the process is seen to have
    while httpx.get(address).status_code != 503:
        assert time.monotonic() < deadline
    with pytest.raises(APIError, match="not ready"):
        client.with_options(max_retries=0).completions.create(model="base", prompt="One,", max_tokens=1)
    deadline = time.monotonic() + 200
    while httpx.get(address).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert client.completions.create(model="orpo", prompt="One, two,", max_tokens=3).choices[0].text


def test_a_server_that_does_not_answer_as_its_artifact_is_not_ready(run: Run, tmp_path: Path) -> None:
    """The artifact's scales are damaged and its digests made to fit: only the answers give it away."""
    from safetensors.torch import load_file, save_file

    from trimtab.artifacts.manifest import file_sums

    copy = tmp_path / "tiny"
    shutil.copytree(run.directory, copy)
    directory = copy / "base" / "gptq"
    tensors = load_file(directory / "model.safetensors")
    for layer in (3, 4, 5):
        tensors[f"model.layers.{layer}.mlp.down_proj.scales"] *= 2
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    overrides = [o for o in run.overrides if not o.startswith("output_dir")]
    damaged = Run([*overrides, f"output_dir={tmp_path}", "train.arms=[orpo]"], copy, run.port)

    refused = damaged.trimtab("serve")
    assert refused.returncode == 1
    assert "model.safetensors was changed" in refused.stderr

    manifest = read_manifest(directory)
    manifest.files = file_sums(directory)
    (directory / MANIFEST).write_text(manifest.model_dump_json())
    refused = damaged.trimtab("serve")
    assert refused.returncode == 1
    assert re.search(r"base does not answer as its artifact does: .* differ by [\d.]+ nats", refused.stderr)
    assert "ready:" not in refused.stdout
    mine = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert [p for p in mine if p.pid != os.getpid()] == []
