"""Limits that two endpoints share, in a real Redis; and what is said when it is gone."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.serve.errors import Refused
from trimtab.serve.keys import Key
from trimtab.serve.rates import Rates

KEY = Key("0123456789ab", "ci", 3, 100, (), 0, None, None, None)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The address of a Redis of its own, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0", process
    finally:
        process.kill()
        process.wait()


def test_two_endpoints_count_together_and_say_when_they_cannot(
    redis: tuple[str, "subprocess.Popen[bytes]"],
) -> None:
    address, process = redis

    async def all_of_it() -> None:
        one, other = Rates(address), Rates(address)
        for rates in (one, other, one):
            await rates.admit(KEY)
        for rates in (one, other):
            with pytest.raises(Refused, match="limit of 3 requests a minute") as refused:
                await rates.admit(KEY)
            assert refused.value.status == 429
        await one.spend(KEY, 200)
        with pytest.raises(Refused, match="limit of 100 tokens a minute"):
            await other.admit(KEY)
        process.kill()
        process.wait()
        with pytest.raises(Refused, match="cannot be counted now") as refused:
            await other.admit(KEY)
        assert refused.value.status == 503
        await one.spend(KEY, 1)  # an answer that is through is not taken back

    asyncio.run(all_of_it())


def test_prompts_are_counted_before_they_are_answered(redis: tuple[str, "subprocess.Popen[bytes]"]) -> None:
    async def all_of_it() -> None:
        for place in ("memory://", redis[0]):
            rates = Rates(place)
            key = replace(KEY, rpm=None)
            admitted = await asyncio.gather(*(rates.admit(key, 40) for _ in range(8)), return_exceptions=True)
            assert [each for each in admitted if isinstance(each, int)] == [40, 40]
            assert all(isinstance(each, Refused) for each in admitted if each != 40)
            long = replace(key, id="another")
            assert await rates.admit(long, 1000) == 100, "one prompt may be longer than a minute's tokens"
            with pytest.raises(Refused, match="limit of 100 tokens a minute"):
                await rates.admit(long, 1)

    asyncio.run(all_of_it())
