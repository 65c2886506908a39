"""The part of a model card that says how to check and serve the artifact."""

import json
from pathlib import Path

from trimtab.artifacts.manifest import Manifest

_CPU = "--enforce-eager"


def serving(directory: Path, manifest: Manifest, base: str, bits: int) -> str:
    """Commands for the artifact once it is in the working directory; the model is served as its arm's name."""
    lines = [
        "## Check and serve\n\nIn the folder that holds these files:",
        "```bash\ntrimtab export inspect .   # every digest, and where it comes from\n```",
    ]
    if manifest.kind == "gguf":
        files = sorted(path.name for path in directory.glob("*.gguf"))
        line = f"llama-server -m {files[0] if files else 'FILE.gguf'} --alias {manifest.arm}"
        return "\n\n".join([*lines, f"With llama.cpp:\n\n```bash\n{line}\n```"])
    cuda, cpu = _vllm(directory, manifest, base, bits)
    lines.append(f"With vLLM on a GPU:\n\n```bash\n{cuda}\n```")
    if cpu:
        lines.append(
            "On a CPU, where vLLM's compiled mode was seen to answer garbage without an error "
            f"(keep `{_CPU}`):\n\n```bash\n{cpu}\n```"
        )
    else:
        lines.append("vLLM's CPU build does not serve 8-bit GPTQ.")
    if manifest.kind == "nf4":
        lines.append("Both need the package `vllm-bnb-plugin`: vLLM itself reads no bitsandbytes checkpoints.")
    if manifest.probe:
        lines.append(
            "`manifest.json` holds probe prompts with the log-probabilities that a server of these files must "
            "give; `trimtab serve` asks for them before it lets anybody in."
        )
    return "\n\n".join(lines)


def _vllm(directory: Path, manifest: Manifest, base: str, bits: int) -> tuple[str, str | None]:
    """The line for a GPU and the one for a CPU, None where there is none."""
    more = ""
    if manifest.kind == "adapter":
        more = f" --enable-lora --lora-modules {manifest.arm}=. --max-lora-rank {_rank(directory)}"
        start = f"{base}"
    else:
        start, more = ".", f" --served-model-name {manifest.arm}"
    if manifest.kind == "nf4":
        more += " --quantization bitsandbytes"
    packed = manifest.kind in ("gptq", "nf4")
    cpu = f"--model {start} --dtype {'bfloat16' if packed else 'float32'} {_CPU}{more}"
    cpu_line = f"python -m vllm.entrypoints.openai.api_server {cpu}"
    served = not (manifest.kind == "gptq" and bits == 8)
    return f"vllm serve {start} --dtype bfloat16{more}", cpu_line if served else None


def _rank(directory: Path) -> int:
    """The smallest rank vLLM takes that holds the adapter's."""
    try:
        rank = int(json.loads((directory / "adapter_config.json").read_bytes())["r"])
    except (OSError, ValueError, KeyError):
        rank = 16
    return next((r for r in (1, 8, 16, 32, 64, 128, 256, 320, 512) if r >= rank), rank)
