"""The ``serve`` section of a recipe: the endpoint, its guard and its engines."""

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from trimtab.recipes.section import Count, Port, Positive, Section

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_ORIGIN = r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[^\s/:@?#A-Z]+)(:\d{1,5})?"


class RequestLimits(Section):
    """The most that one request may ask for, and a key at a time.

    ``n``: answers (``n``, ``best_of``) and prompts of one request. ``logprobs``: alternatives a token, of answer
    and prompt. ``max_tokens``: of an answer; by default as many as ``max_model_len`` leaves. ``streams``: requests
    of one key (without keys, of all callers) in work at once. ``header_kib``: of the request line and headers.
    ``send_seconds``: until headers, and again until the body, have come whole. ``read_seconds``: who takes nothing
    of an answer for so long is cut off. A prompt's tokens are limited by ``max_model_len``.
    """

    body_mib: Count = 4
    header_kib: Count = 16
    send_seconds: Positive = 30
    read_seconds: Positive = 60
    prompt_characters: Count = 200_000
    max_tokens: Count | None = None
    n: Count = 4
    logprobs: Annotated[int, Field(ge=0, le=20)] = 20
    stop: Count = 8
    streams: Count = 64


class ServeSection(Section):
    """The endpoint.

    ``aliases``: other names for arms, ``production: orpo``, or by weight, ``production: {orpo: 90, dpo: 10}``;
    whoever sends the same ``user`` gets the same arm. ``admin_host``, ``admin_port``: where metrics, status and
    reload are; without a port nowhere. ``drain_seconds``: for answers in work when their engine is replaced or
    the endpoint is stopped. ``gpu_memory``: share of each GPU's memory that the engines divide; leave room for
    one more where artifacts are to be replaced without a pause. ``tensor_parallel_size``: GPUs that an engine's
    model is split over. ``gptq_kernel``: how 4-bit GPTQ is computed on a CPU: by vLLM's ``compiled`` kernel, which
    needs AVX-512, or ``unpacked`` once to float32 in eight times the memory; ``auto`` is the first where it is
    there. ``here``: whether the artifacts are for this machine; false to export what another one will serve.
    ``log_dir``: where each engine's log goes, by default ``serve`` of the run.
    ``request_log``: a file, or ``stdout``, with a line of JSON a request; ``log_prompts`` adds what was asked.
    ``tls_certificate``, ``tls_key``: PEM files, for https.
    ``canary_seconds``: between two probes of an engine that is ready; one that answers otherwise, or not within
    ``canary_timeout`` seconds, is taken out and started again. ``keys``: whether requests need a key (``trimtab
    keys``); without, only loopback is listened on. ``key_store``: their file, by default ``TRIMTAB_KEYS`` or
    ``~/.config/trimtab/keys.sqlite``. ``rate_storage``: where requests and tokens a minute are counted,
    ``redis://HOST:PORT/DB`` for several endpoints that share limits. ``allow_origins``: web pages that may use the
    endpoint from a browser, ``https://chat.example``; with keys also ``*``, all. ``probe_limit``: mean absolute
    difference in nats a token from the manifest's probe, which was computed in float32; twice that for NF4, whose
    kernels round more than GPTQ's.
    """

    host: str = "127.0.0.1"
    port: Port = 8000
    mode: Literal["release", "adapters"] = "release"
    tensor_parallel_size: Count = 1
    max_model_len: Annotated[int, Field(ge=128)] = 2048
    max_num_seqs: Count = 16
    kv_cache_gib: Count = 1
    gptq_kernel: Literal["auto", "compiled", "unpacked"] = "auto"
    here: bool = True
    startup_timeout: Positive = 600
    probe_limit: Positive = 0.1
    canary_seconds: Positive = 60
    canary_timeout: Positive = 300
    aliases: dict[str, dict[str, Count]] = Field(default_factory=dict)
    admin_host: str = "127.0.0.1"
    admin_port: Port | None = None
    drain_seconds: Positive = 30
    gpu_memory: Annotated[float, Field(gt=0, le=0.95)] = 0.9
    log_dir: str | None = None
    request_log: str | None = None
    log_prompts: bool = False
    tls_certificate: str | None = None
    tls_key: str | None = None
    keys: bool = False
    key_store: str | None = None
    rate_storage: str = "memory://"
    allow_origins: list[str] = Field(default_factory=list)
    limits: RequestLimits = RequestLimits()

    @field_validator("aliases", mode="before")
    @classmethod
    def _as_weights(cls, value: object) -> object:
        """``production: orpo`` is ``production: {orpo: 1}``."""
        if not isinstance(value, dict):
            return value
        return {name: {arms: 1} if isinstance(arms, str) else arms for name, arms in value.items()}

    @field_validator("aliases")
    @classmethod
    def _named(cls, value: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
        for name, arms in value.items():
            if not re.fullmatch(NAME, name):
                raise ValueError(f"{name!r} is no name: letters, digits and . _ - are allowed, 64 at most")
            if not arms:
                raise ValueError(f"{name} names no arm: give one, or arms with weights: {{orpo: 90, dpo: 10}}")
        return value

    @field_validator("rate_storage")
    @classmethod
    def _no_password(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("a password does not belong in a recipe: give the address as TRIMTAB_RATE_STORAGE")
        return value

    @field_validator("allow_origins")
    @classmethod
    def _origins(cls, value: list[str]) -> list[str]:
        for origin in value:
            if origin != "*" and not re.fullmatch(_ORIGIN, origin):
                raise ValueError(f"{origin!r} is no origin: give https://HOST or http://HOST:PORT, lower case")
        return value

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> "ServeSection":
        if not self.keys and not self.on_loopback:
            raise ValueError(
                f"host {self.host} is open to other machines, and without keys to anyone there: make a key "
                "(trimtab keys new --name NAME) and set keys=true, or listen on 127.0.0.1"
            )
        if not self.keys and "*" in self.allow_origins:
            raise ValueError(
                "allow_origins * opens an endpoint without keys to any web page that a browser here shows: "
                "list the pages' origins, or set keys=true"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("https needs both: give tls_certificate and tls_key, or neither")
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches the endpoint."""
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """The endpoint's base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_key else 'http'}://{host}:{self.port}/v1"


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
