"""What is kept of requests: the log, metrics and spans, over the front and a stand-in engine."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from stand_in_engine import StandIn, fronted

from trimtab.artifacts.errors import InputError
from trimtab.recipes.serve import ServeSection
from trimtab.serve.front import Guard
from trimtab.serve.keys import KeyStore
from trimtab.serve.metrics import Metrics
from trimtab.serve.rates import Rates
from trimtab.serve.records import RequestRecord, Sink, json_log, request_id
from trimtab.serve.table import Table
from trimtab.serve.traces import make_tracer, spans

SECTION = ServeSection(aliases={"production": "a"})
SECRET = "what nobody may read"


def asked(directory: Path, *sinks: Sink) -> list[httpx.Response]:
    """Answers to one request of each outcome but ``left``, seen by ``sinks``."""
    with KeyStore(directory / "keys.sqlite") as store:
        key = store.new("ci")

        async def all_of_it() -> list[httpx.Response]:
            async with fronted(directory, Guard(store, Rates()), section=SECTION, sinks=list(sinks)) as (
                front,
                engines,
            ):
                transport = httpx.ASGITransport(front, raise_app_exceptions=False)
                headers = {"authorization": f"Bearer {key}"}
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://localhost", headers=headers
                ) as client:
                    engines["a"].usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
                    return [await each for each in requests(client, engines)]

        return asyncio.run(all_of_it())


def requests(client: httpx.AsyncClient, engines: dict[str, StandIn]) -> list:  # type: ignore[type-arg]
    def post(body: dict[str, object], **headers: str):  # type: ignore[no-untyped-def]
        return client.post("/v1/completions", json={"prompt": SECRET} | body, headers=headers)

    return [
        post({"model": "production"}, **{"x-request-id": "mine-1"}),
        post({"model": "b", "stream": True}),
        post({"model": "nothing"}),
        post({"model": "b", "n": 99}),
        post({"model": "b"}, authorization="Bearer tt-no", **{"x-request-id": "two\nlines"}),
    ]


def test_a_line_a_request_without_what_was_asked(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "requests.jsonl"
    answers = asked(tmp_path, json_log(str(log), False))
    assert [answer.status_code for answer in answers] == [200, 200, 404, 400, 401]
    text = log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert SECRET not in text
    assert "tt-" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["request_id"] for line in lines] == [answer.headers["x-request-id"] for answer in answers]
    assert lines[0]["request_id"] == "mine-1"
    assert len({line["request_id"] for line in lines}) == 5
    shown = [
        [line[k] for k in ("key", "asked", "model", "stream", "status", "outcome", "error")] for line in lines
    ]
    assert shown == [
        ["ci", "production", "a", False, 200, "whole", None],
        ["ci", "b", "b", True, 200, "whole", None],
        ["ci", None, None, False, 404, "refused", "model_not_found"],
        ["ci", None, None, False, 400, "refused", "`n` is 99, 4 at most is allowed"],
        [None, None, None, False, 401, "refused", "invalid_api_key"],
    ]
    assert [lines[0][k] for k in ("prompt_tokens", "completion_tokens")] == [7, 5]
    assert [lines[1][k] for k in ("prompt_tokens", "completion_tokens")] == [len(SECRET) // 4, 4]
    assert 0 < lines[1]["first_ms"] < lines[1]["ms"]


def test_an_alias_is_another_name_in_the_request(tmp_path: Path) -> None:
    body = asked(tmp_path)[0].json()["body"]
    assert body == {"prompt": SECRET, "model": "a"}


def test_prompts_when_they_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked(tmp_path, json_log("stdout", True))
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert json.loads(first["body"]) == {"model": "production", "prompt": SECRET}
    with pytest.raises(InputError, match=r"request_log=/proc/no/log cannot be written"):
        json_log("/proc/no/log", False)


def test_metrics_count_by_model_status_and_key(tmp_path: Path) -> None:
    metrics = Metrics(lambda: Table({}, {"production": {"a": 9, "b": 1}}), list)
    asked(tmp_path, metrics.see)
    metrics.rolled_out("done")
    text = metrics.text().decode()
    for line in [
        'trimtab_requests_total{model="a",status="200"} 1.0',
        'trimtab_requests_total{model="none",status="404"} 1.0',
        'trimtab_requests_total{model="none",status="401"} 1.0',
        'trimtab_tokens_total{key="ci",kind="completion",model="a"} 5.0',
        'trimtab_request_seconds_count{model="b"} 1.0',
        'trimtab_time_to_first_token_seconds_count{model="b"} 1.0',
        'trimtab_alias_weight{alias="production",model="b"} 1.0',
        'trimtab_rollouts_total{result="done"} 1.0',
    ]:
        assert line in text.splitlines()
    assert 'trimtab_time_to_first_token_seconds_count{model="a"}' not in text  # it was no stream
    assert "nothing" not in text  # a caller's words make no labels


def test_spans_continue_the_callers_trace(tmp_path: Path) -> None:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    see = spans(SimpleSpanProcessor(exporter))
    trace = "0af7651916cd43dd8448eb211c80319c"
    parent = f"00-{trace}-b7ad6b7169203331-01"
    record = RequestRecord("/v1/chat/completions", asked="production", model="a", status=200, outcome="whole")
    record.parent, record.seconds, record.completion_tokens = parent, 0.5, 5
    see(record)
    see(RequestRecord("/v1/completions", status=503, outcome="broken", error="engine_down"))
    first, second = exporter.get_finished_spans()
    assert f"{first.context.trace_id:032x}" == trace
    assert first.end_time - first.start_time == pytest.approx(500_000_000, abs=1)
    assert first.attributes["gen_ai.request.model"] == "production"
    assert first.attributes["gen_ai.response.model"] == "a"
    assert first.attributes["gen_ai.usage.output_tokens"] == 5
    assert second.status.description == "engine_down"
    assert f"{second.context.trace_id:032x}" != trace


def test_no_collector_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    assert make_tracer() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert make_tracer() is not None


def test_a_full_disk_stops_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    write = json_log("/dev/full", False)
    for _ in range(2):
        write(RequestRecord("/v1/completions"))
    assert capsys.readouterr().err.count("is not in /dev/full: No space left on device") == 2


@pytest.mark.parametrize("given", ["a b", "x" * 129, "é", "", None, 'quote"'])
def test_ids_that_do_not_belong_in_a_log(given: str | None) -> None:
    assert request_id(given) is None


def test_questions_for_the_models_are_recorded_too(tmp_path: Path) -> None:
    records: list[RequestRecord] = []
    with KeyStore(tmp_path / "keys.sqlite") as store:
        key = store.new("ci")

        async def check() -> None:
            async with fronted(tmp_path, Guard(store, Rates()), sinks=[records.append]) as (front, _):
                transport = httpx.ASGITransport(front)
                async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                    for headers in ({}, {"authorization": f"Bearer {key}"}):
                        answer = await client.get("/v1/models", headers=headers)
                        assert answer.headers["x-request-id"] == records[-1].id

        asyncio.run(check())
    assert [(r.method, r.path, r.key, r.status, r.outcome, r.error) for r in records] == [
        ("GET", "/v1/models", "", 401, "refused", "invalid_api_key"),
        ("GET", "/v1/models", "ci", 200, "whole", None),
    ]


def test_a_sink_that_fails_keeps_nothing_from_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(record: RequestRecord) -> None:
        raise ValueError("no counter goes down")

    records: list[RequestRecord] = []
    answers = asked(tmp_path, broken, records.append)
    assert [answer.status_code for answer in answers] == [200, 200, 404, 400, 401]
    assert len(records) == 5
    assert capsys.readouterr().err.count("is not in all records: ValueError('no counter goes down')") == 5
