"""What a machine can serve is known, and said, before anything is trained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.artifacts.resources import Gpu, cpu_facts
from trimtab.cli.main import main
from trimtab.recipes.load import load_recipe
from trimtab.serve import machine, plan
from trimtab.serve.command import Hardware, detect_hardware
from trimtab.serve.cpu_kernel import COMPILED_OP
from trimtab.serve.machine import FORMS, EngineLibrary, engine_library, serving_table, usable

H200, V100 = Gpu("NVIDIA H200", (9, 0), 143_771), Gpu("Tesla V100", (7, 0), 16_384)
RECIPE = "recipes/quickstart.yaml"
WHOLE, WITHOUT = EngineLibrary(("rms_norm", COMPILED_OP)), EngineLibrary(("rms_norm",))


def refusals(visible: list[Gpu], flags: str, library: EngineLibrary) -> dict[str, str]:
    return {way.form: way.refused for way in serving_table(visible, flags.split(), library)}


def test_each_form_has_a_way_or_a_reason() -> None:
    for visible, flags, library in [([], "avx2 avx512f", WHOLE), ([], "avx2", WITHOUT), ([H200], "", WHOLE)]:
        table = serving_table(visible, flags.split(), library)
        assert tuple(way.form for way in table) == FORMS
        assert all(bool(way.how) != bool(way.refused) for way in table)
    assert [way.how for way in serving_table([], ["avx2"], WHOLE)][2] == "compiled kernel"
    assert "unpacked to float32" in [way.how for way in serving_table([], ["avx2"], WITHOUT)][2]
    assert [form for form, why in refusals([], "avx2", WHOLE).items() if why] == ["gptq 8-bit"]
    assert not any(refusals([H200], "", EngineLibrary()).values())


@pytest.mark.parametrize(
    ("visible", "flags", "library", "said"),
    [
        ([], "sse4_2 avx", WHOLE, "needs an x86-64 processor with AVX2"),
        (
            [],
            "avx2",
            EngineLibrary(error="libnuma.so.1: cannot open"),
            "cannot be loaded: libnuma.so.1: cannot open",
        ),
        ([H200, V100], "avx2", WHOLE, "capability 8.0; Tesla V100 has 7.0; leave it out by CUDA_VISIBLE_DEVICES"),
    ],
)
def test_where_nothing_is_served_each_form_says_why(
    visible: list[Gpu], flags: str, library: EngineLibrary, said: str
) -> None:
    assert all(said in why for why in refusals(visible, flags, library).values())


def test_visible_gpus_are_those_that_the_variable_leaves() -> None:
    assert usable([V100, H200], None) == [V100, H200]
    assert usable([V100, H200], "1") == [H200]
    assert usable([V100, H200], "") == usable([V100, H200], "-1") == usable([], "0,1") == []
    assert usable([V100, H200], "GPU-6f1c") == [V100]


def test_the_library_is_the_one_that_engines_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked anew: vLLM loads it in a process of its own. The answer is kept for the next time."""
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    engine_library.cache_clear()
    found = engine_library()
    assert "rms_norm" in found.ops
    assert not found.error
    assert (COMPILED_OP in found.ops) is ("avx512f" in cpu_facts()["flags"].split())
    assert detect_hardware().compiled_gptq is (COMPILED_OP in found.ops)
    engine_library.cache_clear()
    monkeypatch.setattr(machine, "_asked", lambda: pytest.fail("it was asked again"))
    assert engine_library() == found
    engine_library.cache_clear()


def test_a_library_that_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "_ASK", "raise ImportError('libnuma.so.1: cannot open')")
    engine_library.cache_clear()
    assert engine_library().error == "ImportError: libnuma.so.1: cannot open"
    assert not (tmp_path / "engine_library.json").exists()
    engine_library.cache_clear()
    monkeypatch.setattr(machine, "_ASK", "import os; os.kill(os.getpid(), 4)")
    assert "its process ended by signal 4" in engine_library().error
    engine_library.cache_clear()


@pytest.mark.parametrize("command", ["run", "compare", "export"])
def test_commands_refuse_before_any_work(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpus", list)
    overrides = [f"output_dir={tmp_path}", "export.quantize.gptq.bits=8", "export.quantize.gptq.group_size=64"]
    assert main([command, RECIPE, *overrides]) == 2
    said = capsys.readouterr().err
    assert "gptq 8-bit cannot be served on this machine: vLLM's CPU build has kernels for 4 bits alone" in said
    assert "export.quantize.gptq.bits=4 is served here" in said
    assert "serve.here=false" in said
    assert not (tmp_path / "quickstart").exists()


def test_memory_is_asked_for_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(plan, "require_memory", lambda need, *_: asked.append(need))
    monkeypatch.setattr(plan, "_listens", lambda section: False)
    for compiled in (True, False):
        monkeypatch.setattr(plan, "detect_hardware", lambda compiled=compiled: Hardware(0, 2, compiled))
        plan.require_servable_recipe(load_recipe(RECIPE))
    assert 0 < asked[0] < asked[1]
    plan.require_servable_recipe(load_recipe(RECIPE, ["serve.here=false"]))
    assert len(asked) == 2


def test_doctor_has_the_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.cli.main", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    for way in machine.ways():
        assert f"serve {way.form}" in done.stdout
        assert (way.how or way.refused) in done.stdout
