"""``trimtab bench`` over a small endpoint, with vLLM's own load generator as it is."""

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from trimtab.artifacts.errors import InputError
from trimtab.cli.main import main
from trimtab.serve import load as load_module
from trimtab.serve.load import Level, Load, bench_options, endpoint_root, level_of
from trimtab.serve.server import listening

KEY = "sk-trimtab-test"


class Endpoint:
    """Answers words and usage to who shows KEY; the requests of the numbers ``refused`` it refuses, and it breaks
    the answers of ``broken`` off."""

    def __init__(self) -> None:
        self.models, self.asked = ["a"], []
        self.refused, self.broken = (), ()
        routes = [
            Route("/v1/models", self._models),
            Route("/v1/completions", self._completions, methods=["POST"]),
        ]
        self.server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="critical"))
        self.url = ""

    async def _models(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({}, 401)
        return JSONResponse({"data": [{"id": name} for name in self.models]})

    async def _completions(self, request: Request) -> Response:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        body = await request.json()
        self.asked.append(body)
        number = len(self.asked)
        if number in self.refused:
            return JSONResponse({}, 429)
        return StreamingResponse(self._events(body, number in self.broken), media_type="text/event-stream")

    async def _events(self, body: dict[str, Any], broken: bool) -> AsyncIterator[str]:
        tokens = body["max_tokens"]
        for _ in range(tokens // 2 if broken else tokens):
            yield f"data: {json.dumps({'choices': [{'text': ' word'}]})}\n\n"
        if broken:
            yield 'data: {"error": {"code": "engine_down"}}\n\n'
            return
        usage = {"prompt_tokens": len(body["prompt"].split()), "completion_tokens": tokens}
        yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = Endpoint()
    with listening("127.0.0.1", 0) as listener:
        made.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        thread = threading.Thread(target=made.server.run, args=([listener],))
        thread.start()
        while not made.server.started:
            time.sleep(0.01)
        yield made
        made.server.should_exit = True
        thread.join()


@pytest.mark.slow
def test_every_level_is_measured_printed_and_written(
    endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.refused, endpoint.broken = (9,), (11, 13)  # 1 and 8 are warm-ups
    out = tmp_path / "new" / "folder"
    options = ["--requests", "6", "--prompt-tokens", "12", "--answer-tokens", "5"]
    assert main(["bench", endpoint.url, "--streams", "1", "3", *options, "--out", str(out)]) == 1
    report = json.loads((out / "bench.json").read_text())
    assert (report["model"], report["levels"][0]["prompt_tokens"]) == ("a", 12)
    for level, streams, failed in zip(report["levels"], (1, 3), (0, 3), strict=True):
        assert (level["streams"], level["requests"], level["failed"]) == (streams, 6, failed)
        assert 0 < level["ttft_ms"] <= level["ttft_p99_ms"]
        assert level["tokens_per_s"] > 0
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert KEY not in (out / "bench.json").read_text()
    printed = " ".join(capsys.readouterr().out.split())
    assert f"a at {endpoint.url.removesuffix('/v1')}: 12 tokens in, 5 out" in printed
    assert "3 of 6 requests failed at 3 streams: Too Many Requests" in printed
    assert len(endpoint.asked) == 2 * (6 + 1)
    for body in endpoint.asked:
        assert (body["max_tokens"], body["ignore_eos"], body["stream"]) == (5, True, True)
    assert len({body["prompt"] for body in endpoint.asked}) == 2 * 6


def test_no_failures_are_exit_0(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    level = Level(2, 16, 0, 123.4, 128.0, 5.0, 6.0, 7.0, 8.0, None)
    monkeypatch.setattr(load_module, "measure", lambda load: iter([level]))
    assert main(["bench", endpoint.url, "--streams", "2"]) == 0
    assert "123.4" in capsys.readouterr().out


def test_addresses_and_models_that_are_not_there(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.models = ["a", "b"]
    for line, said in (
        ([endpoint.url], "give --model, one of: a, b"),
        ([endpoint.url, "--model", "z"], "does not list it; there are: a, b"),
        (["http://127.0.0.1:1/v1"], "http://127.0.0.1:1/v1/models does not answer"),
        ([endpoint.url + "/x"], "/v1/x/v1/models does not answer"),
        (["127.0.0.1:8000"], "needs the form http://HOST:PORT/v1"),
        (["http://user:secret@127.0.0.1:8000/v1"], "holds no key, password or query"),
    ):
        assert main(["bench", *line]) == 2
        printed = capsys.readouterr().err
        assert said in printed
        assert "secret" not in printed
    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(["bench", endpoint.url]) == 2
    assert "needs a key: give it as OPENAI_API_KEY" in capsys.readouterr().err
    for wrong in (["--streams", "0"], ["--requests", "x"], ["--answer-tokens", "-1"]):
        with pytest.raises(SystemExit, match="2"):
            main(["bench", endpoint.url, *wrong])


def test_the_address_in_its_forms() -> None:
    for url in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"):
        assert endpoint_root(url) == "http://h:1"
    assert endpoint_root("https://h/prefix/v1") == "https://h/prefix"
    with pytest.raises(InputError, match="needs the form http"):
        endpoint_root("ftp://h/v1")


def test_options_of_a_level(tmp_path: Path) -> None:
    load = Load("http://h:1", "a", (1, 8), None, 12, 5)
    assert (load.requests_at(1), load.requests_at(8)) == (16, 32)
    options = bench_options(load, 8, tmp_path / "p.jsonl", tmp_path / "r.json")
    given = dict(pairwise(options))
    assert given["--base-url"] == "http://h:1"
    assert (given["--num-prompts"], given["--max-concurrency"]) == ("32", "8")
    assert json.loads(given["--extra-body"]) == {"max_tokens": 5, "ignore_eos": True, "temperature": 0}


def test_figures_are_those_of_whole_answers() -> None:
    load = Load("http://h:1", "a", (2,), 4, 3, 5)
    result = {
        "duration": 2.0,
        "output_lens": [5, 5, 1, 0],
        "input_lens": [3, 4, 3, 3],
        "ttfts": [0.1, 0.3, 0.9, 0.0],
        "latencies": [0.5, 1.1, 9.9, 0.0],
        "errors": ["", "", "", "Traceback:\n  x\nOSError: gone"],
    }
    level = level_of(load, 2, result)
    assert (level.requests, level.failed, level.error) == (4, 2, "OSError: gone")
    assert (level.tokens_per_s, level.prompt_tokens) == (5.0, 3.5)
    assert (level.ttft_ms, level.ttft_p99_ms) == pytest.approx((200, 298))
    assert (level.tpot_ms, level.tpot_p99_ms) == pytest.approx((150, 199))
    none = level_of(load, 2, result | {"output_lens": [0, 4, 1, 0], "errors": [""] * 4})
    assert (none.failed, none.ttft_ms, none.error) == (4, None, "an answer ended after 0 of 5 tokens")
