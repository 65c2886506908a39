"""What the machine has; disk and memory are asked for before work begins, so that no stage dies half way."""

import shutil
import subprocess
from pathlib import Path

import psutil

from trimtab.artifacts.errors import InputError

MIB = 1 << 20


def require_disk(path: Path, need: int, purpose: str) -> None:
    """InputError unless ``need`` bytes are free where ``path`` is or will be."""
    place = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < need:
        raise InputError(
            f"{purpose} needs {need // MIB} MiB of disk at {place}, {free // MIB} MiB are free; "
            "free some, or choose another place (output_dir in the recipe, TRIMTAB_HOME for the cache)"
        )


def require_memory(need: int, purpose: str, remedy: str) -> None:
    """InputError unless ``need`` bytes of memory are available now."""
    available = psutil.virtual_memory().available
    if available < need:
        raise InputError(
            f"{purpose} needs about {need // MIB} MiB of memory, {available // MIB} MiB are available; {remedy}"
        )


def gpu_names() -> list[str]:
    """Names of the NVIDIA GPUs that ``nvidia-smi`` lists; imports no torch."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],  # noqa: S607 (wherever the driver put it)
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return [name.strip() for name in listed.stdout.splitlines()] if listed.returncode == 0 else []


def directory_size(directory: Path) -> int:
    """Bytes of all files in ``directory``."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
