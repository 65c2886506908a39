"""Where two answers differ, word by word."""

import re
from difflib import SequenceMatcher

from trimtab.demo.safe_markdown import escaped

_WORDS = re.compile(r"\w+(?:['’]\w+)*\s*|[^\w\s]\s*|\s+")  # each with the space after it


def word_diff(before: str, after: str) -> str:
    """``after`` as escaped HTML: words that ``before`` lacks in ``<ins>``, those only it has in ``<del>``.

    Spaces and line breaks are those of ``after``, and no differences.
    """
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    pieces = []
    words = [word.strip() for word in old], [word.strip() for word in new]
    for what, a, b, c, d in SequenceMatcher(None, words[0], words[1], autojunk=False).get_opcodes():
        if what == "equal":
            pieces.append(escaped("".join(new[c:d])))
            continue
        pieces += [_marked("del", "".join(old[a:b])), _marked("ins", "".join(new[c:d]))]
    return "".join(pieces)


def length_difference(before: str, after: str, name: str) -> str:
    """How much longer or shorter ``after`` is than ``before``, the answer of ``name``, in words."""
    words = len(after.split()) - len(before.split())
    if words == 0:
        return f"as long as {name}"
    return f"{abs(words)} word{'s' if abs(words) > 1 else ''} {'longer' if words > 0 else 'shorter'} than {name}"


def _marked(tag: str, text: str) -> str:
    return f"<{tag}>{escaped(text)}</{tag}>" if text else ""
