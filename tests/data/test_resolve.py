"""Splits, mixtures and digests: seeded, grouped by prompt, repeatable."""

import json
import random
from pathlib import Path

import pytest

from trimtab.artifacts.errors import InputError
from trimtab.data.duplicates import PromptGroups
from trimtab.data.mix import mix_pairs
from trimtab.data.pair import Pair
from trimtab.data.read import read_pairs
from trimtab.data.resolve import pairs_digest, resolve
from trimtab.data.source import Source
from trimtab.data.split import split_pairs
from trimtab.recipes.load import load_recipe
from trimtab.recipes.schema import DataSection

SAMPLE = read_pairs("sample/train")
LONG = (
    "Explain in plain words how a canal lock lifts a narrow boat from the lower to the upper level, "
    "what the gates and paddles do, and why no pump is needed at any step of it, please."
)


def pair(prompt: str, chosen: str = "yes", rejected: str = "no") -> Pair:
    def answer(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    return Pair([{"role": "user", "content": prompt}], answer(chosen), answer(rejected))


def jaccard(first: str, second: str) -> float:
    def triples(text: str) -> set[tuple[str, ...]]:
        words = ["", *text.lower().replace(",", "").replace(".", "").split(), ""]
        return set(zip(words, words[1:], words[2:], strict=False))

    a, b = triples(first), triples(second)
    return len(a & b) / len(a | b)


def test_near_duplicates_are_found_and_others_are_not() -> None:
    groups = PromptGroups()
    near, far = LONG.replace("please", "thanks"), LONG.replace("lower to the upper", "sea to a river")
    assert jaccard(LONG, near) > 0.85 > 0.75 > jaccard(LONG, far)
    members = [groups.add(text) for text in (LONG, near, far, LONG.upper())]
    first, second, third, same = (groups.group(member) for member in members)
    assert first == second == same != third
    assert members[0] == members[3]  # equal words are one member
    assert groups.holds(LONG.replace("please", "kindly"))
    assert not groups.holds("How do I keep basil fresh?")


def test_estimates_agree_with_exact_similarity() -> None:
    """Over many edits of one text: all well above the limit are found, none well below it."""
    draw, words = random.Random(0), LONG.split()
    for _ in range(200):
        edited = list(words)
        for _ in range(draw.randrange(6)):
            edited[draw.randrange(len(edited))] = draw.choice(["canal", "water", "tree", "nine"])
        groups = PromptGroups()
        groups.add(LONG)
        similarity = jaccard(LONG, " ".join(edited))
        if similarity > 0.93:
            assert groups.holds(" ".join(edited)), similarity
        if similarity < 0.6:
            assert not groups.holds(" ".join(edited)), similarity


def test_split_keeps_prompts_together_and_ignores_row_order() -> None:
    pairs = [pair(f"{LONG} Case {n // 4}", f"answer {n}") for n in range(8)]
    pairs += [pair(f"question {n} about {n * 7919}", f"answer {n}") for n in range(92)]
    train, heldout = split_pairs(pairs, 0.2, seed=3)
    assert len(train) + len(heldout) == 100
    assert 15 <= len(heldout) <= 20
    assert not {p.prompt_text for p in train} & {p.prompt_text for p in heldout}
    assert len({LONG in p.prompt_text for p in pairs if p in heldout and LONG in p.prompt_text}) <= 1
    in_heldout = [LONG in p.prompt_text for p in heldout]
    assert sum(in_heldout) in (0, 8)  # near-duplicates together
    shuffled = random.Random(1).sample(pairs, len(pairs))
    again = split_pairs(shuffled, 0.2, seed=3)[1]
    assert {p.prompt_text for p in again} == {p.prompt_text for p in heldout}
    other = split_pairs(pairs, 0.2, seed=4)[1]
    assert {p.prompt_text for p in other} != {p.prompt_text for p in heldout}


def test_a_system_turn_that_all_share_makes_no_duplicates() -> None:
    def with_system(text: str) -> Pair:
        plain = pair(text)
        return Pair([{"role": "system", "content": LONG * 5}, *plain.prompt], plain.chosen, plain.rejected)

    pairs = [with_system(f"question {n} about {n * 7919}") for n in range(30)]
    train, heldout = split_pairs(pairs, 0.2, 0)
    assert (len(train), len(heldout)) == (24, 6)


def test_a_split_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be split"):
        split_pairs([pair("the same"), pair("the same", "maybe")], 0.5, 0)
    with pytest.raises(InputError, match="between 0 and 1"):
        split_pairs(SAMPLE, 1.5, 0)


def test_mixing_by_weight() -> None:
    first, second = [pair(f"a{n}") for n in range(90)], [pair(f"b{n}") for n in range(20)]
    assert mix_pairs([first, second], [None, None], 0) == first + second
    mixed = mix_pairs([first, second], [3.0, 1.0], 0)
    names = [p.prompt_text for p in mixed]
    assert sum(name[0] == "a" for name in names) == 60
    assert sum(name[0] == "b" for name in names) == 20
    assert len(set(names)) == 80
    assert mix_pairs([first, second], [3.0, 1.0], 0) == mixed != mix_pairs([first, second], [3.0, 1.0], 1)
    with pytest.raises(InputError, match="each one a weight, or none"):
        mix_pairs([first, second], [1.0, None], 0)


def test_resolving_a_recipes_data(tmp_path: Path) -> None:
    data = DataSection(
        train=(Source(path="sample/train", weight=2), Source(path="sample/heldout", weight=1)), heldout=0.1
    )
    resolved = resolve(data)
    assert len(resolved.train) + len(resolved.heldout) == 128 * 2 + 128
    assert not {p.prompt_text for p in resolved.train} & {p.prompt_text for p in resolved.heldout}
    assert resolved.train_parent.path == "sample/train + sample/heldout"
    assert resolved.train_parent.digest == pairs_digest(resolved.train) != resolved.heldout_parent.digest

    moved = tmp_path / "moved.json"
    moved.write_text(json.dumps([p.row() for p in SAMPLE]))
    there, here = (resolve(DataSection(train=(Source(path=path),))) for path in (str(moved), "sample/train"))
    assert there.train_parent.digest == here.train_parent.digest


def test_heldout_prompts_among_the_training_ones_are_refused(tmp_path: Path) -> None:
    both = tmp_path / "both.jsonl"
    both.write_text("".join(json.dumps(p.row()) + "\n" for p in SAMPLE[:3]))
    with pytest.raises(InputError, match=r"3 of 3 prompts of .* are in sample/train too"):
        resolve(DataSection(train=(Source(path="sample/train"),), heldout=(Source(path=str(both)),)))


def test_recipes_name_sources_in_every_way() -> None:
    recipe = "recipes/quickstart.yaml"
    plain = load_recipe(recipe, ["data.train=a.jsonl", "data.heldout=0.1"]).data
    assert (plain.train, plain.heldout) == ((Source(path="a.jsonl"),), 0.1)
    several = load_recipe(
        recipe, ["data.train=[a.jsonl, {path: b/c, split: train, columns: {prompt: q}, weight: 2}]"]
    )
    assert several.data.train[1] == Source(path="b/c", split="train", columns=(("prompt", "q"),), weight=2)
    for override, message in (
        ("data.train={path: a, splat: b}", "unknown key 'data.train.0.splat'; did you mean 'split'"),
        ("data.heldout=1.5", "must lie between 0 and 1"),
        ("data.train=3", "needs a source"),
        ("data.train=[]", "needs a source"),
        ("data.heldout={path: a, weight: 0}", "data.heldout.0.weight: input should be greater than 0"),
    ):
        with pytest.raises(InputError, match=message):
            load_recipe(recipe, [override])
