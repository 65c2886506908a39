"""What a training costs beside wall time: seconds of the device, and energy where the hardware tells."""

import time
from pathlib import Path
from typing import Any

import torch

_RAPL = Path("/sys/class/powercap")


class CostMeter:
    """From ``start`` to ``figures``. Energy is that of the whole machine's packages or of this process's GPU."""

    def __init__(self, rapl: Path = _RAPL) -> None:
        self._rapl = rapl
        self._wall = self._cpu = 0.0
        self._packages: dict[Path, int] = {}
        self._gpu: float | None = None

    def start(self) -> "CostMeter":
        """Read the counters."""
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._packages, self._gpu = packages(self._rapl), gpu_joules()
        return self

    def figures(self, processes: int = 1) -> dict[str, Any]:
        """``device``, ``device_seconds`` (GPU: wall seconds of each; CPU: seconds of cores that worked),
        ``energy_joules`` and ``energy_source``, None where nothing tells."""
        on_gpu = torch.cuda.is_available()
        wall, cpu = time.monotonic() - self._wall, time.process_time() - self._cpu
        joules, source = self._energy()
        return {
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "device_seconds": round(wall * processes if on_gpu else cpu, 1),
            "energy_joules": None if joules is None else round(joules * (processes if on_gpu else 1), 1),
            "energy_source": source,
        }

    def _energy(self) -> tuple[float | None, str | None]:
        now = gpu_joules()
        if now is not None and self._gpu is not None:
            return now - self._gpu, "NVML"
        if self._packages:
            return joules_between(self._packages, packages(self._rapl)), "RAPL"
        return None, None


def packages(root: Path = _RAPL) -> dict[Path, int]:
    """Microjoules that each CPU package has used so far (Linux powercap); empty where they cannot be read."""
    found = {}
    for package in sorted(root.glob("intel-rapl:*")):
        if package.name.count(":") == 1:  # intel-rapl:0:1 is a part of intel-rapl:0
            try:
                found[package] = int((package / "energy_uj").read_text())
            except (OSError, ValueError):
                continue
    return found


def joules_between(before: dict[Path, int], after: dict[Path, int]) -> float:
    """Joules of all packages; a counter that began again at 0 has gone past its ``max_energy_range_uj``."""
    total = 0
    for package, first in before.items():
        used = after.get(package, first) - first
        if used < 0:
            used += int((package / "max_energy_range_uj").read_text())
        total += used
    return total / 1e6


def gpu_joules() -> float | None:
    """Joules that this process's GPU has used since the driver was loaded (NVML); None where it does not tell."""
    if not torch.cuda.is_available():
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        name = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(name)
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except (ImportError, AttributeError, OSError):
        return None
    except Exception as error:  # pynvml's own class, which exists only where it does
        if type(error).__module__.startswith("pynvml"):
            return None
        raise
