"""Pairs under a model's own chat template and tokenizer: what it refuses, imitated control tokens, lengths."""

import re
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.data.check.findings import Facts, Finding, worst
from trimtab.data.pair import Pair, RowError
from trimtab.data.render import RenderedPair, render, render_pair

# How templates mark turns, in families: ChatML and Llama 3, Llama 2 and Mistral, Gemma.
MARKERS = re.compile(r"<\|[A-Za-z][\w ]*\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")


class ControlTokenLooks:
    """Without a model: text that looks like some template's control tokens."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, int]] = []

    def add(self, facts: Facts) -> None:
        """Look through the three texts of one pair."""
        found = sum(len(MARKERS.findall(text)) for text in (facts.prompt, facts.chosen, facts.rejected))
        if found:
            self._rows.append((found, facts.number))

    def finish(self) -> tuple[Finding, list[Any]]:
        """How many pairs, and which."""
        finding = Finding(
            "control tokens",
            "warning" if self._rows else "ok",
            f"{len(self._rows)} pairs hold text like a chat template's control tokens; "
            "--model says whether they are its own",
            {"count": len(self._rows)},
            worst(self._rows),
        )
        return finding, []


class Template:
    """A model's tokenizer and chat template, for row errors and token counts."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._end = tokenizer.eos_token
        added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        special = set(tokenizer.all_special_tokens) | set(added)
        turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
        template = f"{tokenizer.chat_template}{render(tokenizer, turns)}"
        markers = set(MARKERS.findall(template))
        control = markers | {token for token in special if token in template} | set(tokenizer.all_special_tokens)
        self._control = _any_of(control - {None, ""})
        self._special = _any_of(special - control)
        self._other: list[tuple[float, int]] = []

    def look_at(self, batch: list[Facts]) -> list[RowError | None]:
        """For each pair what is wrong with it; the token counts of the others are filled in."""
        rendered = [self._rendered(facts) for facts in batch]
        good = [
            (facts, text) for facts, text in zip(batch, rendered, strict=True) if isinstance(text, RenderedPair)
        ]
        counts = [self._counts([text[side] for _, text in good]) for side in range(3)]
        for (facts, _), prompt, chosen, rejected in zip(good, *counts, strict=True):
            facts.tokens = (prompt, chosen, rejected)
        return [text if isinstance(text, RowError) else None for text in rendered]

    def without_end(self, text: str) -> str:
        """``text`` without end-of-turn tokens at its end, which data made with a template often has."""
        return text.rstrip().removesuffix(self._end).rstrip() if text.rstrip().endswith(self._end) else text

    def finish(self) -> Finding:
        """Special tokens of the tokenizer that the template does not use: text that becomes one odd token."""
        return Finding(
            "special tokens",
            "warning" if self._other else "ok",
            f"{len(self._other)} pairs hold text that the tokenizer reads as one of its special tokens",
            {"count": len(self._other)},
            worst(self._other),
        )

    def _rendered(self, facts: Facts) -> RenderedPair | RowError:
        texts = [message["content"] for message in _messages(facts.pair)]
        for text in texts:
            if self._control and (match := self._control.search(text)):
                return RowError("control tokens", f"a message holds the template's control token {match[0]!r}")
        try:
            rendered = render_pair(self._tokenizer, facts.pair)
        except InputError as error:
            return RowError("chat template", str(error))
        except Exception as error:  # templates raise what they like
            return RowError("chat template", f"the chat template refuses the row: {error}")
        if self._special and any(self._special.search(text) for text in texts):
            self._other.append((0.0, facts.number))
        return rendered

    def _counts(self, texts: list[str]) -> list[int]:
        if not texts:
            return []
        encoded = self._tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
        return [len(ids) for ids in encoded["input_ids"]]


def _messages(pair: Pair) -> list[dict[str, str]]:
    return [*pair.prompt, *pair.chosen, *pair.rejected]


def _any_of(tokens: set[Any]) -> re.Pattern[str] | None:
    ordered = sorted(map(str, tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None
