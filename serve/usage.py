"""Tokens that an answer cost, read off its bytes as they pass."""

import json
import re

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_WHOLE = re.compile(rb'(?:[^"]++|' + _STRING + rb")*+", re.DOTALL)  # all before a string that has no end yet
_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_BEGUN = re.compile(rb'"usage"\s*(?::\s*(?:\{(?:[^{}]|\{[^{}]*\})*(?:\{[^{}]*)?)?)?')
_CHARACTERS = 4  # of English a token, where the engine was not asked to count


class Usage:
    """Tokens: the engine's own ``usage``, and ours: a quarter of the prompt's characters, and an event a token.

    The engine's stands at the top of its answer, or of an event or its ``response``. What stands deeper is a
    request's, given back: its tools, its form of answers.
    """

    def __init__(self, prompt_characters: int) -> None:
        self.prompt = prompt_characters // _CHARACTERS
        self._events = 0
        self._line_ended = False
        self._said: tuple[int, int] | None = None
        self._deepest = 0  # where the engine's may stand
        self._depth = 0  # of what has been read
        self._tail = b""  # what is read with the next bytes

    def see(self, chunk: bytes) -> None:
        """Bytes of the answer, in turn."""
        self._events += chunk.count(b"\n\n") + (self._line_ended and chunk.startswith(b"\n"))
        self._line_ended = chunk.endswith(b"\n")
        if not self._deepest:
            self._deepest = 1 if chunk.lstrip()[:1] == b"{" else 2
        if not self._depth and not self._tail and chunk.endswith(b"\n\n") and b'"usage"' not in chunk:
            return  # whole events that say nothing
        seen = self._tail + chunk
        whole = _WHOLE.match(seen)
        start, end = 0, whole.end() if whole else 0
        for match in _USAGE.finditer(seen, 0, end):
            self._depth += _opened(seen[start : match.start()])
            start = match.start()
            if 0 < self._depth <= self._deepest:
                self._take(match[1])
        begun = seen.rfind(b'"usage"', start, end)
        if begun >= 0 and _BEGUN.fullmatch(seen, begun, end):
            end = begun
        self._depth += _opened(seen[start:end])
        self._tail = seen[end:]

    def _take(self, found: bytes) -> None:
        try:
            usage = json.loads(found)
        except ValueError:
            return
        total, prompt = usage.get("total_tokens"), usage.get("prompt_tokens", usage.get("input_tokens"))
        if isinstance(total, int) and total >= sum(self._said or (0,)):
            prompt = min(max(prompt, 0), total) if isinstance(prompt, int) else 0
            self._said = prompt, total - prompt

    @property
    def counts(self) -> tuple[int, int]:
        """Tokens of the prompt and of the answer so far: the engine's where it said them, else ours."""
        return self._said or (self.prompt, self._events)

    @property
    def charged(self) -> int:
        """The larger of the engine's sum and ours."""
        return max(sum(self.counts), self.prompt + self._events)


def _opened(text: bytes) -> int:
    """How many levels of objects and lists ``text`` goes down."""
    bare = _STRINGS.sub(b"", text)
    return bare.count(b"{") + bare.count(b"[") - bare.count(b"}") - bare.count(b"]")
