"""Requests and tokens a minute, by key, kept in memory or in a Redis that several fronts share."""

import math
import time
from collections import Counter
from contextlib import suppress
from typing import Any, NoReturn

from limits import RateLimitItemPerMinute
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string

from trimtab.artifacts.errors import InputError
from trimtab.serve.errors import Refused
from trimtab.serve.keys import Key


class InWork:
    """How many requests of each caller are in work."""

    def __init__(self) -> None:
        self._now: Counter[str] = Counter()

    def enter(self, caller: str, most: int) -> None:
        """One more. Refused (429) past ``most``."""
        if self._now[caller] >= most:
            raise Refused(
                429,
                f"{most} requests are in work already; try again when one has ended",
                code="rate_limit_exceeded",
                headers={"Retry-After": "1"},
            )
        self._now[caller] += 1

    def leave(self, caller: str) -> None:
        """One less."""
        self._now[caller] -= 1
        if not self._now[caller]:
            del self._now[caller]


class Rates:
    """Counts what keys use. ``storage``: ``memory://``, or ``redis://HOST:PORT/DB`` and other places that the
    ``limits`` library knows."""

    def __init__(self, storage: str = "memory://") -> None:
        options: dict[str, Any] = {"implementation": "redispy"} if storage.startswith("redis") else {}
        try:
            kept: Any = storage_from_string(f"async+{storage}", wrap_exceptions=True, **options)
            self._requests = MovingWindowRateLimiter(kept)
            self._tokens = FixedWindowRateLimiter(kept)
        except Exception as error:  # the library raises what its drivers raise
            shown = storage.rpartition("@")[2]  # without its password
            raise InputError(
                f"serve.rate_storage={shown} cannot be used: {str(error).replace(storage, shown)}; "
                "give memory://, or redis://HOST:PORT/DB and have its client: pip install trimtab[redis]"
            ) from None

    async def admit(self, key: Key, tokens: int = 0) -> int:
        """Count one request and its prompt of about so many ``tokens``; how many of them were counted.

        Refused (429) when the key has used up its requests or tokens of this minute, 503 when they cannot be
        counted. A prompt of more than a minute's tokens is let in where none of them is used.
        """
        try:
            return await self._admit(key, tokens)
        except StorageError as error:
            raise Refused(503, "requests cannot be counted now; try again", code="limits_unavailable") from error

    async def _admit(self, key: Key, tokens: int) -> int:
        cost = 0 if key.tpm is None else max(1, min(tokens, key.tpm))
        if key.tpm is not None:  # a hit counts even where it is refused, so it comes last
            item = RateLimitItemPerMinute(key.tpm)
            if not await self._tokens.test(item, "tokens", key.id, cost=cost):
                await self._refuse_tokens(key, key.tpm)
        if key.rpm is not None:
            item = RateLimitItemPerMinute(key.rpm)
            if not await self._requests.hit(item, "requests", key.id):
                stats = await self._requests.get_window_stats(item, "requests", key.id)
                raise _over("requests", key.rpm, stats.reset_time)
        if key.tpm is not None and not await self._tokens.hit(
            RateLimitItemPerMinute(key.tpm), "tokens", key.id, cost=cost
        ):
            await self._refuse_tokens(key, key.tpm)
        return cost

    async def _refuse_tokens(self, key: Key, tpm: int) -> NoReturn:
        stats = await self._tokens.get_window_stats(RateLimitItemPerMinute(tpm), "tokens", key.id)
        raise _over("tokens", tpm, stats.reset_time)

    async def spend(self, key: Key, tokens: int) -> None:
        """Count what an answer took beside what ``admit`` counted. Answers of a minute may go past the limit."""
        if key.tpm is not None and tokens > 0:
            with suppress(StorageError):  # the next request hears of it
                await self._tokens.hit(RateLimitItemPerMinute(key.tpm), "tokens", key.id, cost=tokens)


def _over(what: str, limit: int, reset: float) -> Refused:
    wait = max(1, math.ceil(reset - time.time()))
    return Refused(
        429,
        f"this key's limit of {limit} {what} a minute is reached; try again in {wait} s",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(wait)},
    )
