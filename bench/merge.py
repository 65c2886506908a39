"""Merging a LoRA adapter: the streamed merge, ``cp`` of the same files, and PEFT's merge_and_unload, in turn.

The base is a generated checkpoint in Llama's shapes (7.1 GB in shards of 2 GB), the adapter of rank 16 on all
linear layers. Each measurement is a process of its own and ends when its files are on the disk (fsync). Peaks are
resident memory; ours is over that of the interpreter with its imports.

    python bench/merge.py --smoke    that it runs, no figure to quote
    python bench/merge.py --quick    under 50 seconds, a checkpoint of 0.4 GB
    python bench/merge.py            the whole measurement, into bench/results; needs 15 GB in $TMPDIR

The line: our time over that of ``cp`` (over_cp) and our memory (peak_mib); how many times as fast as PEFT we are
(vs_peft_time), and our share of its memory (vs_peft_memory).
"""

import argparse
import importlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results_file import forms, print_figures, spread, write_results

# Nothing heavy is imported here: on Linux a child's ru_maxrss starts at what its parent had at the fork.

ROUNDS = 3
_MEASURED = ("trimtab", "torch", "transformers", "peft", "safetensors")
_QUOTED = ("over_cp", "peak_mib", "vs_peft_time", "vs_peft_memory")
RANK, ALPHA, MIB = 16, 32, 1 << 20
SIZES = {  # hidden size, MLP size, layers, vocabulary, bytes of a shard
    "large": (3072, 8192, 28, 128256, 2_000_000_000),
    "small": (1024, 4096, 10, 32000, 150_000_000),
    "tiny": (512, 1024, 4, 16000, 20_000_000),
}
HEADS, KEY_HEADS = 32, 8
Figures = dict[str, list[float]]


def generate(folder: Path, size: str) -> None:
    """Random base in ``folder``/base, in shards with an index, and adapter in ``folder``/adapter."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    base, adapter = folder / "base", folder / "adapter"
    base.mkdir()
    adapter.mkdir()
    hidden, mlp, layers, vocabulary, shard_bytes = SIZES[size]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        vocab_size=vocabulary,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )
    config.save_pretrained(base)
    pool = torch.randn(64 << 20).to(torch.bfloat16)
    shards: list[dict[str, torch.Tensor]] = [{}]
    factors: dict[str, torch.Tensor] = {}
    held = total = 0
    for name, shape in shapes(hidden, mlp, layers, vocabulary).items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        start = total // 2 % 4096
        weight = pool[start:].repeat(count // (len(pool) - start) + 1)[:count].view(shape).mul(0.02)
        if held + count * 2 > shard_bytes:
            shards.append({})
            write_shard(base, shards, len(shards) - 2)
            held = 0
        shards[-1][name] = weight
        held, total = held + count * 2, total + count * 2
        if name.endswith("proj.weight"):
            module = f"base_model.model.{name.removesuffix('.weight')}"
            factors[f"{module}.lora_A.weight"] = torch.randn(RANK, shape[1]) * 0.02
            factors[f"{module}.lora_B.weight"] = torch.randn(shape[0], RANK) * 0.02
    write_shard(base, shards, len(shards) - 1)
    count, weight_map = len(shards), {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{count:05}.safetensors"
        (base / f"{number - 1}.safetensors").rename(base / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (base / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    save_file(factors, adapter / "adapter_model.safetensors")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA}
    settings |= {"target_modules": targets, "base_model_name_or_path": str(base), "inference_mode": True}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))


def write_shard(base: Path, shards: list, number: int) -> None:
    """Write one shard and keep its tensors' names only."""
    from safetensors.torch import save_file

    save_file(shards[number], base / f"{number}.safetensors", metadata={"format": "pt"})
    shards[number] = dict.fromkeys(shards[number])


def shapes(hidden: int, mlp: int, layers: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama's tensors, in the model's order."""
    keys = hidden * KEY_HEADS // HEADS
    of_a_layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    layered = {f"layers.{n}.{name}": shape for n in range(layers) for name, shape in of_a_layer.items()}
    model = {"embed_tokens": (vocabulary, hidden), **layered, "norm": (hidden,)}
    found = {f"model.{name}.weight": shape for name, shape in model.items()}
    return found | {"lm_head.weight": (vocabulary, hidden)}


def ours(folder: Path, target: Path) -> None:
    """The streamed merge, checks and digests included."""
    from trimtab.export.merging.merge import check_merge, merge

    merge(check_merge(folder / "base", folder / "adapter", target), target)


def peft(folder: Path, target: Path) -> None:
    """PEFT's documented way, in the base's type."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload()
    merged.save_pretrained(target, max_shard_size="2GB")


def copy(folder: Path, target: Path) -> None:
    """``cp`` of the base's files."""
    subprocess.run(["/bin/cp", *map(str, (folder / "base").iterdir()), str(target)], check=True)


TASKS = {"cp": copy, "ours": ours, "peft": peft}
IMPORTS = {
    "cp": (),
    "ours": ("trimtab.export.merging.merge",),
    "peft": ("peft", "transformers.models.llama.modeling_llama"),
}


def measure_here(name: str, folder: Path, target: Path) -> None:
    """Do one task in this process and print seconds and peak MiB as JSON."""
    if name == "peft":
        from trimtab.artifacts.lean_imports import import_lean

        import_lean()  # else PEFT imports GPTQModel while it is measured
    for module in IMPORTS[name]:  # are not what is measured
        importlib.import_module(module)
    os.sync()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.perf_counter()
    TASKS[name](folder, target)
    for path in target.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "over_mib": peak - before}))


def measure(name: str, folder: Path, check: bool) -> dict[str, float]:
    """One task in a process of its own; its files are removed after."""
    target = folder / f"{name}-out"
    target.mkdir()
    command = [sys.executable, __file__, "--task", name, str(folder), str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {result['seconds']:.1f} s, {result['peak_mib']:.0f} MiB", file=sys.stderr)
    if check:
        subprocess.run([sys.executable, __file__, "--task", "check", str(folder), str(target)], check=True)
    shutil.rmtree(target)
    return result


def check_here(folder: Path, target: Path) -> None:
    """RuntimeError unless each tensor equals base plus update in float32, rounded once, bit for bit."""
    import torch
    from safetensors import safe_open

    factors = safe_open(folder / "adapter" / "adapter_model.safetensors", "pt")
    names = set(factors.keys())
    changed = 0
    for path in sorted((folder / "base").glob("*.safetensors")):
        base, got = safe_open(path, "pt"), safe_open(target / path.name, "pt")
        for name in base.keys():  # noqa: SIM118 (no mapping)
            want = base.get_tensor(name)
            module = f"base_model.model.{name.removesuffix('.weight')}"
            if f"{module}.lora_A.weight" in names:
                a, b = (factors.get_tensor(f"{module}.lora_{part}.weight") for part in "AB")
                want = (want.float() + (b @ a) * (ALPHA / RANK)).to(torch.bfloat16)
                changed += 1
            if not torch.equal(got.get_tensor(name), want):
                raise RuntimeError(f"{name} differs from the reference")
    print(f"check: {changed} merged tensors equal the float32 reference rounded once", file=sys.stderr)


def benchmark(folder: Path, rounds: int) -> Figures:
    """Every figure's values, one a round."""
    figures: Figures = {"seconds": [], "cp_seconds": [], "peft_seconds": [], "peft_peak_mib": [], "peak_mib": []}
    for turn in range(rounds):
        copied = measure("cp", folder, False)
        mine = measure("ours", folder, turn == 0)
        theirs = measure("peft", folder, False)
        figures["cp_seconds"].append(copied["seconds"])
        figures["seconds"].append(mine["seconds"])
        figures["peak_mib"].append(mine["over_mib"])
        figures["peft_seconds"].append(theirs["seconds"])
        figures["peft_peak_mib"].append(theirs["over_mib"])
    for name, over, under in (
        ("over_cp", "seconds", "cp_seconds"),
        ("vs_peft_time", "peft_seconds", "seconds"),
        ("vs_peft_memory", "peak_mib", "peft_peak_mib"),
    ):
        figures[name] = [a / b for a, b in zip(figures[over], figures[under], strict=True)]
    return figures


def main() -> None:
    """Measure, print one line of figures; the whole measurement is written too."""
    parser = forms(__doc__, "a small checkpoint, each measurement once")
    parser.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        do(*given.task)
        return
    size = "tiny" if given.smoke else "small" if given.quick else "large"
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--task", "generate", name, size], check=True)
        figures = benchmark(folder, ROUNDS if size == "large" else 1)
        stored = sum(path.stat().st_size for path in (folder / "base").glob("*.safetensors"))
    if size == "large":
        content = {
            "checkpoint_gb": round(stored / 1e9, 2),
            "rank": RANK,
            "equal_to_float32_reference": True,  # a run that is not ends before
            "figures": {name: spread(values) for name, values in figures.items()},
        }
        write_results("merge", _MEASURED, content, uses_gpu=False)
    print_figures({name: statistics.median(figures[name]) for name in _QUOTED}, "smoke" if given.smoke else "")


def do(task: str, folder: str, target: str) -> None:
    """What a child is started for; the ``target`` of ``generate`` is a size."""
    if task == "generate":
        generate(Path(folder), target)
    elif task == "check":
        check_here(Path(folder), Path(target))
    else:
        measure_here(task, Path(folder), Path(target))


if __name__ == "__main__":
    main()
