"""Links that carry a view, its prompt, arms and settings: a page's address, read and written."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from trimtab.artifacts.errors import InputError
from trimtab.demo.sampling import Sampling

VIEWS = ("compare", "judge", "scoreboard", "preference", "batch")
MOST_CHARACTERS = 6000  # of a link's texts: what browsers and servers take


@dataclass(frozen=True)
class Linked:
    """What a link asks to see. Nothing is sent to a model before somebody presses Compare."""

    view: str = "compare"
    prompt: str = ""
    system: str = ""
    arms: tuple[str, ...] = ()
    sampling: Sampling | None = None
    repeats: int = 1


def read_link(query: Mapping[str, str], arms: Sequence[str], default: Sampling, most_repeats: int) -> Linked:
    """The link's wishes; what is unknown or out of range is as if it were not there."""
    view = query.get("view", "compare")
    named = tuple(arm for arm in arms if arm in query.get("arms", "").split(","))
    sampling = default
    for name, usual in Sampling().record().items():
        with suppress(ValueError):  # InputError is one
            sampling = replace(sampling, **{name: type(usual)(query.get(name, ""))})
    repeats = query.get("repeats", "")
    return Linked(
        view=view if view in VIEWS else "compare",
        prompt=query.get("prompt", "")[:MOST_CHARACTERS],
        system=query.get("system", "")[:MOST_CHARACTERS],
        arms=named or tuple(arms),
        sampling=sampling,
        repeats=min(max(int(repeats) if repeats.isdecimal() else 1, 1), most_repeats),
    )


def write_link(linked: Linked, arms: Sequence[str], default: Sampling) -> str:
    """The address's query, ``?`` first; what is as by default is left out. InputError for too long a text."""
    if len(linked.prompt) + len(linked.system) > MOST_CHARACTERS:
        raise InputError(f"a link holds {MOST_CHARACTERS:,} characters at most; shorten prompt or system prompt")
    query = {"view": linked.view, "prompt": linked.prompt, "system": linked.system}
    if set(linked.arms) != set(arms):
        query["arms"] = ",".join(linked.arms)
    if linked.sampling:
        usual = default.record()
        query |= {name: str(value) for name, value in linked.sampling.record().items() if value != usual[name]}
    if linked.repeats > 1:
        query["repeats"] = str(linked.repeats)
    return "?" + urlencode({name: value for name, value in query.items() if value})
