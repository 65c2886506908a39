"""The engines' command lines and environments, by hardware and mode."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trimtab.artifacts.errors import InputError
from trimtab.recipes.load import load_recipe
from trimtab.recipes.serve import RequestLimits, ServeSection
from trimtab.serve.adapters import lora_targets
from trimtab.serve.command import (
    Engine,
    Hardware,
    detect_hardware,
    engine_command,
    engine_environment,
    usable_gpus,
)
from trimtab.serve.engine import without_secrets

CPU, GPUS = Hardware(gpus=0, cores=8), Hardware(gpus=2, cores=64)
SECTION = ServeSection(max_model_len=1024)
GPTQ = Engine("orpo", Path("runs/q/orpo/gptq"), "gptq", Path("s/orpo.sock"), {"orpo": Path("runs/q/orpo/gptq")})


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_engines_listen_on_a_unix_socket_only() -> None:
    for hardware in (CPU, GPUS):
        command = engine_command(GPTQ, SECTION, hardware, 3)
        assert option(command, "--uds") == "s/orpo.sock"
        assert "--host" not in command
        assert "--port" not in command
        assert "--trust-remote-code" not in command
        assert option(command, "--served-model-name") == "orpo"
        assert option(command, "--max-model-len") == "1024"


def test_engines_keep_to_the_limits_that_a_request_does_not_name() -> None:
    assert "--override-generation-config" not in engine_command(GPTQ, SECTION, CPU, 1)
    limited = ServeSection(limits=RequestLimits(max_tokens=300, stop=6))
    command = engine_command(GPTQ, limited, CPU, 1)
    assert option(command, "--override-generation-config") == '{"max_new_tokens": 300}'
    environment = engine_environment(0, limited, CPU, 1)
    assert environment["VLLM_MAX_STOP_STRINGS"] == "6"
    assert environment["VLLM_ENABLE_RESPONSES_API_STORE"] == "0"


def test_cpu_engines_are_eager_and_share_cores_and_cache() -> None:
    assert "--enforce-eager" in engine_command(GPTQ, SECTION, CPU, 3)
    environment = engine_environment(1, SECTION, CPU, 3)
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_CPU_INT4_W4A8"] == "0"  # activations stay as the artifact was measured
    few = [engine_environment(i, SECTION, Hardware(0, 2), 3) for i in range(3)]
    assert {each["OMP_NUM_THREADS"] for each in few} == {"1"}
    assert {each["VLLM_CPU_OMP_THREADS_BIND"] for each in few} == {"nobind"}


def test_gpu_engines_are_spread_and_share_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    command = engine_command(GPTQ, SECTION, GPUS, 3)
    assert "--enforce-eager" not in command
    assert option(command, "--gpu-memory-utilization") == "0.45"
    devices = [engine_environment(i, SECTION, GPUS, 3)["CUDA_VISIBLE_DEVICES"] for i in range(3)]
    assert devices == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [engine_environment(i, SECTION, GPUS, 3)["CUDA_VISIBLE_DEVICES"] for i in range(2)] == ["4", "7"]


@pytest.mark.parametrize(
    ("kind", "hardware", "dtype"),
    [
        ("gptq", CPU, "bfloat16"),
        ("nf4", CPU, "bfloat16"),
        ("merged", CPU, "float32"),
        ("merged", GPUS, "bfloat16"),
        ("nf4", GPUS, "bfloat16"),
    ],
)
def test_dtype(kind: str, hardware: Hardware, dtype: str) -> None:
    engine = Engine("a", Path("m"), kind, Path("s"), {})
    assert option(engine_command(engine, SECTION, hardware, 1), "--dtype") == dtype


@pytest.mark.parametrize("hardware", [CPU, GPUS])
def test_nf4_is_read_by_the_plugin_and_gptq_by_vllm_itself(hardware: Hardware) -> None:
    engine = Engine("orpo", Path("m"), "nf4", Path("s"), {})
    command = engine_command(engine, SECTION, hardware, 1)
    assert option(command, "--quantization") == "bitsandbytes"
    assert option(command, "--load-format") == "bitsandbytes"
    assert "--quantization" not in engine_command(GPTQ, SECTION, hardware, 1)


@pytest.mark.parametrize(("rank", "limit"), [(1, "1"), (4, "8"), (16, "16"), (20, "32")])
def test_adapters_on_one_engine(rank: int, limit: str) -> None:
    adapters = {"dpo": Path("d"), "orpo": Path("o")}
    engine = Engine("base", Path("m"), "adapters", Path("s"), {}, adapters, rank, ("k_proj", "q_proj"))
    command = engine_command(engine, SECTION, CPU, 1)
    at = command.index("--lora-target-modules")
    assert command[at + 1 : at + 6] == ["k_proj", "q_proj", "--lora-modules", "dpo=d", "orpo=o"]
    assert option(command, "--max-loras") == "3", "one place is left empty for the base"
    assert option(engine_command(engine, SECTION, GPUS, 1), "--max-loras") == "2"
    assert option(command, "--max-lora-rank") == limit


def test_layers_of_adapters_are_named_and_a_head_is_refused(tmp_path: Path) -> None:
    for name, layers in (("one", ["q_proj", "mlp.up_proj"]), ("two", ["k_proj"]), ("head", ["lm_head"])):
        tensors = {f"base_model.model.{layer}.lora_A.weight": np.zeros((1, 1), "float32") for layer in layers}
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "adapter_model.safetensors")
    assert lora_targets([tmp_path / "one", tmp_path / "two", tmp_path / "none"]) == ("k_proj", "q_proj", "up_proj")
    with pytest.raises(InputError, match="--mode release"):
        lora_targets([tmp_path / "one", tmp_path / "head"])


def test_plan_has_an_engine_an_arm_or_one_for_all(embedded: Path) -> None:
    from trimtab.serve.plan import plan

    recipe = load_recipe("recipes/quickstart.yaml")
    release = plan(recipe, "release", Path("s"))
    assert [engine.name for engine in release] == ["base", "dpo", "orpo"]
    assert release[2].model_dir == Path("runs/quickstart/orpo/gptq")
    (single,) = plan(recipe, "adapters", Path("s"))
    assert single.model_dir == embedded
    assert list(single.served) == ["base", "dpo", "orpo"]


@pytest.mark.parametrize(
    ("present", "visible", "usable"),
    [(0, None, 0), (0, "0,1", 0), (4, None, 4), (4, "2,3", 2), (4, "", 0), (4, "-1", 0)],
)
def test_usable_gpus(present: int, visible: str | None, usable: int) -> None:
    assert usable_gpus(present, visible) == usable
    assert detect_hardware().cores == len(os.sched_getaffinity(0))


def test_engines_get_no_secrets() -> None:
    secrets = ("OPENAI_API_KEY", "HF_TOKEN", "TRIMTAB_JUDGE_KEY", "TRIMTAB_ADMIN_TOKEN", "AWS_SECRET_ACCESS_KEY")
    others = {"PATH": "/bin", "TRIMTAB_KEYS": "/k.sqlite", "TOKENIZERS_PARALLELISM": "false", "MKL_CBWR": "AUTO"}
    given = dict.fromkeys((*secrets, "TRIMTAB_RATE_STORAGE", "redis_password"), "hidden") | others
    assert without_secrets(given) == others
