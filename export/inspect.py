"""Is an artifact what it was when it was made, and where does it come from? Needs no torch and no network."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from pydantic import ValidationError

from trimtab.artifacts.digests import artifact_files
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lineage import ABSENT, CHANGED, HERE, Ancestor, Recipe, lineage
from trimtab.artifacts.manifest import Manifest, Parent, read_manifest, verify_files
from trimtab.artifacts.resources import MIB
from trimtab.data.formats.containers import local_path
from trimtab.data.read import read_pairs
from trimtab.data.resolve import pairs_digest, resolve
from trimtab.data.source import Source
from trimtab.export.soundness import unsound
from trimtab.recipes.schema import DataSection


@dataclass(frozen=True)
class Inspection:
    """What an artifact is, what is wrong with it (``faults``, one phrase each), and its lineage."""

    directory: Path
    manifest: Manifest
    size: int
    faults: list[str]
    ancestors: list[Ancestor]

    def as_json(self) -> dict[str, Any]:
        """Plain data, for ``--json``; ``size`` in bytes."""
        manifest = self.manifest
        return {
            "directory": str(self.directory),
            "kind": manifest.kind,
            "arm": manifest.arm,
            "digest": manifest.digest,
            "files": len(manifest.files),
            "size": self.size,
            "faults": self.faults,
            "verification": [check.model_dump() for check in manifest.verification],
            "metrics": manifest.metrics,
            "lineage": [ancestor.as_json() for ancestor in self.ancestors],
        }

    def as_text(self) -> str:
        """Lines that a person reads; the verdict is the last."""
        manifest = self.manifest
        probes = f"{len(manifest.probe)} probe prompts" if manifest.probe else "no probe"
        return "\n".join(
            (
                f"{self.directory}: {manifest.kind}, arm {manifest.arm}",
                f"  {len(manifest.files)} files, {self.size / MIB:.1f} MiB, {probes}, digest {manifest.digest}",
                "made with: " + ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
                *_figures(manifest),
                *_verdicts(manifest),
                "made from:",
                *_tree(self.ancestors, 1),
                *(f"FAULT: {fault}" for fault in self.faults),
                f"{len(self.faults)} faults" if self.faults else "sound: every file is as the manifest says",
            )
        )


def inspect(directory: Path) -> Inspection:
    """Check all that the artifact in ``directory`` says of itself. InputError where there is none."""
    manifest = read_manifest(directory)
    faults = verify_files(directory, manifest) + unsound(directory, manifest)
    faults += [
        f"it failed its own check: {check.figure} {check.value:g}, limit {check.limit:g}"
        for check in manifest.verification
        if not check.passed
    ]
    size = sum(path.stat().st_size for path in artifact_files(directory))
    return Inspection(directory, manifest, size, faults, lineage(directory, manifest, data_state))


def data_state(parent: Parent, recipe: Recipe | None) -> str:
    """Whether the pairs that ``parent`` names are still there and the same; hub data is not fetched."""
    try:
        section = DataSection.model_validate((recipe or {})["data"])
    except (KeyError, ValidationError):  # of an older version, or of pairs that no recipe mixed
        section = None
    try:
        if section:
            if not all(local_path(source).exists() for source in _sources(section)):
                return ABSENT
            resolved = resolve(section)
            digests = {resolved.train_parent.digest, resolved.heldout_parent.digest}
        else:
            source = Source(path=parent.path)
            if not local_path(source).exists():
                return ABSENT
            digests = {pairs_digest(read_pairs(source))}
    except InputError:
        return CHANGED
    return HERE if parent.digest in digests else CHANGED


def _sources(section: DataSection) -> tuple[Source, ...]:
    return section.train + (section.heldout if isinstance(section.heldout, tuple) else ())


def _figures(manifest: Manifest) -> list[str]:
    """The metrics that are plain numbers, one line for each group."""
    groups = {"figures": manifest.metrics} | {k: v for k, v in manifest.metrics.items() if isinstance(v, dict)}
    lines = []
    for name, group in groups.items():
        numbers = {key: value for key, value in group.items() if isinstance(value, int | float)}
        if numbers:
            line = f"{name}: " + ", ".join(f"{key} {value:.6g}" for key, value in numbers.items())
            lines += wrap(line, 110, subsequent_indent="  ", break_on_hyphens=False)
    return lines


def _verdicts(manifest: Manifest) -> list[str]:
    if not manifest.verification:
        return ["verified: nothing was compared"]
    return [
        f"verified: {check.compared}: {check.figure} {check.value:g}, limit {check.limit:g}: "
        + ("passed" if check.passed else "FAILED")
        for check in manifest.verification
    ]


def _tree(ancestors: list[Ancestor], depth: int) -> list[str]:
    lines = []
    for ancestor in ancestors:
        parent = ancestor.parent
        what = f"{parent.kind} " if parent.kind else ""
        lines.append(f"{'  ' * depth}{what}{parent.path} ({parent.digest[:12]}): {ancestor.state}")
        lines += _tree(ancestor.ancestors, depth + 1)
    return lines
