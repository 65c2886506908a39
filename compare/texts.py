"""What can be counted in answers: variety, repetition, refusals, emptiness."""

import re
from collections.abc import Sequence

# How models begin when they decline. Only the beginning counts: later on the words may be advice.
_REFUSAL = re.compile(
    r"^\W*(?:(?:i'?m|i am|we'?re|we are) (?:very |so |really )?(?:sorry|afraid|unable|not "
    r"able)|sorry\b|apologies\b|"
    r"i (?:really |simply )?(?:can'?t|cannot|can not|won'?t|will not|must decline|don'?t know)\b|"
    r"as an (?:ai|artificial|language)\b|unfortunately,? i\b|i do not (?:know|have)\b)",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    """Lower-case runs of letters, digits and apostrophes."""
    return re.findall(r"[\w']+", text.lower())


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams of ``texts`` together (Li et al., arXiv 1510.03055); 0 where there is
    none."""
    grams = [gram for text in texts for gram in _grams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: str, n: int = 4) -> float:
    """Share of a text's n-grams that it has said before (seq-rep-n of Welleck et al., arXiv 1908.04319)."""
    grams = _grams(words(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def refuses(text: str) -> bool:
    """Whether an answer begins as one that declines to answer, or says that it does not know."""
    return _REFUSAL.search(text.replace("’", "'").strip()) is not None


def is_empty(text: str) -> bool:
    """Whether an answer holds no letter and no digit."""
    return not any(character.isalnum() for character in text)


def _grams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]
