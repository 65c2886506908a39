"""What the machine has; disk and memory are asked for before work begins, so that no stage dies half way."""

import platform
import shutil
import subprocess
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU: its compute capability as (major, minor), its memory in MiB."""

    name: str
    capability: tuple[int, int]
    memory_mib: int


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs that ``nvidia-smi`` lists; imports no torch."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader,nounits"],  # noqa: S607 (wherever the driver put it)
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return [_gpu(line) for line in listed.stdout.splitlines() if line.strip()] if listed.returncode == 0 else []


def _gpu(line: str) -> Gpu:
    name, capability, memory = (cell.strip() for cell in line.rsplit(",", 2))
    major, minor = capability.split(".")
    return Gpu(name, (int(major), int(minor)), int(memory))


def gpu_names() -> list[str]:
    """Names of the NVIDIA GPUs that ``nvidia-smi`` lists."""
    return [gpu.name for gpu in gpus()]


def processor() -> str:
    """The processor's name as the kernel gives it, "x86_64" and the like where it gives none."""
    return cpu_facts().get("model name") or platform.machine()


def cpu_facts() -> dict[str, str]:
    """What ``/proc/cpuinfo`` says of the first processor: "model name", "flags" and more; {} without it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def directory_size(directory: Path) -> int:
    """Bytes of all files in ``directory``."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
