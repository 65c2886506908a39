"""Auto-gptq's packed form read back by its definition; forms that are not read are refused."""

import json
from pathlib import Path

import pytest
import torch

from trimtab.artifacts.errors import InputError
from trimtab.export.forms.gptq_format import dequantized_tensors, unpack

ROWS, COLUMNS, GROUP = 64, 16, 32


def packed(codes: torch.Tensor, zeros: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pack codes [in, out] and zero points [groups, out] word by word, in plain Python integers."""
    per_word = 32 // bits

    def signed(word: int) -> int:
        return word - (1 << 32) if word >> 31 else word

    qweight = [
        [signed(sum(int(codes[per_word * r + i, c]) << bits * i for i in range(per_word))) for c in range(COLUMNS)]
        for r in range(ROWS // per_word)
    ]
    qzeros = [
        [
            signed(sum((int(row[per_word * w + i]) - 1) << bits * i for i in range(per_word)))
            for w in range(COLUMNS // per_word)
        ]
        for row in zeros
    ]
    return torch.tensor(qweight, dtype=torch.int32), torch.tensor(qzeros, dtype=torch.int32)


@pytest.mark.parametrize("bits", [4, 8])
def test_unpack_gives_the_weights_that_were_packed(bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 1 << bits, (ROWS, COLUMNS), generator=generator)
    zeros = torch.randint(1, (1 << bits) + 1, (ROWS // GROUP, COLUMNS), generator=generator)
    scales = (torch.rand(ROWS // GROUP, COLUMNS, generator=generator) - 0.5).half()
    g_idx = torch.arange(ROWS, dtype=torch.int32) // GROUP
    got = unpack(*packed(codes, zeros, bits), scales, g_idx, group_size=GROUP, bits=bits)
    want = torch.empty(ROWS, COLUMNS, dtype=torch.float64)
    for k in range(ROWS):
        for n in range(COLUMNS):
            g = k // GROUP
            want[k, n] = float(scales[g, n]) * (int(codes[k, n]) - int(zeros[g, n]))
    assert torch.allclose(got.double(), want, rtol=1e-6, atol=0)


def test_act_order_is_refused() -> None:
    zeros = torch.full((ROWS // GROUP, COLUMNS), 8)
    words, zero_words = packed(torch.zeros(ROWS, COLUMNS, dtype=torch.long), zeros, 4)
    g_idx = torch.arange(ROWS, dtype=torch.int32).flip(0) // GROUP
    with pytest.raises(RuntimeError, match="g_idx"):
        unpack(words, zero_words, torch.ones(ROWS // GROUP, COLUMNS), g_idx, group_size=GROUP)


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        (None, "quant_method is None, allowed: gptq"),
        ({"quant_method": "awq"}, "quant_method is awq"),
        ({"quant_method": "gptq", "checkpoint_format": "gptq_v2"}, "checkpoint_format is gptq_v2, allowed: gptq"),
        ({"quant_method": "gptq", "checkpoint_format": "gptq", "bits": 3}, "bits is 3, allowed: 4 or 8"),
    ],
)
def test_other_forms_are_refused(tmp_path: Path, stated: dict[str, object] | None, said: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": stated}))
    with pytest.raises(InputError, match=said):
        next(dequantized_tensors(tmp_path))
