"""Which arm to ship, and why, in words."""

from dataclasses import dataclass
from typing import Any

from trimtab.compare.figures import BY_NAME
from trimtab.recipes.compare import CompareSection

_DAMAGE = (
    ("refusal_rate", "declines {value:.0%} of the prompts, the base {base:.0%}", 0.1),
    ("empty_rate", "leaves {value:.0%} of the prompts without an answer, the base {base:.0%}", 0.1),
)


@dataclass(frozen=True)
class Verdict:
    """``arm``: what to ship. ``damaged``: why other arms are out. ``sentences``: all of it, to be read."""

    arm: str
    damaged: dict[str, str]
    sentences: list[str]


def decide(report: dict[str, Any], section: CompareSection) -> Verdict:
    """From a report's ``figures``, ``differences`` and ``cost``.

    Arms that were damaged are out. Of the others the best by ``compare.ship_by`` ships; an arm that cost less to
    train ships in its place unless it is clearly worse, that is, the interval of the difference leaves 0 out.
    """
    figures, name = report["figures"], section.ship_by
    trained = [arm for arm in figures if arm != "base" and name in figures[arm]]
    if not trained:
        return Verdict("base", {}, ["Nothing was measured that tells the arms apart."])
    damaged = {arm: why for arm in trained if (why := _damage(figures, arm, section))}
    sound = [arm for arm in trained if arm not in damaged] or trained
    best = max(sound, key=lambda arm: figures[arm][name]["value"])
    seconds = {arm: (report["cost"].get(arm) or {}).get("total", {}).get("train_seconds") for arm in trained}
    rivals = [arm for arm in sound if arm == best or not _clearly_worse(report, arm, best, name)]
    ship = min(rivals, key=lambda arm: (seconds[arm] or float("inf"), -figures[arm][name]["value"]))
    sentences = [_why(report, ship, best, name, seconds)]
    sentences += _against_base(report, ship, name)
    sentences += [f"{arm} is out: it {why}." for arm, why in damaged.items()]
    if damaged and len(damaged) == len(trained):
        sentences.append("Every arm was damaged; none of them should be shipped as it is.")
    sentences += _orpo(report, ship, name)
    return Verdict(ship, damaged, sentences)


def _why(report: dict[str, Any], ship: str, best: str, name: str, seconds: dict[str, Any]) -> str:
    figure, values = BY_NAME[name], report["figures"]
    of = f"{figure.label} ({values[ship][name]['value']:{figure.form}})"
    if ship == best:
        others = [arm for arm in values if arm not in (ship, "base")]
        clear = [arm for arm in others if _clearly_worse(report, arm, ship, name)]
        if others and len(clear) == len(others):
            return f"Ship {ship}: it has the best {of}, clearly ahead of {_listed(others)}."
        close = [arm for arm in others if arm not in clear]
        ahead = f", clearly ahead of {_listed(clear)}" if clear else ""
        cheaper = f"; {_listed(close)} cannot be told from it and cost more to train" if close else ""
        return f"Ship {ship}: it has the best {of}{ahead}{cheaper}."
    share = seconds[ship] / seconds[best] if seconds[ship] and seconds[best] else None
    cost = f", and it took {share:.0%} of the training time" if share is not None else ""
    own, top = (f"{values[arm][name]['value']:{figure.form}}" for arm in (ship, best))
    return (
        f"Ship {ship}: its {figure.label} ({own}) cannot be told apart from the best ({best}, {top}) on "
        f"{report['prompts']} prompts and {_seeds(report)}{cost}."
    )


def _against_base(report: dict[str, Any], ship: str, name: str) -> list[str]:
    change = _difference(report, ship, "base", name)
    if change is None:
        return []
    figure, value = BY_NAME[name], change["value"]
    if change["low"] is None or change["low"] <= 0 <= change["high"]:
        return [f"It is not clearly better than the untrained base by {figure.label}: do not expect a difference."]
    amount = f"{value * 100:+.0f} points" if figure.form == ".0%" else f"{value:+{figure.form.strip('+')}}"
    return [f"Its {figure.label} changes by {amount} against the untrained base, which is more than chance."]


def _orpo(report: dict[str, Any], ship: str, name: str) -> list[str]:
    """Whether ORPO earns its place, said whether it does or not."""
    if not {"orpo", "sft-dpo"} <= report["figures"].keys():
        return []
    change = _difference(report, "orpo", "sft-dpo", name)
    share = report["cost"].get("orpo", {}).get("share", {}).get("train_seconds")
    cost = f", for {share:.0%} of the training time" if share is not None else ""
    if change is None:
        return []
    label = BY_NAME[name].label
    if change["low"] is None or change["low"] <= 0 <= change["high"]:
        return [f"ORPO and SFT then DPO cannot be told apart by {label}{cost}."]
    word = "better" if change["value"] > 0 else "worse"
    return [f"ORPO is clearly {word} than SFT then DPO by {label}{cost}."]


def _damage(figures: dict[str, Any], arm: str, section: CompareSection) -> str | None:
    own, base = figures[arm], figures.get("base", {})
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
    return bool(change and change["high"] is not None and change["high"] < 0)


def _difference(report: dict[str, Any], one: str, other: str, name: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = report["differences"].get(one, {}).get(other, {}).get(name)
    return found


def _seeds(report: dict[str, Any]) -> str:
    seeds = len(report["seeds"])
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
