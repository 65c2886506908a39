"""Names as a published card may hold them: hub ids, and of local paths the last part only."""

import re
from pathlib import Path
from typing import Any

from trimtab.artifacts.base_model import EMBEDDED

EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_EMBEDDED_LICENSE = "apache-2.0"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# a path that begins at a root, a home or a parent folder, inside a longer text; no address of the web
_PATH_IN_TEXT = re.compile(r"(?<![\w:/.~-])(?:~[\w.-]*|\.{1,2})?/(?:[^\s'\",;/]+/)*([^\s'\",;/]+)/?")
_LICENSES = (("Apache License", "apache-2.0"), ("MIT License", "mit"))


def hub_id(base: str) -> str | None:
    """The hub's id of the base model named ``base``; None for a local directory."""
    if base == EMBEDDED:
        return EMBEDDED_HUB_ID
    return base if _HUB_ID.fullmatch(base) and not Path(base).exists() else None


def public_name(path: str) -> str:
    """``path`` with no folder of this machine in it: names joined by + each for itself."""
    return " + ".join(_last_part(name) for name in path.split(" + "))


def public(value: Any) -> Any:
    """A recipe's or a metric's value with local paths cut to their names."""
    if isinstance(value, dict):
        return {key: public(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public(item) for item in value]
    return public_name(value) if isinstance(value, str) else value


def license_of(base: str, *directories: Path) -> str | None:
    """The base's license as the hub names it, from a card or LICENSE file in ``directories``; None if unknown."""
    if base == EMBEDDED:
        return _EMBEDDED_LICENSE
    for directory in directories:
        card = directory / "README.md"
        front = card.read_text(encoding="utf-8").split("---\n")[1:2] if card.is_file() else []
        if found := re.search(r"^license: *([\w.-]+) *$", "".join(front), re.MULTILINE):
            return found[1]
        for path in sorted(directory.glob("LICENSE*")):
            head = path.read_text(encoding="utf-8", errors="replace")[:400]
            for title, name in _LICENSES:
                if title in head:
                    return name
    return None


def _last_part(name: str) -> str:
    """The whole of a name may be a path with spaces; inside a text a path ends where a space is."""
    share, of, path = name.rpartition(" of ")
    if path.startswith(("/", "~", "./", "../")):
        return share + of + Path(path).name
    cut = _PATH_IN_TEXT.sub(r"\1", name)
    return cut if cut.count("/") <= 1 or "://" in cut else Path(cut).name
