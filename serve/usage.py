"""Tokens that an answer cost, read off its bytes as they pass."""

import json
import re

_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_KEPT = 1024  # bytes that may begin a usage whose end comes with the next chunk
_CHARACTERS = 4  # of English a token, where the engine was not asked to count


class Usage:
    """Tokens: what the engine's usage says; else a quarter of the prompt's characters, and an event a token."""

    def __init__(self, prompt_characters: int) -> None:
        self._prompt = prompt_characters // _CHARACTERS
        self._events = 0
        self._tail = b""
        self._said: list[bytes] = []

    def see(self, chunk: bytes) -> None:
        """Bytes of the answer, in turn."""
        self._events += chunk.count(b"data: ")
        seen = self._tail + chunk
        if b'"usage"' in seen:
            self._said = _USAGE.findall(seen) or self._said
        self._tail = seen[-_KEPT:]

    @property
    def counts(self) -> tuple[int, int]:
        """Tokens of the prompt and of the answer so far."""
        for found in reversed(self._said):
            try:
                usage = json.loads(found)
            except ValueError:
                continue
            if isinstance(total := usage.get("total_tokens"), int):
                prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
                prompt = prompt if isinstance(prompt, int) else 0
                return prompt, total - prompt
        return self._prompt, self._events
