"""A pair's answers token by token: where an arm prefers the chosen one, beside the model that it came from."""

from collections.abc import Sequence

from trimtab.demo.arm import Arm
from trimtab.demo.preference import Preference
from trimtab.demo.prompt_logprobs import AnswerLogprobs
from trimtab.demo.safe_markdown import escaped

_FULL = 2.0  # nats at which a colour is at its strongest
_FAINT = 0.05  # nats below which a token has none


def origin_of(preference: Preference, others: Sequence[Preference]) -> Preference | None:
    """The model that an arm is compared with, token by token: its reference, else the base; None for the base."""
    arm = preference.arm
    near = [
        other for other in others if other.arm.base_url == arm.base_url and other.arm != arm and not other.error
    ]
    for other in near:
        if arm.reference and other.arm.model == arm.reference:
            return other
    return next((other for other in near if _is_base(other.arm)), None) if not _is_base(arm) else None


def heat_map(preference: Preference, origin: Preference | None) -> str:
    """Both answers as HTML; a token in blue speaks for chosen, one in orange and dashed for rejected."""
    if preference.chosen is None or preference.rejected is None:
        return ""
    sides = []
    for name, answer in (("chosen", preference.chosen), ("rejected", preference.rejected)):
        before = getattr(origin, name) if origin else None
        sides.append(f"<h4>{name.capitalize()}</h4><p class='tt-tokens'>{_tokens(answer, before, name)}</p>")
    return f'<div class="tt-heat">{"".join(sides)}</div>'


def _tokens(answer: AnswerLogprobs, before: AnswerLogprobs | None, side: str) -> str:
    comparable = before is not None and before.tokens == answer.tokens
    pieces = []
    for number, (token, logprob) in enumerate(zip(answer.tokens, answer.logprobs, strict=True)):
        if before is not None and comparable:
            gain = logprob - before.logprobs[number]
            pieces.append(_compared(token, logprob, gain, gain if side == "chosen" else -gain))
        else:
            pieces.append(_alone(token, logprob))
    return "".join(pieces)


def _compared(token: str, logprob: float, gain: float, favour: float) -> str:
    """A token coloured by how far the arm moved it in favour of one answer."""
    words = f"{logprob:.2f} nats, {gain:+.2f} beside its origin"
    if abs(favour) < _FAINT:
        return f'<span title="{words}">{escaped(token)}</span>'
    kind, share = ("for" if favour > 0 else "against"), min(1.0, abs(favour) / _FULL)
    return f'<span class="tt-{kind}" style="--tt-share:{share:.2f}" title="{words}">{escaped(token)}</span>'


def _alone(token: str, logprob: float) -> str:
    """A token of the model that others came from: grey where it did not expect it."""
    share = min(1.0, -logprob / (3 * _FULL))
    style = f"--tt-share:{share:.2f}"
    return f'<span class="tt-surprise" style="{style}" title="{logprob:.2f} nats">{escaped(token)}</span>'


def _is_base(arm: Arm) -> bool:
    return arm.method == "base" or (arm.method is None and arm.name == "base")
