"""The sample set's chosen style, as a check that a program makes and a reader sees at a glance.

An answer has the style when it is, in this order and with nothing else:

1. one sentence that answers directly, on a line of its own;
2. two or three bullet points, each a line that starts with ``- ``;
3. one line that starts with ``Next step:``;

and has at most 90 words in all. Blank lines between the parts are free.
"""

import re

MAX_WORDS = 90
BULLETS = (2, 3)

_SENTENCE_BREAK = re.compile(r"[.!?][\"')\]]*\s+(?=[\"'(\[]*[A-Z])")
_ABBREVIATION = re.compile(r"\b(?:[A-Z]|Mr|Mrs|Ms|Dr|St|vs|e\.g|i\.e|etc|approx|No)\.\s+$")


def word_count(text: str) -> int:
    """Number of white-space separated words that hold a letter or a digit."""
    return sum(any(c.isalnum() for c in word) for word in text.split())


def style_faults(answer: str) -> list[str]:
    """Why ``answer`` is not in the chosen style, one phrase a fault; an empty list if it is."""
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    if not lines:
        return ["empty answer"]
    faults = []
    bullets = [i for i, line in enumerate(lines) if re.match(r"[-*•]\s+\S", line)]
    steps = [i for i, line in enumerate(lines) if line.startswith("Next step:")]
    if 0 in bullets or 0 in steps:
        faults.append("no direct answer before the bullets")
    elif (sentences := _sentence_count(lines[0])) != 1:
        faults.append(f"first line holds {sentences} sentences, not one")
    if not BULLETS[0] <= len(bullets) <= BULLETS[1]:
        faults.append(f"{len(bullets)} bullet points, not two or three")
    if len(steps) != 1 or not lines[steps[0]].removeprefix("Next step:").strip():
        faults.append("no single line 'Next step: ...'")
    if not faults and bullets + steps != list(range(1, len(lines))):
        faults.append("lines beside or out of the order answer, bullets, next step")
    if (words := word_count(answer)) > MAX_WORDS:
        faults.append(f"{words} words, more than {MAX_WORDS}")
    return faults


def in_chosen_style(answer: str) -> bool:
    """True when ``answer`` has the chosen style."""
    return not style_faults(answer)


def _sentence_count(line: str) -> int:
    """Sentences in one line; 0 when it does not end as a sentence does."""
    if not re.search(r"[.!?][\"')\]]*$", line):
        return 0
    breaks = _SENTENCE_BREAK.finditer(line)
    return 1 + sum(not _ABBREVIATION.search(line[: match.end()]) for match in breaks)
