"""The engines' command lines and environments, by hardware and mode."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import Manifest, Parent, new_artifact
from trimtab.recipes.load import load_recipe
from trimtab.recipes.serve import RequestLimits, ServeSection
from trimtab.serve.adapters import lora_targets
from trimtab.serve.command import (
    Engine,
    Hardware,
    engine_command,
    engine_environment,
)
from trimtab.serve.engine import without_secrets
from trimtab.serve.plan import plan

CPU, GPUS = Hardware(gpus=0, cores=8), Hardware(gpus=2, cores=64)
SECTION = ServeSection(max_model_len=1024)
BASE = Parent(path="org/base", digest="b" * 64, kind="base")
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


def test_an_engine_is_split_over_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    five, section = Hardware(gpus=5, cores=64), ServeSection(tensor_parallel_size=2)
    command = engine_command(GPTQ, section, five, 3)
    assert option(command, "--tensor-parallel-size") == "2"
    assert option(command, "--gpu-memory-utilization") == "0.45"
    devices = [engine_environment(i, section, five, 3)["CUDA_VISIBLE_DEVICES"] for i in range(3)]
    assert devices == ["0,1", "2,3", "0,1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,9")
    three = Hardware(gpus=3, cores=64)
    assert engine_environment(1, section, three, 2)["CUDA_VISIBLE_DEVICES"] == "4,7"
    assert "--tensor-parallel-size" not in engine_command(GPTQ, SECTION, five, 3)


@pytest.mark.parametrize(
    ("hardware", "kind", "said"),
    [
        (GPUS, "gptq", "serve.tensor_parallel_size=3: each engine needs 3 GPUs, there are 2 .* lower it"),
        (CPU, "merged", "each engine needs 3 GPUs, there are 0 .* on a CPU leave it out"),
        (Hardware(gpus=8, cores=64), "nf4", "an NF4 model runs on one GPU; leave it out"),
    ],
)
def test_what_cannot_be_split_is_refused(hardware: Hardware, kind: str, said: str) -> None:
    engine = Engine("a", Path("m"), kind, Path("s"), {})
    with pytest.raises(InputError, match=said):
        engine_command(engine, ServeSection(tensor_parallel_size=3), hardware, 1)


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


def test_a_rank_that_vllm_does_not_take_is_refused() -> None:
    engine = Engine("base", Path("m"), "adapters", Path("s"), {}, {"orpo": Path("o")}, 513)
    with pytest.raises(InputError, match=r"rank 513, vLLM takes .* up to 512 \(as 1, 8, .* --mode release"):
        engine_command(engine, SECTION, CPU, 1)


def test_layers_of_adapters_are_named_and_a_head_is_refused(tmp_path: Path) -> None:
    for name, layers in (("one", ["q_proj", "mlp.up_proj"]), ("two", ["k_proj"]), ("head", ["lm_head"])):
        tensors = {f"base_model.model.{layer}.lora_A.weight": np.zeros((1, 1), "float32") for layer in layers}
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "adapter_model.safetensors")
    assert lora_targets([tmp_path / "one", tmp_path / "two", tmp_path / "none"]) == ("k_proj", "q_proj", "up_proj")
    with pytest.raises(InputError, match="--mode release"):
        lora_targets([tmp_path / "one", tmp_path / "head"])


def write_run(run: Path, **configs: dict[str, object]) -> None:
    """A merged base and an adapter an arm with this configuration; ``base`` in it: the digest of its base."""
    with new_artifact(run / "base" / "merged", Manifest(kind="merged", arm="base", parents=[BASE])):
        pass
    for arm, config in configs.items():
        parent = BASE.model_copy(update={"digest": config.pop("base", BASE.digest)})
        manifest = Manifest(kind="adapter", arm=arm, parents=[parent])
        with new_artifact(run / arm / "adapter", manifest) as directory:
            (directory / "adapter_config.json").write_text(json.dumps(config))


def test_plan_has_an_engine_an_arm_or_one_for_all(tmp_path: Path) -> None:
    write_run(tmp_path / "quickstart", dpo={"r": 8}, orpo={"r": 16, "rank_pattern": {"q_proj": 40}})
    recipe = load_recipe("recipes/quickstart.yaml", [f"output_dir={tmp_path}", "train.lora_r=4"])
    release = plan(recipe, "release", Path("s"))
    assert [engine.name for engine in release] == ["base", "dpo", "orpo"]
    assert release[2].model_dir == tmp_path / "quickstart/orpo/gptq"
    (single,) = plan(recipe, "adapters", Path("s"))
    assert list(single.served) == ["base", "dpo", "orpo"]
    assert single.model_dir == single.served["base"], "what is loaded is what is digested"
    assert option(engine_command(single, SECTION, CPU, 1), "--max-lora-rank") == "64", (
        "the adapters', not the recipe's"
    )


def test_adapters_of_another_base_are_refused_and_so_is_what_is_no_adapter(tmp_path: Path) -> None:
    recipe = load_recipe("recipes/quickstart.yaml", [f"output_dir={tmp_path}", "train.arms=[orpo]"])
    for config, said in (
        (
            {"r": 16, "base": "c" * 64},
            r"orpo/adapter was trained on org/base \(c{12}\), the engine loads .*\(b{12}\)",
        ),
        ({}, r"adapter_config\.json is no configuration of a LoRA adapter: KeyError\('r'\)"),
        ({"r": None}, "is no configuration of a LoRA adapter"),
    ):
        write_run(tmp_path / "quickstart", orpo=dict(config))
        with pytest.raises(InputError, match=said):
            plan(recipe, "adapters", Path("s"))


def test_engines_get_no_secrets() -> None:
    secrets = ("OPENAI_API_KEY", "HF_TOKEN", "TRIMTAB_JUDGE_KEY", "TRIMTAB_ADMIN_TOKEN", "AWS_SECRET_ACCESS_KEY")
    secrets += ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
    others = {"PATH": "/bin", "TRIMTAB_KEYS": "/k.sqlite", "TOKENIZERS_PARALLELISM": "false", "MKL_CBWR": "AUTO"}
    given = dict.fromkeys((*secrets, "TRIMTAB_RATE_STORAGE", "redis_password"), "hidden") | others
    assert without_secrets(given) == others
