"""auto-gptq's packed form read back by its definition, and settings refused before any work."""

from pathlib import Path

import pytest
import torch

from trimtab.artifacts.errors import InputError
from trimtab.export.gptq import check_shapes, unpack
from trimtab.recipes.schema import GptqSection

ROWS, COLUMNS, GROUP = 64, 16, 32


def packed(codes: torch.Tensor, zeros: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pack codes [in, out] and zero points [groups, out] word by word, in plain Python integers."""

    def signed(word: int) -> int:
        return word - (1 << 32) if word >> 31 else word

    qweight = [
        [signed(sum(int(codes[8 * r + i, c]) << 4 * i for i in range(8))) for c in range(COLUMNS)]
        for r in range(ROWS // 8)
    ]
    qzeros = [
        [signed(sum((int(row[8 * w + i]) - 1) << 4 * i for i in range(8))) for w in range(COLUMNS // 8)]
        for row in zeros
    ]
    return torch.tensor(qweight, dtype=torch.int32), torch.tensor(qzeros, dtype=torch.int32)


def test_unpack_gives_the_weights_that_were_packed() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (ROWS, COLUMNS), generator=generator)
    zeros = torch.randint(1, 17, (ROWS // GROUP, COLUMNS), generator=generator)
    scales = torch.rand(ROWS // GROUP, COLUMNS, generator=generator).half()
    g_idx = torch.arange(ROWS, dtype=torch.int32) // GROUP
    got = unpack(*packed(codes, zeros), scales, g_idx, group_size=GROUP)
    want = torch.empty(ROWS, COLUMNS, dtype=torch.float64)
    for k in range(ROWS):
        for n in range(COLUMNS):
            g = k // GROUP
            want[k, n] = float(scales[g, n]) * (int(codes[k, n]) - int(zeros[g, n]))
    assert torch.allclose(got.double(), want, rtol=1e-6, atol=0)


def test_act_order_is_refused() -> None:
    zeros = torch.full((ROWS // GROUP, COLUMNS), 8)
    words, zero_words = packed(torch.zeros(ROWS, COLUMNS, dtype=torch.long), zeros)
    g_idx = torch.arange(ROWS, dtype=torch.int32).flip(0) // GROUP
    with pytest.raises(RuntimeError, match="g_idx"):
        unpack(words, zero_words, torch.ones(ROWS // GROUP, COLUMNS), g_idx, group_size=GROUP)


def test_group_size_must_divide_the_model(embedded: Path) -> None:
    check_shapes(embedded, GptqSection(group_size=64))
    with pytest.raises(InputError, match="does not divide hidden_size=576") as error:
        check_shapes(embedded, GptqSection(group_size=128))
    assert "64, 32" in str(error.value)
