"""Where a checkpoint keeps the experts that an adapter's stacked factors update (PEFT's ``target_parameters``).

In the model a layer's experts are two parameters, ``gate_up_proj`` and ``down_proj``; PEFT names the factors of
the one that it wraps first ``experts.base_layer`` and of the other ``experts``, so that shapes tell which is
which. Files hold them in the same way (GPT-OSS), or each expert's gate, up and down apart (Qwen, OLMoE, Mixtral).
"""

from collections.abc import Mapping

from trimtab.export.checkpoint.tensor_files import TensorPlace
from trimtab.export.merging.lora_delta import ExpertSlots

# Names in files: the folder of the experts in place of the model's own, then gate, up and down.
_APART = (
    (".experts", ".experts", ("gate_proj", "up_proj", "down_proj")),
    (".mlp.experts", ".block_sparse_moe.experts", ("w1", "w3", "w2")),
)


def expert_targets(
    module: str, a: TensorPlace, b: TensorPlace, base: Mapping[str, TensorPlace]
) -> dict[str, ExpertSlots]:
    """The base's tensors that factors ``a`` [experts * rank, in] and ``b`` [out, rank * experts] update; empty if
    the files keep experts in no way that is known here."""
    module = module.removesuffix(".base_layer").removesuffix(".base_layer")
    if not module.endswith(".experts"):
        return {}
    return _stacked(module, a, b, base) or _apart(module, a, b, base)


def _stacked(
    module: str, a: TensorPlace, b: TensorPlace, base: Mapping[str, TensorPlace]
) -> dict[str, ExpertSlots]:
    gate_up, down = base.get(f"{module}.gate_up_proj"), base.get(f"{module}.down_proj")
    if gate_up is None or down is None or len(gate_up.shape) != 3 or len(down.shape) != 3:
        return {}
    experts, rows, columns = gate_up.shape
    if (rows, columns) == (2 * down.shape[2], down.shape[1]):  # [experts, 2 * intermediate, hidden]
        transposed = False
    elif (rows, columns) == (down.shape[2], 2 * down.shape[1]):
        transposed = True
    else:
        return {}
    update = (a.shape[1], b.shape[0]) if transposed else (b.shape[0], a.shape[1])
    return {p.name: ExpertSlots(experts, transposed=transposed) for p in (gate_up, down) if p.shape[1:] == update}


def _apart(module: str, a: TensorPlace, b: TensorPlace, base: Mapping[str, TensorPlace]) -> dict[str, ExpertSlots]:
    outputs, inputs = b.shape[0], a.shape[1]
    for ours, theirs, names in _APART:
        folder = module.removesuffix(ours) + theirs
        first = base.get(f"{folder}.0.{names[0]}.weight")
        if not module.endswith(ours) or first is None:
            continue
        experts = next(n for n in range(len(base)) if f"{folder}.{n}.{names[0]}.weight" not in base)
        half, hidden = first.shape
        if (outputs, inputs) == (2 * half, hidden):
            parts = {names[0]: (0, half), names[1]: (half, 2 * half)}
        elif (outputs, inputs) == (hidden, half):
            parts = {names[2]: (0, hidden)}
        else:
            return {}
        return {
            f"{folder}.{expert}.{name}.weight": ExpertSlots(experts, expert, rows)
            for expert in range(experts)
            for name, rows in parts.items()
        }
    return {}
