"""An arm's pane as HTML: its name, what it is, its answers and their figures."""

from collections.abc import Callable
from dataclasses import dataclass

from trimtab.data.pair import Message
from trimtab.demo.arm import Arm
from trimtab.demo.figures import figures
from trimtab.demo.safe_markdown import escaped, safe_html
from trimtab.demo.sampling import Sampling
from trimtab.demo.stream import STOPPED, Progress

_KINDS = {"merged": "merged", "gptq": "GPTQ", "nf4": "NF4", "adapter": "adapter"}
_DOTS = '<p class="tt-wait"><span></span><span></span><span></span><i>waiting for the first word</i></p>'


@dataclass(frozen=True)
class Shown:
    """What a pane shows: answers to ``messages`` so far; none before anything was asked. ``round``: of judging."""

    messages: tuple[Message, ...] = ()
    sampling: Sampling | None = None
    answers: tuple[Progress, ...] = ()
    round: str = ""

    @property
    def state(self) -> str:
        """``empty``, ``busy``, ``failed`` (an error stands in it), ``stopped`` or ``done``."""
        if not self.answers:
            return "empty"
        if not all(answer.done for answer in self.answers):
            return "busy"
        if any(answer.error for answer in self.answers):
            return "failed"
        return "stopped" if any(answer.finish_reason == STOPPED for answer in self.answers) else "done"

    @property
    def text(self) -> str:
        """The first answer."""
        return self.answers[0].text if self.answers else ""


@dataclass(frozen=True)
class Face:
    """How a pane names its arm; ``arm`` None hides it (blind). ``note``: a word beside the name, as a verdict."""

    title: str
    arm: Arm | None = None
    note: str = ""
    style: bool = True
    empty: str = "The answer will stand here."


def answer_card(face: Face, shown: Shown, difference: Callable[[int, str], str] | None = None) -> str:
    """The whole pane. ``difference`` gives, for an answer's number and text, HTML to show in the text's place."""
    state = shown.state
    body = [_answer(face, shown, number, difference) for number in range(len(shown.answers))]
    if not body:
        body = [f'<p class="tt-hint">{escaped(face.empty)}</p>']
    note = f'<span class="tt-note">{escaped(face.note)}</span>' if face.note else ""
    return (
        f'<article class="tt-card" data-state="{state}" aria-label="{escaped(face.title)}" '
        f'aria-busy="{str(state == "busy").lower()}">'
        f"<header><h2>{escaped(face.title)}</h2>{note}{_chips(face.arm)}</header>{''.join(body)}</article>"
    )


def artifact(arm: Arm) -> list[str]:
    """What the endpoint says of the arm's artifact, a phrase each: form and bits, beta, the digest's beginning."""
    form = " ".join(
        part
        for part in (_KINDS.get(arm.kind or "", arm.kind or ""), f"{arm.bits}-bit" if arm.bits else "")
        if part
    )
    said = [form, f"β {arm.beta:g}" if arm.beta is not None else ""]
    return [part for part in said if part]


def _chips(arm: Arm | None) -> str:
    if arm is None:
        return ""
    chips = [f'<span class="tt-chip">{escaped(part)}</span>' for part in artifact(arm)]
    if arm.digest:
        short = arm.digest.removeprefix("sha256:")[:8]
        chips.append(
            f'<span class="tt-chip tt-mono" title="digest {escaped(arm.digest)}">'
            f'<span class="tt-only-read">digest </span>{escaped(short)}</span>'
        )
    return f'<span class="tt-chips">{"".join(chips)}</span>'


def _answer(face: Face, shown: Shown, number: int, difference: Callable[[int, str], str] | None) -> str:
    progress = shown.answers[number]
    several = f'<h3 class="tt-repeat">Answer {number + 1}</h3>' if len(shown.answers) > 1 else ""
    if progress.text:
        inner = difference(number, progress.text) if difference and progress.done else safe_html(progress.text)
    else:
        inner = "" if progress.done else _DOTS
    fault = ""
    if progress.error:
        fault = f'<p class="tt-fault" role="alert"><b>No whole answer.</b> {escaped(progress.error)}</p>'
    elif progress.done and not progress.text:
        inner = '<p class="tt-hint">The model ended its answer without a word.</p>'
    line = ""
    if progress.text or progress.whole:
        parts = figures(progress, face.style, blind=face.arm is None)
        line = f'<p class="tt-figures">{" · ".join(f"<span>{escaped(part)}</span>" for part in parts)}</p>'
    return f'<section class="tt-answer">{several}<div class="tt-text">{inner}</div>{fault}{line}</section>'
