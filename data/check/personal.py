"""Personal data and secrets: e-mail addresses, phone and card numbers, keys. Found, counted, never printed."""

import re
from collections import Counter

from trimtab.data.check.findings import Facts, Finding, Histogram, worst

_PATTERNS = {
    "e-mail": re.compile(r"[\w.+-]+@(?!example\.)[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}"),
    "key": re.compile(
        r"\b(?:sk-[\w-]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_\w{36,}|github_pat_\w{22,}|hf_[A-Za-z0-9]{30,}"
        r"|xox[abprs]-[\w-]{10,}|AIza[\w-]{35}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[\s\S]{0,9000}?-----END [A-Z ]*PRIVATE KEY-----)?"
    ),
    "card": re.compile(
        r"(?<![\w.,-])(?:[2-6]\d{12,18}|[2-6]\d{3}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -])\d{6}\2\d{5})"
        r"(?![.,-]?\w)"
    ),
    "phone": re.compile(
        r"(?<![\w.+-])(?<!\d )(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\) ?|\d{2,4}[ .-])\d{3,4}[ .-]\d{3,4}"
        r"(?![ .-]?\d|[\w-])"
    ),
}
_DIGITS = re.compile(r"\d{3}[ .-]?\d{3}")  # in every card and phone number, and in few texts
_KEY_PARTS = (
    "sk-",
    "AKIA",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "hf_",
    "xox",
    "AIza",
    "eyJ",
    "-----",
)


def mask(text: str) -> tuple[str, list[str]]:
    """``text`` with what was found replaced by its kind in brackets, and the kinds."""
    found: list[str] = []
    for kind in _kinds(text):

        def replace(match: re.Match[str], kind: str = kind) -> str:
            if not _is(kind, match[0]):
                return match[0]
            found.append(kind)
            return f"[{kind}]"

        text = _PATTERNS[kind].sub(replace, text)
    return text, found


class PersonalData:
    """Counts of what looks personal or secret, by kind."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._rows: list[tuple[float, int]] = []

    def add(self, facts: Facts) -> None:
        """Look through the three texts of one pair."""
        found = [kind for text in (facts.prompt, facts.chosen, facts.rejected) for kind in _found(text)]
        if found:
            self._kinds.update(set(found))
            self._rows.append((len(found) + 100 * ("key" in found), facts.number))

    def finish(self) -> tuple[Finding, list[Histogram]]:
        """How many pairs hold what, by kind."""
        parts = ", ".join(f"{kind} in {count}" for kind, count in self._kinds.most_common())
        kinds = f": {parts}" if parts else ""
        finding = Finding(
            "personal data",
            "warning" if self._rows else "ok",
            f"{len(self._rows)} pairs hold what looks like personal data or a secret{kinds}",
            {"count": len(self._rows), **self._kinds},
            worst(self._rows),
        )
        return finding, []


def _found(text: str) -> list[str]:
    return [kind for kind in _kinds(text) for match in _PATTERNS[kind].finditer(text) if _is(kind, match[0])]


def _kinds(text: str) -> list[str]:
    """The kinds worth looking for, told by cheap signs that most texts lack."""
    kinds = ["e-mail"] if "@" in text else []
    kinds += ["key"] if any(part in text for part in _KEY_PARTS) else []
    return kinds + (["card", "phone"] if _DIGITS.search(text) else [])


def _is(kind: str, text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    if kind == "phone":
        return 9 <= len(digits) <= 15
    return kind != "card" or _luhn(digits)


def _luhn(digits: list[int]) -> bool:
    """The check digit of card numbers, ISO/IEC 7812-1 annex B; numbers of one digit repeated are no cards."""
    doubled = (digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2])
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
