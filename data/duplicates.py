"""Prompts that say nearly the same: MinHash over word triples, candidates by locality-sensitive hashing."""

import re
from typing import Any

import xxhash

NEAR = 0.8  # Jaccard similarity of the sets of word triples
_PERMUTATIONS = 64
_BANDS = (10, 6)  # finds 95 % of pairs at similarity 0.8, 99.9 % at 0.9; what it finds is then measured
_WORD = re.compile(r"\w+")


class PromptGroups:
    """Groups prompts as they come: ``add`` joins a text to those that are near it.

    Similarity is estimated from 64 hashes (standard error 0.05 at the limit). Broder 1997, "On the resemblance and
    containment of documents"; the sketches and the index are datasketch's.
    """

    def __init__(self, near: float = NEAR) -> None:
        from datasketch import MinHash, MinHashLSH

        self._near = near
        self._sketch = MinHash
        self._permutations = MinHash(num_perm=_PERMUTATIONS).permutations
        self._index = MinHashLSH(num_perm=_PERMUTATIONS, params=_BANDS)
        self._sketches: list[Any] = []
        self._parent: list[int] = []
        self._by_text: dict[int, int] = {}  # hash of the words -> member

    def add(self, text: str) -> int:
        """Add ``text``; the number of its member (equal texts are one). ``group`` says where it belongs."""
        member, sketch, near = self._look_up(text)
        if member is not None:
            return member
        member = len(self._parent)
        self._by_text[_key(text)] = member
        self._parent.append(member)
        self._sketches.append(sketch.hashvalues)
        self._index.insert(member, sketch, check_duplication=False)
        for other in near:
            first, second = sorted((self.group(member), self.group(other)))
            self._parent[second] = first
        return member

    def holds(self, text: str) -> bool:
        """True when ``text`` or one near it was added."""
        member, _, near = self._look_up(text)
        return member is not None or bool(near)

    def group(self, member: int) -> int:
        """The first member of the group that ``member`` belongs to by now."""
        while self._parent[member] != member:
            self._parent[member] = self._parent[self._parent[member]]
            member = self._parent[member]
        return member

    def _look_up(self, text: str) -> tuple[int | None, Any, list[int]]:
        known = self._by_text.get(_key(text))
        if known is not None:
            return known, None, []
        sketch = self._sketch(
            num_perm=_PERMUTATIONS,
            hashfunc=xxhash.xxh32_intdigest,
            permutations=self._permutations,
            scheme="affine32",
        )
        sketch.update_batch(_triples(text))
        near = [
            other
            for other in self._index.query(sketch)
            if (self._sketches[other] == sketch.hashvalues).mean() >= self._near
        ]
        return None, sketch, near


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower()) or [text]


def _key(text: str) -> int:
    return int(xxhash.xxh3_64_intdigest(" ".join(_words(text)).encode("utf-8", "surrogatepass")))


def _triples(text: str) -> list[bytes]:
    words = ["", *_words(text), ""]  # with its two ends even one word is a triple
    return [
        " ".join(triple).encode("utf-8", "surrogatepass")
        for triple in zip(words, words[1:], words[2:], strict=False)
    ]
