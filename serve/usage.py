"""Tokens that an answer cost, read off its bytes as they pass."""

import json
import re

_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_KEPT = 4096  # bytes at the end of what has passed: the usage stands last
_CHARACTERS = 4  # of English a token, where the engine was not asked to count


class Usage:
    """``tokens``: what the engine's own usage says, prompt included; else its events, one a token, and the prompt
    by its characters."""

    def __init__(self, prompt_characters: int) -> None:
        self._prompt = prompt_characters // _CHARACTERS
        self._events = 0
        self._tail = b""

    def see(self, chunk: bytes) -> None:
        """Bytes of the answer, in turn."""
        self._events += chunk.count(b"data: ")
        self._tail = (self._tail + chunk)[-_KEPT:]

    @property
    def tokens(self) -> int:
        """So far."""
        for found in reversed(_USAGE.findall(self._tail)):
            try:
                total = json.loads(found).get("total_tokens")
            except ValueError:
                continue
            if isinstance(total, int):
                return total
        return self._prompt + self._events
