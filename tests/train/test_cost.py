"""What training costs: matrix products counted, energy read from counters."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trimtab.train.cost import CostMeter, joules_between, packages
from trimtab.train.flops import EVERY, MatrixFlops, counter
from trimtab.train.products import linear


def counted(run: Any) -> int:
    with counter() as mode:
        run()
    return int(mode.get_total_flops())


def test_products_of_both_libraries_are_counted() -> None:
    x, w = torch.randn(7, 5), torch.randn(3, 5)
    assert counted(lambda: x @ w.T) == 2 * 7 * 5 * 3
    with torch.no_grad():
        assert counted(lambda: linear(x, w)) == 2 * 7 * 5 * 3


def test_attention_is_counted_forwards_and_backwards() -> None:
    q, k, v = (torch.randn(1, 2, tokens, 8, requires_grad=True) for tokens in (6, 10, 10))

    def attend() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    forward = 2 * 2 * 6 * 10 * (8 + 8)  # two products, each 2 heads x 6 x 10 x 8 multiplications and additions
    assert counted(lambda: attend().detach()) == forward
    assert counted(lambda: attend().sum().backward()) == forward + forward * 5 // 2


def test_a_layers_backward_pass_is_twice_its_forward_one() -> None:
    layer, x = torch.nn.Linear(4, 6, bias=False), torch.randn(3, 4, requires_grad=True)
    assert counted(lambda: layer(x).sum().backward()) == 3 * 2 * 3 * 4 * 6


def test_steps_between_are_scaled_by_their_tokens() -> None:
    callback, x, w = MatrixFlops(), torch.randn(1, 2), torch.randn(3, 2)
    state: Any = SimpleNamespace(global_step=0, num_input_tokens_seen=0)
    tokens = [10, 20, 30, 40, 10, 10, 10, 10, 50, 10]  # of steps 0 to 9: the first and the ninth are counted
    for step, of_step in enumerate(tokens):
        state.global_step = step
        callback.on_step_begin(None, state, None)
        for _ in range(of_step):
            x @ w.T
        state.num_input_tokens_seen += of_step
        callback.on_step_end(None, state, None)
    assert EVERY == 8
    assert callback.total(state) == 2 * 1 * 2 * 3 * sum(tokens)
    assert MatrixFlops().total(state) is None


def test_a_run_that_ends_within_a_step_stops_counting() -> None:
    callback = MatrixFlops()
    state: Any = SimpleNamespace(global_step=0, num_input_tokens_seen=0)
    callback.on_step_begin(None, state, None)
    callback.on_train_end(None, state, None)
    callback.on_train_end(None, state, None)
    assert counted(lambda: torch.ones(2, 2) @ torch.ones(2, 2)) == 16


def rapl(root: Path, microjoules: dict[str, int]) -> None:
    for name, value in microjoules.items():
        (root / name).mkdir(exist_ok=True)
        (root / name / "energy_uj").write_text(f"{value}\n")
        (root / name / "max_energy_range_uj").write_text("1000000\n")


def test_energy_is_that_of_the_packages(tmp_path: Path) -> None:
    rapl(tmp_path, {"intel-rapl:0": 500_000, "intel-rapl:1": 900_000, "intel-rapl:0:0": 7})
    before = packages(tmp_path)
    assert [path.name for path in before] == ["intel-rapl:0", "intel-rapl:1"]
    rapl(tmp_path, {"intel-rapl:0": 700_000, "intel-rapl:1": 100_000})  # the second began again at 0
    assert joules_between(before, packages(tmp_path)) == pytest.approx(0.2 + 0.2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU tells its own energy")
def test_meter_on_the_cpu(tmp_path: Path) -> None:
    nothing = CostMeter(tmp_path).start().figures()
    assert (nothing["energy_joules"], nothing["energy_source"], nothing["device"]) == (None, None, "cpu")
    rapl(tmp_path, {"intel-rapl:0": 0})
    meter = CostMeter(tmp_path).start()
    sum(n * n for n in range(300_000))
    rapl(tmp_path, {"intel-rapl:0": 500_000})
    found = meter.figures()
    assert (found["energy_joules"], found["energy_source"]) == (0.5, "RAPL")
    assert found["device_seconds"] >= 0
