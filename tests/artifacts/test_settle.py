"""The functions whose first call torch must not make from two threads at once."""

import subprocess
import sys
from importlib.metadata import entry_points

from trimtab.artifacts.settle import settle

# A process of its own: only there are these calls the first. Threads are up, and every function has work for two.
_EXACT = """
import torch
from trimtab.artifacts.settle import FUNCTIONS, settle
settle()
several = torch.linspace(0.01, 0.9, 1 << 16)
several + several
for name in FUNCTIONS:
    exact = getattr(several.double(), name)()
    assert torch.allclose(getattr(several, name)().double(), exact, rtol=2e-6, atol=1e-7), name
"""


def test_results_after_it_are_exact() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", _EXACT], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_vllm_calls_it() -> None:
    (found,) = entry_points(group="vllm.general_plugins", name="trimtab_settle")
    assert found.load() is settle
