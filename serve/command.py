"""What to start for a recipe on given hardware: pure functions, tested as such."""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.artifacts.errors import InputError
from trimtab.recipes.serve import ServeSection
from trimtab.serve import cpu_kernel
from trimtab.serve.machine import engine_library, visible_gpus

_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes


@dataclass(frozen=True)
class Hardware:
    """What engines share: how many visible CUDA devices, and how many CPU cores.

    ``compiled_gptq``: whether vLLM's library for this processor has the kernel of 4-bit weights.
    """

    gpus: int
    cores: int
    compiled_gptq: bool = True


@dataclass(frozen=True)
class Engine:
    """One vLLM process: its model directory, and in adapters mode LoRA adapters by served name and names of the
    layers that they change.

    ``served`` maps each model name of the endpoint to the artifact whose probes it must answer as.
    """

    name: str
    model_dir: Path
    kind: str
    socket: Path
    served: dict[str, Path]
    adapters: dict[str, Path] = field(default_factory=dict)
    lora_rank: int = 16
    lora_targets: tuple[str, ...] = ()


def detect_hardware() -> Hardware:
    """The GPUs that this process may use, the CPU cores it may run on, and what vLLM's library has for them."""
    gpus = len(visible_gpus())
    compiled = bool(gpus) or cpu_kernel.COMPILED_OP in engine_library().ops
    return Hardware(gpus, len(os.sched_getaffinity(0)), compiled)


def gptq_kernel(section: ServeSection, hardware: Hardware) -> str:
    """How GPTQ is computed: "cuda", or on the CPU "compiled" or "unpacked" (see ``cpu_kernel``).

    InputError where ``serve.gptq_kernel`` asks for one that is not there.
    """
    if hardware.gpus:
        return "cuda"
    if section.gptq_kernel == "compiled" and not hardware.compiled_gptq:
        raise InputError(
            "serve.gptq_kernel=compiled: vLLM's library for this processor has no kernel for 4-bit weights "
            f"({cpu_kernel.COMPILED_OP}, which needs AVX-512); give unpacked, or leave it out"
        )
    if section.gptq_kernel != "auto":
        return section.gptq_kernel
    return "compiled" if hardware.compiled_gptq else "unpacked"


def engine_command(engine: Engine, section: ServeSection, hardware: Hardware, engines: int) -> list[str]:
    """The vLLM server's argument list, listening on a Unix socket only.

    On the CPU compiled mode must be off: it was seen to answer garbage without an error. Quantised checkpoints are
    computed in bfloat16, others on the CPU in float32, which is faster there: vLLM's GPTQ kernels take no float32,
    and vllm-bnb-plugin counts packed NF4 weights by that type's width. vLLM's CPU build serves GPTQ of 4 bits
    only, and NF4 runs on one GPU an engine: the plugin splits no checkpoint that is quantised already. InputError
    for what the hardware, NF4 or vLLM does not allow.
    """
    places, split = gpu_places(section, hardware), section.tensor_parallel_size
    if split > 1 and engine.kind == "nf4":
        raise InputError(
            f"serve.tensor_parallel_size={split}: an NF4 model runs on one GPU; leave it out, or serve another "
            "form: export.quantize.method=gptq or none"
        )
    dtype = "bfloat16" if hardware.gpus or engine.kind in ("gptq", "nf4") else "float32"
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        *("--model", str(engine.model_dir)),
        *("--served-model-name", engine.name),
        *("--uds", str(engine.socket)),
        *("--dtype", dtype),
        *("--max-model-len", str(section.max_model_len)),
        *("--max-num-seqs", str(section.max_num_seqs)),
        *("--shutdown-timeout", "5"),
        *("--disable-access-log-for-endpoints", "/health"),
    ]
    if section.limits.max_tokens:  # of requests that name no number too
        command += ["--override-generation-config", json.dumps({"max_new_tokens": section.limits.max_tokens})]
    if hardware.gpus:
        command += ["--gpu-memory-utilization", f"{section.gpu_memory / -(-engines // places):.2f}"]
    else:
        command += ["--enforce-eager"]
    if split > 1:
        command += ["--tensor-parallel-size", str(split)]
    if engine.kind == "nf4":
        command += ["--quantization", "bitsandbytes", "--load-format", "bitsandbytes"]
    if engine.adapters:
        # vLLM's CPU kernels take the last place for a request of the base beside others: it stays empty
        loras = len(engine.adapters) + (0 if hardware.gpus else 1)
        command += ["--enable-lora", "--max-loras", str(loras)]
        command += ["--max-lora-rank", str(_max_lora_rank(engine.lora_rank))]
        if engine.lora_targets:
            command += ["--lora-target-modules", *engine.lora_targets]
        command += ["--lora-modules", *(f"{name}={path}" for name, path in engine.adapters.items())]
    return command


def engine_environment(index: int, section: ServeSection, hardware: Hardware, engines: int) -> dict[str, str]:
    """What the engine's environment has beside ours: offline, no telemetry, nothing kept, its share of cores or
    GPUs."""
    environment = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_ENABLE_RESPONSES_API_STORE": "0",
        "VLLM_MAX_STOP_STRINGS": str(section.limits.stop),
    }
    if hardware.gpus:
        split = section.tensor_parallel_size
        first = index % gpu_places(section, hardware) * split
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(_device, range(first, first + split)))
    else:
        environment["VLLM_CPU_KVCACHE_SPACE"] = str(section.kv_cache_gib)
        # Where the processor has AMX, vLLM would round activations of 4-bit GPTQ to 8 bits: on the embedded model
        # 0.15 to 0.3 nats a token off, another model than the one that was measured.
        environment["VLLM_CPU_INT4_W4A8"] = "0"
        # Threads bound for good starve the engine that a rollout starts on their cores: cores.py holds them.
        environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        environment["OMP_NUM_THREADS"] = str(max(1, hardware.cores // engines))
        # Even eager, vLLM compiles two small functions (ranks of log-probabilities), and ends without a compiler.
        environment["TORCH_COMPILE_DISABLE"] = "1"
        if gptq_kernel(section, hardware) == "unpacked":
            environment[cpu_kernel.DISABLED] = cpu_kernel.COMPILED
    return environment


def gpu_places(section: ServeSection, hardware: Hardware) -> int:
    """How many groups of ``tensor_parallel_size`` GPUs there are; engines take turns on them. 0 without a GPU.

    InputError when there are fewer GPUs than one engine needs.
    """
    split = section.tensor_parallel_size
    if split > max(hardware.gpus, 1):
        raise InputError(
            f"serve.tensor_parallel_size={split}: each engine needs {split} GPUs, there are {hardware.gpus} that "
            "may be used (nvidia-smi, CUDA_VISIBLE_DEVICES); lower it, on a CPU leave it out"
        )
    return hardware.gpus // split


def _max_lora_rank(rank: int) -> int:
    """The smallest that vLLM takes and that holds ``rank``."""
    if rank > _LORA_RANKS[-1]:
        raise InputError(
            f"an adapter has rank {rank}, vLLM takes adapters up to {_LORA_RANKS[-1]} (as "
            f"{', '.join(map(str, _LORA_RANKS))}); serve it merged: --mode release"
        )
    return next(allowed for allowed in _LORA_RANKS if allowed >= rank)


def _device(index: int) -> str:
    """The ``index``-th GPU among those that are visible to us."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[index].strip() if visible else str(index)
