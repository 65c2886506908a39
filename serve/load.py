"""Load on an endpoint, level by level: ``vllm bench serve`` sends and measures it.

Prompts are random words, sent as they are and counted by the server, so no tokenizer is needed here; answers go on
past the end of text, so each has the length that was asked for. Options: vllm/benchmarks/serve.py of vLLM 0.32.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from trimtab.artifacts.endpoint_key import API_KEY, authorization
from trimtab.artifacts.endpoint_url import endpoint_url
from trimtab.artifacts.errors import GateError, InputError

# The ``vllm`` command does not start in vLLM's CPU build. All levels in one process: its imports take long.
_PROGRAM = """
import argparse, json, sys
from vllm.benchmarks.serve import add_cli_args, main
for options in json.loads(sys.argv[1]):
    parser = argparse.ArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args(options))
"""
_OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
_POLL = 0.2
# Words that are one token each, with the space before them, in the usual vocabularies.
_WORDS = [
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school",
    "state", "family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week",
    "company", "system", "program", "question", "work", "government", "number", "night", "point", "home",
    "water", "room",
]  # fmt: skip


@dataclass(frozen=True)
class Load:
    """What is sent to the endpoint at ``root``: at each level ``requests`` of them, so many streams at once."""

    root: str
    model: str
    levels: tuple[int, ...]
    requests: int | None
    prompt_tokens: int
    answer_tokens: int

    def requests_at(self, streams: int) -> int:
        """Four a stream and 16 at least, where no number is given."""
        return self.requests or max(16, 4 * streams)


@dataclass(frozen=True)
class Level:
    """What one number of streams brought; times in milliseconds, None where no answer came."""

    streams: int
    requests: int
    failed: int
    tokens_per_s: float
    prompt_tokens: float | None
    ttft_ms: float | None
    ttft_p99_ms: float | None
    tpot_ms: float | None
    tpot_p99_ms: float | None
    error: str | None


def endpoint_root(url: str) -> str:
    """The address without ``/v1``. InputError when it is none, or holds a secret."""
    return endpoint_url(url).removesuffix("/v1")


def served_model(root: str, asked: str | None) -> str:
    """The model ``asked`` for, or the only one that the endpoint lists. InputError when it does not answer so."""
    try:
        answer = httpx.get(f"{root}/v1/models", headers=authorization(), timeout=10)
        if answer.status_code == 401:
            raise InputError(f"the endpoint at {root} needs a key: give it as {API_KEY}")
        names = [str(model["id"]) for model in answer.raise_for_status().json()["data"]]
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{root}/v1/models does not answer as an endpoint does: {error}") from error
    known = ", ".join(names) or "none"
    if asked is None and len(names) == 1:
        return names[0]
    if asked is None:
        raise InputError(f"the endpoint at {root} has several models or none; give --model, one of: {known}")
    if asked not in names:
        raise InputError(f"--model {asked}: the endpoint at {root} does not list it; there are: {known}")
    return asked


def bench_options(load: Load, streams: int, prompts: Path, result: Path) -> list[str]:
    """The options of ``vllm bench serve`` for one level. The key is in the environment."""
    body = {"max_tokens": load.answer_tokens, "ignore_eos": True, "temperature": 0}
    return [
        *("--backend", "openai"),
        *("--base-url", load.root),
        *("--endpoint", "/v1/completions"),
        *("--model", load.model),
        "--skip-tokenizer-init",
        *("--dataset-name", "custom"),
        *("--dataset-path", str(prompts)),
        *("--num-prompts", str(load.requests_at(streams))),
        *("--max-concurrency", str(streams)),
        *("--extra-body", json.dumps(body)),
        *("--num-warmups", "1"),
        "--disable-tqdm",
        "--save-result",
        "--save-detailed",
        *("--result-dir", str(result.parent)),
        *("--result-filename", result.name),
    ]


def measure(load: Load) -> Iterator[Level]:
    """Each level as soon as it is measured. GateError when vLLM's measurement ends without its figures."""
    if find_spec("vllm") is None:
        raise InputError("vllm bench serve is not here; install vLLM: make setup, or pip install trimtab[cpu]")
    with TemporaryDirectory(prefix="trimtab-bench-") as name:
        folder, lines = Path(name), []
        for number, streams in enumerate(load.levels):
            prompts = folder / f"prompts{number}.jsonl"
            _write_prompts(prompts, load.requests_at(streams), load.prompt_tokens, number)
            lines.append(bench_options(load, streams, prompts, folder / f"level{number}.json"))
        log = folder / "log"
        with log.open("wb") as out:
            command = [sys.executable, "-P", "-c", _PROGRAM, json.dumps(lines)]
            child = subprocess.Popen(
                command, env=os.environ | _OFFLINE, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        try:
            for number, streams in enumerate(load.levels):
                yield level_of(load, streams, _result(folder / f"level{number}.json", child, log))
        finally:
            child.terminate()
            child.wait()


def level_of(load: Load, streams: int, result: dict[str, Any]) -> Level:
    """A level's figures from what ``vllm bench serve --save-detailed`` wrote of each request.

    It counts an answer that broke off as completed; here it failed, as does any that is shorter than asked for.
    """
    lengths: list[int] = result["output_lens"]
    whole = [number for number, length in enumerate(lengths) if length >= load.answer_tokens]
    short = [length for length in lengths if length < load.answer_tokens]
    errors = [error.strip().splitlines()[-1] for error in result["errors"] if error.strip()]
    if not errors and short:
        errors = [f"an answer ended after {min(short)} of {load.answer_tokens} tokens"]
    first = [result["ttfts"][number] for number in whole]
    rest = [
        (result["latencies"][number] - result["ttfts"][number]) / (lengths[number] - 1)
        for number in whole
        if lengths[number] > 1
    ]
    return Level(
        streams=streams,
        requests=len(lengths),
        failed=len(short),
        tokens_per_s=sum(lengths[number] for number in whole) / result["duration"],
        prompt_tokens=statistics.mean(result["input_lens"][number] for number in whole) if whole else None,
        ttft_ms=_milliseconds(first, 50),
        ttft_p99_ms=_milliseconds(first, 99),
        tpot_ms=_milliseconds(rest, 50),
        tpot_p99_ms=_milliseconds(rest, 99),
        error=errors[0] if errors else None,
    )


def _milliseconds(seconds: list[float], percentile: int) -> float | None:
    """A percentile; None of nothing."""
    import numpy

    return float(numpy.percentile(seconds, percentile)) * 1000 if seconds else None


def _write_prompts(path: Path, count: int, tokens: int, seed: int) -> None:
    """``count`` prompts of ``tokens`` random words, others for each ``seed``: none is in the engine's cache."""
    drawn = random.Random(seed)  # noqa: S311 (no secret)
    prompts = (" ".join(drawn.choices(_WORDS, k=tokens)) for _ in range(count))
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")


def _result(path: Path, child: "subprocess.Popen[bytes]", log: Path) -> dict[str, Any]:
    """The file's content when it is whole."""
    while True:
        ended = child.poll() is not None
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return content
        except (FileNotFoundError, json.JSONDecodeError):
            if ended:
                last = (log.read_text(errors="replace").strip() or "no output").splitlines()[-1]
                raise GateError(f"vllm bench serve ended with code {child.returncode}: {last[-300:]}") from None
        time.sleep(_POLL)
