"""Web pages: where no key is needed, a browser on this machine would let any page use the endpoint."""

import re
from collections.abc import Collection
from functools import lru_cache

from starlette.datastructures import Headers

from trimtab.recipes.serve import is_loopback
from trimtab.serve.errors import Refused

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(:\d*)?", re.IGNORECASE)
_SHOWN = 100  # characters of a caller's words


def check_caller(headers: Headers, origins: Collection[str]) -> None:
    """Refused (403) for a page whose origin is none of ``origins``, or that calls this machine by another's name,
    which it may have pointed here (DNS rebinding)."""
    for origin in headers.getlist("origin"):
        if origin not in origins:
            raise Refused(
                403,
                f"web pages of {origin[:_SHOWN]!r} may not use this endpoint; list theirs in serve.allow_origins",
                code="origin_not_allowed",
            )
    for host in headers.getlist("host"):
        if not _is_local(host):
            raise Refused(
                403,
                f"this endpoint has no keys and is called 127.0.0.1 or localhost, not {host[:_SHOWN]!r}; "
                "for other names set serve.keys=true",
                code="host_not_allowed",
            )


@lru_cache(maxsize=64)
def _is_local(host: str) -> bool:
    match = _HOST.fullmatch(host)
    name = match[1].strip("[]").lower().removesuffix(".") if match else ""
    return name.endswith(".localhost") or is_loopback(name)
