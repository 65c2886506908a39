"""Checks on prompts: near-duplicates, the same pair twice, contradictions, prompts that are held out too."""

import numpy as np
import xxhash

from trimtab.data.check.findings import Facts, Finding, Histogram, worst
from trimtab.data.duplicates import NEAR, PromptGroups


class Prompts:
    """All that is said of prompts across rows, from one index of near-duplicates."""

    def __init__(self) -> None:
        self._groups = PromptGroups()
        self._members: list[int] = []
        self._rows: list[tuple[int, int]] = []  # number, index
        self._answers: list[tuple[int, int]] = []  # hashes of prompt and chosen, prompt and rejected

    def add(self, facts: Facts) -> None:
        """Note one pair."""
        self._members.append(self._groups.add(facts.pair.asked))
        self._rows.append((facts.number, facts.index))
        prompt = facts.prompt.strip()
        self._answers.append((_hash(prompt, facts.chosen), _hash(prompt, facts.rejected)))

    def finish(self) -> list[Finding]:
        """Near-duplicate prompts, duplicate pairs, contradictory pairs."""
        return [self._near_duplicates(), self._duplicate_pairs(), self._contradictions()]

    def _near_duplicates(self) -> Finding:
        distinct: dict[int, set[int]] = {}
        for member in self._members:
            distinct.setdefault(self._groups.group(member), set()).add(member)
        near = {group: members for group, members in distinct.items() if len(members) > 1}
        scored = [
            (float(len(near[group])), number)
            for member, (number, _) in zip(self._members, self._rows, strict=True)
            if (group := self._groups.group(member)) in near
        ]
        prompts = len(set(self._members))
        return Finding(
            "near-duplicate prompts",
            "warning" if near else "ok",
            f"{len(scored)} of {len(self._rows)} pairs have a prompt that is nearly another one's (similarity "
            f"{NEAR:g} or more), in {len(near)} groups; {prompts} distinct prompts",
            {"count": len(scored), "groups": len(near), "distinct_prompts": prompts},
            worst(scored),
        )

    def _duplicate_pairs(self) -> Finding:
        first: dict[tuple[int, int], int] = {}
        again: dict[int, str] = {}
        numbers = []
        for answers, (number, index) in zip(self._answers, self._rows, strict=True):
            earlier = first.setdefault(answers, number)
            if earlier != number:
                again[index] = f"the same pair as number {earlier}"
                numbers.append((0.0, number))
        return Finding(
            "duplicate pairs",
            "warning" if again else "ok",
            f"{len(again)} pairs say what an earlier row says",
            {"count": len(again)},
            worst(numbers),
            again,
        )

    def _contradictions(self) -> Finding:
        """Rows on a cycle of preferences (A over B, B over A; or A over B over C over A) for one prompt."""
        cyclic = _on_cycles(self._answers)
        rows = [row for row, on_cycle in zip(self._rows, cyclic, strict=True) if on_cycle]
        return Finding(
            "contradictory pairs",
            "warning" if rows else "ok",
            f"{len(rows)} pairs prefer in a circle: for one prompt an answer is better and worse than another",
            {"count": len(rows)},
            worst([(0.0, number) for number, _ in rows]),
            {index: "contradicts other pairs of its prompt" for _, index in rows},
        )


class Leakage:
    """Prompts that are in the held-out data too, or nearly."""

    def __init__(self, heldout: PromptGroups, name: str) -> None:
        self._heldout, self._name = heldout, name
        self._found: dict[int, int] = {}
        self._pairs = 0

    def add(self, facts: Facts) -> None:
        """Look one prompt up."""
        self._pairs += 1
        if self._heldout.holds(facts.pair.asked):
            self._found[facts.index] = facts.number

    def finish(self) -> tuple[Finding, list[Histogram]]:
        """How many leak, and which."""
        share = len(self._found) / max(1, self._pairs)
        finding = Finding(
            "leakage",
            "warning" if self._found else "ok",
            f"{len(self._found)} pairs ({share:.1%}) have a prompt that is, or nearly is, in {self._name}",
            {"count": len(self._found), "share": share},
            worst([(0.0, number) for number in self._found.values()]),
            dict.fromkeys(self._found, f"its prompt is in {self._name}"),
        )
        return finding, []


def _on_cycles(edges: list[tuple[int, int]]) -> "np.ndarray":
    """For each edge whether it lies on a cycle: both its ends are in one strongly connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not edges:
        return np.zeros(0, dtype=bool)
    nodes, places = np.unique(np.array(edges, dtype=np.uint64).reshape(-1, 2), return_inverse=True)
    places = places.reshape(-1, 2)
    graph = coo_array((np.ones(len(edges)), (places[:, 0], places[:, 1])), shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph, directed=True, connection="strong")
    return np.asarray(component[places[:, 0]] == component[places[:, 1]])


def _hash(prompt: str, answer: str) -> int:
    return int(xxhash.xxh3_64_intdigest(f"{prompt}\0{answer.strip()}".encode("utf-8", "surrogatepass")))
