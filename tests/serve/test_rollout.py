"""Releases of the whole endpoint as a process, over small engines; no request may fail."""

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from running_small import Small, free_port
from small_endpoint import write_artifact


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    endpoint = Small(tmp_path, aliases={"production": "base"})
    try:
        yield endpoint
        assert endpoint.end() == 0
    finally:
        endpoint.process.kill()


@pytest.mark.parametrize("how", ["admin", "SIGHUP"])
def test_a_new_artifact_takes_over_without_a_failed_request(small: Small, how: str) -> None:
    base, stop = small.engine("base").pid, threading.Event()
    seen: list[str] = []

    def keep_asking(model: str) -> None:
        while not stop.is_set():
            seen.append(small.stream(model))

    with ThreadPoolExecutor(7) as pool:
        asking = [pool.submit(keep_asking, model) for model in ("orpo", "orpo", "orpo", "production")]
        long = pool.submit(small.stream, "orpo", 200)
        small.until(lambda: len(seen) > 3)
        write_artifact(small.run_dir, "orpo", "orpo-2")
        small.write(aliases={"production": "orpo"})
        if how == "admin":
            answer = small.admin.post("/reload")
            assert answer.json() == {
                "result": "serves base, orpo, production (engines started: orpo; stopped: orpo)"
            }
        else:
            small.process.send_signal(signal.SIGHUP)
            small.until(lambda: small.said("reloaded: "))
        assert {small.stream(model, 2) for model in ("orpo", "production")} == {"orpo-2"}
        assert len(small.engines()) == 3  # the old one is at its long answer
        assert long.result() == "orpo-1"
        small.until(lambda: len(small.engines()) == 2)
        stop.set()
        for each in asking:
            each.result()
    assert set(seen) == {"base-1", "orpo-1", "orpo-2"}
    assert base in [engine.pid for engine in small.engines()]


def test_an_artifact_that_is_not_what_it_was_is_refused(small: Small) -> None:
    before = small.admin.get("/status").json()
    write_artifact(small.run_dir, "orpo", "orpo-2", wrong=1)
    refused = small.admin.post("/reload")
    assert refused.status_code == 409
    assert (
        "orpo does not answer as its artifact does: log-probabilities on the probe prompts differ by 0.500"
        in (refused.json()["error"]["message"])
    )
    (small.run_dir / "orpo" / "merged" / "model.txt").write_text("orpo-3 0")
    refused = small.admin.post("/reload")
    assert (refused.status_code, "model.txt was changed" in refused.text) == (409, True)
    write_artifact(small.run_dir, "orpo", "orpo-1")
    (small.run_dir / "base" / "merged" / "model.txt").write_text("base-2 0")  # of an engine that would stay
    refused = small.admin.post("/reload")
    assert (refused.status_code, "model.txt was changed" in refused.text) == (409, True)
    assert small.stream("orpo", 2) == "orpo-1"
    assert small.admin.get("/status").json() == before
    assert len(small.engines()) == 2
    assert 'trimtab_rollouts_total{result="failed"} 3.0' in small.admin.get("/metrics").text
    assert small.said("reload refused, all is as it was: ")


def test_an_error_that_none_foresaw_is_said_and_the_next_reload_is_done(small: Small) -> None:
    command = small.engine("base").cmdline()
    sockets = Path(command[command.index("--uds") + 1]).parent.parent
    for rollout in ("2", "3", "4"):
        (sockets / rollout).write_text("in the way of its sockets")
    for _ in range(2):
        small.process.send_signal(signal.SIGHUP)
        small.until(lambda: small.said("reload refused, all is as it was: FileExistsError("))
        small.lines.clear()
    refused = small.admin.post("/reload")
    assert (refused.status_code, "FileExistsError" in refused.json()["error"]["message"]) == (500, True)
    assert 'trimtab_rollouts_total{result="failed"} 3.0' in small.admin.get("/metrics").text
    small.write(aliases={"trial": "orpo"})
    small.process.send_signal(signal.SIGHUP)
    small.until(lambda: small.said("reloaded: "))
    assert small.stream("trial", 2) == "orpo-1"


def test_an_engine_that_ends_is_not_started_from_other_files(small: Small) -> None:
    (small.run_dir / "orpo" / "merged" / "model.txt").write_text("orpo-2 0")
    small.engine("orpo").kill()
    small.until(lambda: small.said("merged is not what was exported: model.txt was changed"))
    assert small.client.get("/ready").json()["models"] == {"base": True, "orpo": False}
    assert len(small.engines()) == 1


def test_weights_and_limits_change_without_an_engine_and_what_is_settled_does_not(small: Small) -> None:
    aliases = {"production": {"orpo": 1, "base": 3}, "trial": "orpo"}
    small.write(aliases=aliases, limits={"n": 2})
    assert small.admin.post("/reload").json()["result"].endswith("(engines started: none; stopped: none)")
    body = {"model": "trial", "prompt": "x", "max_tokens": 4, "stream": True}
    assert small.client.post("/v1/completions", json=body | {"n": 3}).status_code == 400
    assert 'trimtab_alias_weight{alias="production",model="base"} 3.0' in small.admin.get("/metrics").text

    for limits in ({"max_tokens": 3}, {"max_tokens": 3, "stop": 2}):  # engines know these limits too
        small.write(aliases=aliases, limits=limits)
        done = small.admin.post("/reload").json()["result"]
        assert done.endswith("(engines started: base, orpo; stopped: base, orpo)")
    assert small.stream("trial", 3) == "orpo-1"
    assert small.client.post("/v1/completions", json=body).status_code == 400

    small.write(port=free_port(), keys=True)
    refused = small.admin.post("/reload")
    assert refused.status_code == 400
    assert "serve.port, serve.keys changed: start the endpoint again" in refused.text
    small.write(drain_seconds=5, limits={"header_kib": 8, "send_seconds": 3, "read_seconds": 3})
    bound = ("drain_seconds", "limits.header_kib", "limits.send_seconds", "limits.read_seconds")
    assert ", ".join(f"serve.{key}" for key in bound) + " changed" in small.admin.post("/reload").text
    small.recipe.write_text("{")
    assert small.admin.post("/reload").status_code == 400
    assert small.stream("trial", 3) == "orpo-1"


def test_one_rollout_at_a_time(small: Small) -> None:
    write_artifact(small.run_dir, "orpo", "orpo-2")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(small.admin.post, "/reload")
        small.until(lambda: len(small.engines()) == 3)
        assert "engines are being started" in httpx.post(f"{small.admin.base_url}/reload").text
        assert first.result().status_code == 200


def test_the_admin_address_is_not_for_anyone(small: Small) -> None:
    assert small.admin.post("/reload", headers={"origin": "https://a.page"}).status_code == 403
    assert small.admin.get("/reload").status_code == 405
    assert small.admin.get("/v1/models").status_code == 404
    assert small.client.get("/metrics").status_code == 404
    assert small.client.post("/reload").status_code == 404
    assert small.admin.get("/engines/none/metrics").status_code == 404
    assert small.admin.get("/engines/orpo/metrics").status_code == 404  # the small engine's own word


def test_a_token_closes_what_changes_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_ADMIN_TOKEN", "wrench")
    small = Small(tmp_path)
    try:
        assert small.admin.get("/metrics").status_code == 200
        for headers in ({}, {"authorization": "Bearer hammer"}):
            assert small.admin.post("/reload", headers=headers).status_code == 401
            assert small.admin.get("/status", headers=headers).status_code == 401
        assert small.admin.post("/reload", headers={"authorization": "Bearer wrench"}).status_code == 200
        environment = json.dumps([engine.environ() for engine in small.engines()])
        assert "wrench" not in environment
        assert small.end() == 0
    finally:
        small.process.kill()
