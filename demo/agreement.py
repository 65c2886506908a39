"""Agreement: between people who judged the same thing, and between a judge and people."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """Between raters who compared the same two answers to the same prompt.

    ``comparisons``: those with two raters or more; ``share``: of pairs of raters that agree (first better, second
    better, tie); ``alpha``: Krippendorff's, nominal: 1 is perfect, 0 as by chance. None where it is not defined.
    """

    raters: int
    comparisons: int
    share: float | None
    alpha: float | None


def agreement(judged: Iterable[tuple[Hashable, str, Hashable]]) -> Agreement:
    """Of ``(thing, rater, value)``; a rater's last value of a thing counts."""
    values: dict[Hashable, dict[str, Hashable]] = defaultdict(dict)
    for thing, rater, value in judged:
        values[thing][rater] = value
    several = [Counter(given.values()) for given in values.values() if len(given) > 1]
    raters = {rater for given in values.values() for rater in given}
    return Agreement(len(raters), len(several), _share(several), krippendorff_alpha(several))


def _share(units: list[Counter[Hashable]]) -> float | None:
    """Pairs of values that are equal, over all pairs within a unit."""
    equal = sum(count * (count - 1) for unit in units for count in unit.values())
    pairs = sum(unit.total() * (unit.total() - 1) for unit in units)
    return equal / pairs if pairs else None


def krippendorff_alpha(units: list[Counter[Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal values, from the count of each value in each unit.

    Krippendorff 2011, "Computing Krippendorff's alpha-reliability": one minus the observed over the expected
    disagreement; units with one value are left out. None where all values are equal, or there are none.
    """
    units = [unit for unit in units if unit.total() > 1]
    totals: Counter[Hashable] = Counter()
    for unit in units:
        totals.update(unit)
    values = totals.total()
    expected = values**2 - sum(count**2 for count in totals.values())
    if not expected:
        return None
    observed = sum(
        (unit.total() ** 2 - sum(count**2 for count in unit.values())) / (unit.total() - 1) for unit in units
    )
    return 1 - (values - 1) * observed / expected


def cohen_kappa(pairs: list[tuple[Hashable, Hashable]]) -> float | None:
    """Cohen's kappa of two raters' values, agreement beyond chance (Cohen 1960, eq. 1).

    None without pairs, or where both gave one and the same value throughout.
    """
    if not pairs:
        return None
    number = len(pairs)
    first, second = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    chance = sum(first[value] * second[value] for value in first) / number**2
    if chance == 1:
        return None
    return (sum(one == other for one, other in pairs) / number - chance) / (1 - chance)
