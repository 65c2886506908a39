"""The ``serve`` section of a recipe: the endpoint, its guard and its engines."""

import ipaddress
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from trimtab.recipes.section import Count, Port, Positive, Section


class RequestLimits(Section):
    """The most that one request may ask for, and a key at a time.

    ``n``: answers (``n``, ``best_of``) and prompts of one request. ``logprobs``: alternatives a token, of answer
    and prompt. ``max_tokens``: of an answer; by default as many as ``max_model_len`` leaves. ``streams``: requests
    of one key (without keys, of all callers) in work at once. A prompt's tokens are limited by ``max_model_len``.
    """

    body_mib: Count = 4
    prompt_characters: Count = 200_000
    max_tokens: Count | None = None
    n: Count = 4
    logprobs: Annotated[int, Field(ge=0, le=20)] = 20
    stop: Count = 8
    streams: Count = 64


class ServeSection(Section):
    """The endpoint.

    ``canary_seconds``: between two probes of an engine that is ready; one that answers otherwise, or not within
    ``canary_timeout`` seconds, is taken out and started again. ``keys``: whether requests need a key (``trimtab
    keys``); without, only loopback is listened on. ``key_store``: their file, by default ``TRIMTAB_KEYS`` or
    ``~/.config/trimtab/keys.sqlite``. ``rate_storage``: where requests and tokens a minute are counted,
    ``redis://HOST:PORT/DB`` for several endpoints that share limits.
    ``probe_limit``: mean absolute difference in nats a token from the manifest's probe, which was computed in
    float32; twice that for NF4, whose kernels round more than GPTQ's.
    """

    host: str = "127.0.0.1"
    port: Port = 8000
    mode: Literal["release", "adapters"] = "release"
    max_model_len: Annotated[int, Field(ge=128)] = 2048
    max_num_seqs: Count = 16
    kv_cache_gib: Count = 1
    startup_timeout: Positive = 600
    probe_limit: Positive = 0.1
    canary_seconds: Positive = 60
    canary_timeout: Positive = 300
    keys: bool = False
    key_store: str | None = None
    rate_storage: str = "memory://"
    limits: RequestLimits = RequestLimits()

    @field_validator("rate_storage")
    @classmethod
    def _no_password(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("a password does not belong in a recipe: give the address as TRIMTAB_RATE_STORAGE")
        return value

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> "ServeSection":
        if not self.keys and not self.on_loopback:
            raise ValueError(
                f"host {self.host} is open to other machines, and without keys to anyone there: make a key "
                "(trimtab keys new --name NAME) and set keys=true, or listen on 127.0.0.1"
            )
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches the endpoint."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def url(self) -> str:
        """The endpoint's base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"
