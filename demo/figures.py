"""The line of figures under an answer."""

from trimtab.data.style import style_faults
from trimtab.demo.stream import STOPPED, Progress

STYLE_RULES = 4  # a direct sentence, two or three bullets, a next step, at most 90 words
_ENDED = {"stop": "finished", "length": "cut at the token limit", STOPPED: "stopped"}


def figures(progress: Progress, style: bool = True, blind: bool = False) -> list[str]:
    """What stands under an answer, a phrase a figure. ``blind`` leaves out what tells an arm by its speed, or
    says beforehand which answer is good.

    ``style``: whether the data's chosen answers have a style that a program can check.
    """
    parts = [f"{progress.tokens} token{'' if progress.tokens == 1 else 's'}"]
    if progress.first_token_s is not None and not blind:
        parts.append(f"first after {progress.first_token_s:.2f} s")
        writing = progress.elapsed_s - progress.first_token_s
        if writing > 0 and progress.tokens > 1:
            parts.append(f"{(progress.tokens - 1) / writing:.1f} tokens/s")
    if progress.done and progress.error is None:
        reason = progress.finish_reason or ""
        parts.append(_ENDED.get(reason, f"ended: {reason}"))
        if style and not blind and reason != STOPPED:
            parts.append(style_score(progress.text))
    return parts


def style_score(text: str) -> str:
    """How many of the chosen style's rules an answer keeps, and the first that it does not."""
    faults = style_faults(text)
    if not faults:
        return "✓ chosen style"
    kept = 0 if not text.strip() else max(0, STYLE_RULES - len(faults))
    return f"✗ style {kept}/{STYLE_RULES}: {faults[0]}"
