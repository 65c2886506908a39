"""The pairs that an experiment trains on and holds out, from what its recipe says, with their digests."""

import hashlib
import json
from functools import lru_cache
from typing import NamedTuple

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import Parent
from trimtab.data.mix import mix_pairs
from trimtab.data.pair import Pair
from trimtab.data.read import read_pairs
from trimtab.data.source import Source
from trimtab.data.split import split_pairs
from trimtab.recipes.schema import DataSection


class Resolved(NamedTuple):
    """Training and held-out pairs, each with its entry for a manifest's ``parents``."""

    train: list[Pair]
    heldout: list[Pair]
    train_parent: Parent
    heldout_parent: Parent


@lru_cache(maxsize=4)
def resolve(data: DataSection) -> Resolved:
    """Read, mix and split as the recipe says; once in a process.

    The digests are of the pairs themselves, in order, so that they stay the same when a file is moved or comes
    in another form.
    """
    pairs, names = _mixed(data.train, data.seed), " + ".join(map(str, data.train))
    if isinstance(data.heldout, float):
        pairs, kept = split_pairs(pairs, data.heldout, data.seed)
        heldout_name = f"{data.heldout:g} of {names}"
    else:
        kept, heldout_name = _mixed(data.heldout, data.seed), " + ".join(map(str, data.heldout))
        _refuse_same(pairs, kept, names, heldout_name)
    return Resolved(
        pairs,
        kept,
        Parent(path=names, digest=pairs_digest(pairs), kind="data"),
        Parent(path=heldout_name, digest=pairs_digest(kept), kind="data"),
    )


def pairs_digest(pairs: list[Pair]) -> str:
    """SHA-256 over prompt, chosen and rejected of each pair, in order, as JSON lines."""
    digest = hashlib.sha256()
    for pair in pairs:
        line = json.dumps([pair.prompt, pair.chosen, pair.rejected], ensure_ascii=False, sort_keys=True)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _mixed(sources: tuple[Source, ...], seed: int) -> list[Pair]:
    parts = [read_pairs(source) for source in sources]
    return mix_pairs(parts, [source.weight for source in sources], seed)


def _refuse_same(train: list[Pair], heldout: list[Pair], name: str, heldout_name: str) -> None:
    """Figures on pairs that were trained on are no held-out figures."""
    seen = {pair.asked for pair in train}
    both = sum(pair.asked in seen for pair in heldout)
    if both:
        raise InputError(
            f"{both} of {len(heldout)} prompts of {heldout_name} are in {name} too: held-out figures would be of "
            "pairs trained on. `trimtab data check TRAIN --heldout HELDOUT --fix OUT` drops them, "
            "or hold out a share: data.heldout=0.1"
        )
