"""The endpoint over real engines: killed, drained, left, lied to, and released under load."""

import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from experiment import ARMS, Run, free_port, started
from openai import APIError, OpenAI
from real_clients import check_clients

from trimtab.artifacts.manifest import MANIFEST, read_manifest

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def test_adapters_mode_serves_all_arms_on_one_engine(run: Run) -> None:
    admin = free_port()
    command = run.command("serve", f"serve.admin_port={admin}", "--mode", "adapters")
    with ThreadPoolExecutor(1) as pool:
        with started(command, "ready: ") as (process, lines):
            assert sum("answers as its" in line for line in lines) == 3
            engines = [p for p in process.children() if "api_server" in " ".join(p.cmdline())]
            assert len(engines) == 1
            below = engines[0].children(recursive=True)
            assert [p.nice() for p in below if p.name().startswith("VLLM::EngineCore")] == [10]  # by its title
            client = OpenAI(base_url=f"http://127.0.0.1:{run.port}/v1", api_key="none")
            for arm in ARMS:
                answer = client.completions.create(model=arm, prompt="One, two,", max_tokens=3, temperature=0)
                assert answer.choices[0].text
            check_answers_do_not_mix(client)
            check_clients(f"http://127.0.0.1:{run.port}", "orpo")
            check_a_client_that_leaves(client, f"http://127.0.0.1:{admin}/engines/base/metrics")
            check_a_killed_engine(client, engines[0], run)
            first: queue.Queue[None] = queue.Queue()
            last = pool.submit(whole_stream, client, first)
            first.get(timeout=60)  # SIGTERM comes while it is under way
        assert last.result() == 80


def check_answers_do_not_mix(client: OpenAI) -> None:
    """An arm answers beside requests of the other arms as it does alone."""

    def ask(arm: str) -> tuple[str, list[float]]:
        asked = {"prompt_logprobs": 0, "ignore_eos": True}
        answer = client.completions.create(
            model=arm, prompt="One, two, three, four", max_tokens=16, temperature=0, extra_body=asked
        )
        positions = answer.choices[0].model_extra["prompt_logprobs"][1:]
        return answer.choices[0].text, [one["logprob"] for each in positions for one in each.values()]

    def distance(one: list[float], other: list[float]) -> float:
        return max(abs(a - b) for a, b in zip(one, other, strict=True))

    alone = {arm: ask(arm) for arm in ARMS}
    adapted = distance(alone["base"][1], alone["orpo"][1])
    assert adapted > 0
    with ThreadPoolExecutor(6) as pool:
        for arm, (text, got) in zip(ARMS * 2, pool.map(ask, ARMS * 2), strict=True):
            assert text == alone[arm][0], arm
            assert distance(got, alone[arm][1]) < adapted / 10, arm


def whole_stream(client: OpenAI, first: "queue.Queue[None]") -> int:
    """Tokens of a stream that ends as it should."""
    pieces = client.completions.create(
        model="orpo",
        prompt="One, two,",
        max_tokens=80,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = []
    for chunk in pieces:
        chunks.append(chunk)
        first.put(None)
    assert next(c.choices[0].finish_reason for c in reversed(chunks) if c.choices) == "length"
    return int(chunks[-1].usage.completion_tokens)


def check_a_client_that_leaves(client: OpenAI, metrics: str) -> None:
    """The engine has nothing to do soon after."""

    def running() -> float:
        found = re.search(r"^vllm:num_requests_running\{.*\} (\S+)$", httpx.get(metrics).text, re.M)
        assert found
        return float(found[1])

    pieces = client.completions.create(
        model="base", prompt="One, two,", max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(pieces))
    deadline = time.monotonic() + 20  # the engine counts now and then
    while running() != 1:
        assert time.monotonic() < deadline
    pieces.close()
    left = time.monotonic()
    while running() != 0:
        assert time.monotonic() < left + 20
    assert time.monotonic() - left < 5  # two seconds, and room for a busy machine; 1500 tokens would take minutes


def check_a_killed_engine(client: OpenAI, engine: psutil.Process, run: Run) -> None:
    """kill -9 under sixteen streams: each ends with an error, and the engine comes back and answers."""

    def stream(arm: str) -> str:
        pieces = client.completions.create(model=arm, prompt="One, two,", max_tokens=1500, stream=True, seed=1)
        try:
            for _ in pieces:
                started_streams.put(arm)
        except APIError as error:
            return error.message
        return "ended as if it were whole"

    started_streams: queue.Queue[str] = queue.Queue()
    with ThreadPoolExecutor(16) as pool:
        streams = [pool.submit(stream, arm) for arm in (*ARMS * 5, "orpo")]
        for _ in range(60):
            started_streams.get(timeout=60)
        engine.kill()
        killed = time.monotonic()
        assert {stream.result(timeout=30) for stream in streams} == {
            f"the engine of {arm!r} ended before its answer did" for arm in ARMS
        }
    address = f"http://127.0.0.1:{run.port}/ready"
    deadline = time.monotonic() + 5  # the streams end a moment before the process is seen to have
    while httpx.get(address).status_code != 503:
        assert time.monotonic() < deadline
    with pytest.raises(APIError, match="not ready"):
        client.with_options(max_retries=0).completions.create(model="base", prompt="One,", max_tokens=1)
    while httpx.get(address).status_code != 200:
        assert time.monotonic() < killed + 200
        time.sleep(0.5)
    assert client.completions.create(model="orpo", prompt="One, two,", max_tokens=3).choices[0].text


def test_a_server_that_does_not_answer_as_its_artifact_is_not_ready(run: Run, tmp_path: Path) -> None:
    """Scales of one artifact and the template of another are changed, and digests made to fit: answers tell."""
    from safetensors.torch import load_file, save_file

    for arm in ("base", "orpo"):
        shutil.copytree(run.directory / arm / "gptq", tmp_path / arm)
    weights, template = tmp_path / "base" / "model.safetensors", tmp_path / "orpo" / "chat_template.jinja"
    tensors = load_file(weights)
    for layer in (3, 4, 5):
        tensors[f"model.layers.{layer}.mlp.down_proj.scales"] *= 2
    save_file(tensors, weights, metadata={"format": "pt"})
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_start|> "))
    command = [sys.executable, "-m", "trimtab.cli.main", "serve", str(tmp_path / "base"), str(tmp_path / "orpo")]

    def refused() -> str:
        line = [*command, f"serve.port={run.port}"]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=600, cwd=tmp_path)
        assert done.returncode == 1
        assert "ready:" not in done.stdout
        return done.stderr

    assert "model.safetensors was changed" in refused()
    for arm in ("base", "orpo"):
        fit_digests(tmp_path / arm)
    said = refused()
    assert re.search(r"base does not answer as its artifact does: .* differ by [\d.]+ nats", said)
    assert re.search(r"orpo renders conversations otherwise than its artifact: from token \d+ on", said)
    mine = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert [p for p in mine if p.pid != os.getpid()] == []


def fit_digests(directory: Path) -> None:
    """Write a manifest that takes the files as they are for right."""
    from trimtab.artifacts.manifest import file_sums

    manifest = read_manifest(directory)
    manifest.files = file_sums(directory)
    (directory / MANIFEST).write_text(manifest.model_dump_json())


def test_a_release_takes_over_under_load(run: Run, tmp_path: Path) -> None:
    """A directory's artifact is replaced while streams run; real engines, no failed request.

    4-bit weights are unpacked here whatever the processor has: elsewhere its own kernel is used.
    """
    directory, admin = tmp_path / "model", free_port()
    shutil.copytree(run.directory / "base" / "gptq", directory)
    ports = (f"serve.port={run.port}", f"serve.admin_port={admin}", "serve.gptq_kernel=unpacked")
    command = [sys.executable, "-m", "trimtab.cli.main", "serve", f"model={directory}", *ports]
    stop = threading.Event()
    client = OpenAI(base_url=f"http://127.0.0.1:{run.port}/v1", api_key="none", max_retries=0)

    def keep_asking() -> int:
        asked = 0
        while not stop.is_set():
            pieces = client.completions.create(
                model="model", prompt="One, two,", max_tokens=16, stream=True, extra_body={"ignore_eos": True}
            )
            assert [c.choices[0].finish_reason for c in pieces if c.choices][-1] == "length"
            asked += 1
        return asked

    with started(command, "ready: "), ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(keep_asking) for _ in range(2)]
        try:
            directory.rename(tmp_path / "before")
            shutil.copytree(run.directory / "orpo" / "gptq", directory)
            answer = httpx.post(f"http://127.0.0.1:{admin}/reload", timeout=400)
            assert answer.status_code == 200, answer.text
            wanted = read_manifest(directory).digest
            assert [(model.digest, model.kernel) for model in client.models.list()] == [(wanted, "unpacked")]
        finally:
            stop.set()
        assert all(each.result() > 1 for each in asking)
