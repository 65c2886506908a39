"""Web pages: which may use the endpoint, with keys and without."""

from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers
from test_guard import ASK, StandIn, bearer, run

from trimtab.recipes.serve import ServeSection
from trimtab.serve.errors import Refused
from trimtab.serve.front import Guard
from trimtab.serve.keys import KeyStore
from trimtab.serve.pages import check_caller
from trimtab.serve.rates import Rates
from trimtab.serve.records import RequestRecord

PAGE = "https://chat.example"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type, x-stainless-os",
}


def test_without_keys_no_page_is_let_in_that_is_not_listed(tmp_path: Path) -> None:
    records: list[RequestRecord] = []

    async def check(client: httpx.AsyncClient, engines: dict[str, StandIn], port: int) -> None:
        for headers, code in (
            ({"origin": "https://evil.example", "content-type": "text/plain"}, "origin_not_allowed"),
            ({"origin": "null"}, "origin_not_allowed"),
            ({"origin": f"http://127.0.0.1:{port}"}, "origin_not_allowed"),
            ({"host": "evil.example"}, "host_not_allowed"),
            ({"host": f"evil.example:{port}", "origin": PAGE}, "host_not_allowed"),
        ):
            for answer in (
                await client.post("/v1/completions", json=ASK, headers=headers),
                await client.get("/v1/models", headers=headers),
            ):
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, code)
                assert records[-1].error == code
        answer = await client.post("/v1/completions", json=ASK, headers={"origin": PAGE})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
        assert (await client.post("/v1/completions", json=ASK)).status_code == 200

    run(tmp_path, Guard(origins=(PAGE,)), check, sinks=[records.append])


@pytest.mark.parametrize("origins", [(), (PAGE,), ("*",)])
def test_with_keys_pages_that_are_listed_may_read_answers(origins: tuple[str, ...], tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.sqlite") as store:
        key = store.new("key")

        async def check(client: httpx.AsyncClient, engines: dict[str, StandIn], port: int) -> None:
            for page, open_to in ((PAGE, bool(origins)), ("https://evil.example", origins == ("*",))):
                asked = await client.options("/v1/completions", headers=PREFLIGHT | {"origin": page})
                assert (asked.status_code, "access-control-allow-origin" in asked.headers) == (
                    (200, True) if open_to else (400 if origins else 405, False)
                )
                headers = bearer(key) | {"origin": page, "host": "endpoint:8000"}
                answer = await client.post("/v1/completions", json=ASK, headers=headers)
                assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, open_to)

        run(tmp_path, Guard(store, Rates(), origins), check)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "[::1]", "a.localhost:1"]
)
def test_names_of_this_machine(host: str) -> None:
    check_caller(Headers({"host": host}), ())


@pytest.mark.parametrize(
    "host",
    [
        *("", "x", "endpoint:8000", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.5"),
        *(
            "[::2]",
            "127.0.0.1@evil.example",
            "127.0.0.1:80:80",
            "evil.example#localhost",
            "localhost, evil.example",
        ),
    ],
)
def test_names_of_others(host: str) -> None:
    with pytest.raises(Refused, match=r"set serve\.keys=true"):
        check_caller(Headers({"host": host}), ())


def test_origins_of_a_recipe() -> None:
    assert ServeSection(allow_origins=[PAGE, "http://127.0.0.1:3000", "app://obsidian.md"]).allow_origins
    assert ServeSection(allow_origins=["*"], keys=True).allow_origins == ["*"]
    with pytest.raises(ValueError, match="opens an endpoint without keys"):
        ServeSection(allow_origins=["*"])
    for wrong in ("chat.example", "https://chat.example/", "https://Chat.example", "null", "https://a@b"):
        with pytest.raises(ValueError, match="is no origin"):
            ServeSection(allow_origins=[wrong], keys=True)
