"""Which arm to ship, and why, in words."""

from dataclasses import dataclass
from typing import Any

from trimtab.compare.cells import form_name
from trimtab.compare.figures import BY_NAME
from trimtab.compare.intervals import is_clear
from trimtab.recipes.compare import CompareSection

_ALIGNMENT = ("win_rate", "style_rate", "style_score", "preference_accuracy")
_DAMAGE = (
    ("refusal_rate", "declines {value:.0%} of the prompts, the base {base:.0%}", 0.1),
    ("empty_rate", "leaves {value:.0%} of the prompts without an answer, the base {base:.0%}", 0.1),
)


@dataclass(frozen=True)
class Verdict:
    """``arm``: what to ship, "base" for none. ``damaged``: why other arms are out. ``sentences``: all of it, to be
    read."""

    arm: str
    damaged: dict[str, str]
    sentences: list[str]


def decide(report: dict[str, Any], section: CompareSection) -> Verdict:
    """From a report's ``figures``, ``forms``, ``differences`` and ``cost``.

    Arms that were damaged are out. Of the others the best by ``compare.ship_by`` ships; an arm that cost less to
    train ships in its place unless it is clearly worse than that or the base, that is, the interval of the
    difference leaves 0 out. Where all are damaged, or the best is clearly worse than the base, the base ships.
    """
    figures, name = report["figures"], section.ship_by
    trained = [arm for arm in figures if arm != "base" and name in figures[arm]]
    if not trained:
        return Verdict("base", {}, ["Nothing was measured that tells the arms apart."])
    damaged = {arm: why for arm in trained if (why := _damage(report, arm, section))}
    sound = [arm for arm in trained if arm not in damaged]
    best = max(sound, key=lambda arm: figures[arm][name]["value"], default="base")
    if best == "base" or _clearly_worse(report, best, "base", name):
        ship, reasons = "base", [_why_none(report, best, name, damaged)]
    else:
        seconds = {arm: (report["cost"].get(arm) or {}).get("total", {}).get("train_seconds") for arm in sound}
        rivals = [a for a in sound if not any(_clearly_worse(report, a, than, name) for than in (best, "base"))]
        ship = min(rivals, key=lambda arm: (seconds[arm] or float("inf"), -figures[arm][name]["value"]))
        reasons = [_why(report, ship, best, name, seconds, damaged), *_against_base(report, ship, name)]
        behind = {arm: seconds[arm] for arm in sound if _clearly_worse(report, arm, best, name)}
        reasons += _cheaper(report, ship, best, name, behind)
        reasons += [line for arm in dict.fromkeys((ship, best)) for line in _otherwise(report, arm, sound, name)]
    reasons += [f"{arm} is out: it {why}." for arm, why in damaged.items()]
    if (ship, best) != ("orpo", "sft-dpo"):  # else the first sentence says it
        reasons += _orpo(report, name)
    return Verdict(ship, damaged, reasons)


def shipped_figures(report: dict[str, Any], arm: str) -> dict[str, Any]:
    """Figures of the first seed's export, the artifact that ships; empty where it was not measured."""
    found: dict[str, Any] = report.get("forms", {}).get(arm, {}).get(report.get("artifact"), {})
    return found


def _why_none(report: dict[str, Any], best: str, name: str, damaged: dict[str, str]) -> str:
    if best == "base":
        return "Ship none of them: every arm was damaged."
    figure = BY_NAME[name]
    own, base = (f"{report['figures'][arm][name]['value']:{figure.form}}" for arm in (best, "base"))
    return (
        f"Ship none of them: {best}, the best{_of_which(damaged)}, is clearly worse than the untrained base by "
        f"{figure.label} ({own}, the base {base})."
    )


def _why(
    report: dict[str, Any], ship: str, best: str, name: str, seconds: dict[str, Any], damaged: dict[str, str]
) -> str:
    """``seconds``: of training, of every arm that could ship."""
    figure, values = BY_NAME[name], report["figures"]
    own, top = (f"{values[arm][name]['value']:{figure.form}}" for arm in (ship, best))
    if ship != best:
        share = seconds[ship] / seconds[best] if seconds[ship] and seconds[best] else None
        cost = f", and it took {share:.0%} of the training time" if share is not None else ""
        return (
            f"Ship {ship}: its {figure.label} ({own}) cannot be told apart from the best"
            f"{_of_which(damaged)} ({best}, {top}) on {report['prompts']} prompts and {_seeds(report)}{cost}."
        )
    clear = [arm for arm in seconds if arm != ship and _clearly_worse(report, arm, ship, name)]
    close = [arm for arm in seconds if arm != ship and arm not in clear]
    ahead = f", clearly ahead of {_listed(clear)}" if clear else ""
    dearer = all(seconds[arm] and seconds[ship] and seconds[arm] > seconds[ship] for arm in close)
    close_to = f"; {_listed(close)} cannot be told from it{' and cost more to train' * dearer}" if close else ""
    return f"Ship {ship}: it has the best {figure.label} ({own}){_of_which(damaged)}{ahead}{close_to}."


def _of_which(damaged: dict[str, str]) -> str:
    return " of the undamaged arms" if damaged else ""


def _against_base(report: dict[str, Any], ship: str, name: str) -> list[str]:
    change = _difference(report, ship, "base", name)
    if change is None:
        return []
    figure, value = BY_NAME[name], change["value"]
    if not is_clear(change):
        return [f"It is not clearly better than the untrained base by {figure.label}: do not expect a difference."]
    amount = f"{value * 100:+.0f} points" if figure.form == ".0%" else f"{value:+{figure.form.strip('+')}}"
    return [f"Its {figure.label} changes by {amount} against the untrained base, which is more than chance."]


def _cheaper(report: dict[str, Any], ship: str, best: str, name: str, behind: dict[str, Any]) -> list[str]:
    """Arms that took less training than what ships and are behind the best, but not clearly behind what ships.

    ``behind``: the seconds of training of the arms that are clearly behind the best.
    """
    own = report["cost"].get(ship, {}).get("total", {}).get("train_seconds")
    return [
        f"{arm}, clearly behind {best}, cannot be told apart from {ship} either, for {took / own:.0%} of its "
        "training time."
        for arm, took in behind.items()
        if ship != best and own and took and took < own and not _clearly_worse(report, arm, ship, name)
    ]


def _otherwise(report: dict[str, Any], arm: str, sound: list[str], name: str) -> list[str]:
    """Where the other figures of alignment do not agree with the one that decided."""
    found = []
    for other in _ALIGNMENT:
        ahead = [one for one in sound if other != name and _clearly_worse(report, arm, one, other)]
        if ahead:
            figure, values = BY_NAME[other], report["figures"]
            own, *theirs = (f"{values[one][other]['value']:{figure.form}}" for one in (arm, *ahead))
            better = _listed([f"{one} ({value})" for one, value in zip(ahead, theirs, strict=True)])
            found.append(f"By {figure.label} {arm} ({own}) is clearly behind {better}: read its answers.")
    return found


def _orpo(report: dict[str, Any], name: str) -> list[str]:
    """Whether ORPO earns its place, said whether it does or not."""
    if not {"orpo", "sft-dpo"} <= report["figures"].keys():
        return []
    change = _difference(report, "orpo", "sft-dpo", name)
    share = report["cost"].get("orpo", {}).get("share", {}).get("train_seconds")
    cost = f", for {share:.0%} of the training time" if share is not None else ""
    if change is None:
        return []
    label = BY_NAME[name].label
    if not is_clear(change):
        return [f"ORPO and SFT then DPO cannot be told apart by {label}{cost}."]
    word = "better" if change["value"] > 0 else "worse"
    return [f"ORPO is clearly {word} than SFT then DPO by {label}{cost}."]


def _damage(report: dict[str, Any], arm: str, section: CompareSection) -> str | None:
    """Of the arm as trained, or of what ships of it, which is held to the base's figures in the same form where
    there are some."""
    base = report["figures"].get("base", {})
    if why := _past_a_limit(report["figures"][arm], base, section):
        return why
    why = _past_a_limit(shipped_figures(report, arm), base | shipped_figures(report, "base"), section)
    return f"{why}, in the form that ships ({form_name(report['artifact'])})" if why else None


def _past_a_limit(own: dict[str, Any], base: dict[str, Any], section: CompareSection) -> str | None:
    if "general_perplexity" in own and "general_perplexity" in base:
        rise = own["general_perplexity"]["value"] / base["general_perplexity"]["value"]
        if rise > section.perplexity_limit:
            return (
                f"has {rise:.2f} times the base's perplexity on general text, limit {section.perplexity_limit:g}"
            )
    if "repetition" in own and "repetition" in base:
        more = own["repetition"]["value"] - base["repetition"]["value"]
        if more > section.repetition_limit:
            return f"repeats itself: {more:+.0%} against the base, limit {section.repetition_limit:+.0%}"
    for name, words, limit in _DAMAGE:
        if name in own and name in base and own[name]["value"] - base[name]["value"] > limit:
            return words.format(value=own[name]["value"], base=base[name]["value"])
    return None


def _clearly_worse(report: dict[str, Any], arm: str, best: str, name: str) -> bool:
    change = _difference(report, arm, best, name)
    return change is not None and is_clear(change) and bool(change["value"] < 0)


def _difference(report: dict[str, Any], one: str, other: str, name: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = report["differences"].get(one, {}).get(other, {}).get(name)
    return found


def _seeds(report: dict[str, Any]) -> str:
    seeds = len(report["seeds"])
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
