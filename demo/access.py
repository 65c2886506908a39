"""Who may open the page, and how often a visitor may ask: for pages that other machines can reach."""

import hmac
import time
from pathlib import Path

import gradio as gr
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.storage import MemoryStorage as LoginStorage
from limits.strategies import MovingWindowRateLimiter as LoginLimiter

from trimtab.artifacts.errors import InputError

LOGINS_PER_MINUTE = 10  # tries for one name


class Logins:
    """Names and passwords from a file, as Gradio's ``auth`` wants them: a function that says yes or no."""

    def __init__(self, path: Path) -> None:
        self._passwords = read_logins(path)
        self._tries = LoginLimiter(LoginStorage())

    def __call__(self, name: str, password: str) -> bool:
        """Whether ``password`` is that of ``name``; after too many tries within a minute, no."""
        if not self._tries.hit(RateLimitItemPerMinute(LOGINS_PER_MINUTE), name):
            return False
        wanted = self._passwords.get(name, "")
        same = hmac.compare_digest(wanted.encode(), password.encode("utf-8", "surrogatepass"))
        return same and name in self._passwords


def read_logins(path: Path) -> dict[str, str]:
    """Passwords by name. InputError: no such file, open to others, or a line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        others = path.stat().st_mode & 0o077
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"demo.auth_file={path} cannot be read: {error}") from error
    if others:
        raise InputError(f"demo.auth_file={path} can be read by others; close it: chmod 600 {path}")
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        if not colon or not name.strip() or not password:
            raise InputError(f"demo.auth_file={path}, line {number}: needs the form name:password")
        found[name.strip()] = password
    if not found:
        raise InputError(f"demo.auth_file={path} names nobody; give it lines of the form name:password")
    return found


class Visitors:
    """How many answers a visitor may ask for in a minute; None: as many as they like."""

    def __init__(self, requests_per_minute: int | None = None) -> None:
        self._item = RateLimitItemPerMinute(requests_per_minute) if requests_per_minute else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def refusal(self, request: gr.Request, cost: int = 1) -> str | None:
        """Why ``cost`` more answers are not given now; None, and counted, where they are."""
        if self._item is None:
            return None
        name = identity(request)
        if cost > self._item.amount:
            return f"{cost} answers at once are more than the {self._item.amount} a minute that are allowed here"
        if await self._limiter.hit(self._item, name, cost=cost):
            return None
        window = await self._limiter.get_window_stats(self._item, name)
        seconds = max(1, round(window.reset_time - time.time()))
        return f"{self._item.amount} answers a minute are allowed here; ask again in {seconds} s"


def identity(request: gr.Request) -> str:
    """Who asks: the name of the login, the address without one."""
    return request.username or (request.client.host if request.client else "unknown")
