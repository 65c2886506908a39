"""GPTQModel's hot inner pieces replaced while a block runs: its own loops, packing and format stay.

Its time on a CPU goes to forward passes: of each layer one for every set of linear layers that is rounded at once,
and one more for the next layer's inputs. Here a linear layer does not compute again what it has computed, what
nobody reads is not computed, and Hessians are summed over many rows at once: the same sums, up to the order of
additions. Rounding is that of ``gptq_rounding``.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from trimtab.artifacts.errors import GateError
from trimtab.export.forms.gptq_products import add_gram, linear, remembered
from trimtab.export.forms.gptq_rounding import round_weight

VERSION = "7.6.0"
_HESSIAN_ROWS = 4096  # of inputs, multiplied at once


@dataclass
class _Run:
    """What the replaced pieces share: settings, the finished layers' errors, and the state of the pass."""

    candidates: int
    errors: dict[str, float] = field(default_factory=dict)
    one_at_a_time: threading.Lock = field(default_factory=threading.Lock)
    factored: tuple[Tensor, Tensor, float] | None = None  # a permuted Hessian, its factor and damping
    products_unread: bool = False


@contextlib.contextmanager
def fast_gptqmodel(candidates: int) -> Iterator[dict[str, float]]:
    """GPTQModel with our rounding, ``candidates`` scales of each sign tried, and on the CPU with fewer products.

    Gives the relative output errors of the layers that are done, ||X(W-Q)||_F / ||XW||_F over the calibration
    rows X, by name. RuntimeError when GPTQModel is not the version whose pieces these fit.
    """
    if version("gptqmodel") != VERSION:
        raise RuntimeError(
            f"this fits GPTQModel {VERSION}, but {version('gptqmodel')} is installed; install that version, "
            "or use GPTQModel as it is: export.quantize.gptq.scale_candidates=0"
        )
    from gptqmodel.looper.gptq_processor import GPTQProcessor
    from gptqmodel.nn_modules.hooked_linear import HookedLinear
    from gptqmodel.quantization.gptq import GPTQ

    run = _Run(candidates)
    patches: list[tuple[Any, str, Any]] = [(GPTQ, "quantize", _quantize(run, GPTQ.quantize))]
    if not torch.cuda.is_available():
        patches += [
            (GPTQ, "add_batch", _add_batch),
            (GPTQ, "materialize_global_hessian", _materialize(GPTQ.materialize_global_hessian)),
            (GPTQProcessor, "begin_shared_input_capture", _begin(run, GPTQProcessor.begin_shared_input_capture)),
            (GPTQProcessor, "end_shared_input_capture", _end(GPTQProcessor.end_shared_input_capture)),
            (HookedLinear, "forward", _forward(run, HookedLinear.forward)),
        ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    try:
        for owner, name, replacement in patches:
            setattr(owner, name, replacement)
        yield run.errors
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _quantize(run: _Run, original: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """``GPTQ.quantize`` by ``round_weight``: what it reads of the task and what it returns are as there.

    Left to GPTQModel: experts that hardly any calibration token reached, and what is not a linear layer.
    """
    from gptqmodel.utils.fallback import should_use_fallback

    @torch.inference_mode()
    def quantize(self: Any, blocksize: int = 128) -> tuple[Any, ...]:
        began = time.monotonic()
        unseen = should_use_fallback(self.fallback, float(self.nsamples), self.expected_nsamples)
        if unseen or not isinstance(self.module, torch.nn.Linear) or self._tp_pad_cols:
            return original(self, blocksize)
        with _alone(run) if self.module.weight.device.type == "cpu" else contextlib.nullcontext():
            hessian = self.finalize_hessian(target_device=getattr(self.module, "target_device", None))
            self._release_deferred_hessian_sources()
            weight = self.clone_module(device=hessian.device)
            dead = hessian.diagonal() == 0
            hessian.diagonal()[dead] = 1
            weight[:, dead] = 0
            rounded, scales, damp = _rounded(self, weight, hessian, run)
            error = run.errors[self._named_module.full_name] = _output_error(weight, rounded, hessian)
        self.H = None
        target = self.module.weight.data
        groups = torch.arange(weight.shape[1], dtype=torch.int32, device=weight.device) // self.qcfg.group_size
        zeros = torch.full_like(scales, 1 << self.qcfg.bits - 1)
        result = (rounded.to(device=target.device, dtype=target.dtype), scales, zeros, groups)
        return (*result, time.monotonic() - began, error, damp, self.nsamples)

    return quantize


def _rounded(task: Any, weight: Tensor, hessian: Tensor, run: _Run) -> tuple[Tensor, Tensor, float]:
    """Weight [out, in] after rounding, its scales [out, groups] and the damping, in GPTQModel's group-aware order.

    That order (``act_group_aware``) takes columns with large inputs first, groups and within groups.
    """
    from gptqmodel.quantization.gar import compose_final_perm, compute_global_perm, compute_local_perms

    size, diagonal = task.qcfg.group_size, hessian.diagonal()
    within, values = compute_local_perms(diagonal, size, return_values=True)
    groups = compute_global_perm(diagonal, size, precomputed_values=values)
    order = compose_final_perm(within, groups, size)
    factor, damp = _factor(task, hessian[order][:, order], run)
    codes, scales = round_weight(
        weight[:, order].T.contiguous(), factor, group_size=size, bits=task.qcfg.bits, candidates=run.candidates
    )
    rounded, in_place = torch.empty_like(weight), torch.empty_like(scales)
    rounded[:, order] = (codes * scales.repeat_interleave(size, 0)).T
    in_place[groups] = scales
    return rounded, in_place.T.contiguous(), damp


@contextlib.contextmanager
def _alone(run: _Run) -> Iterator[None]:
    """One of GPTQModel's workers at a time, with one OpenMP thread.

    Rounding is many small operations: two workers would take turns at Python's lock, one alone is as quick as
    both; and waking a second thread for each operation takes longer than what it saves.
    """
    with run.one_at_a_time:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _factor(task: Any, hessian: Tensor, run: _Run) -> tuple[Tensor, float]:
    """The factor of the damped inverse of ``hessian``, and the damping; layers of one input share theirs."""
    if run.factored and run.factored[0].shape == hessian.shape and torch.equal(run.factored[0], hessian):
        return run.factored[1:]
    factor, damp = task.hessian_inverse(hessian.clone())  # it may damp in place
    if factor is None:
        raise GateError(
            f"{task.name}: the Hessian of its calibration inputs cannot be inverted; "
            "give more calibration samples, or raise export.quantize.gptq.damp_percent"
        )
    if hessian.device.type == "cpu":
        run.factored = (hessian, factor, damp)
    return factor, damp


def _output_error(weight: Tensor, rounded: Tensor, hessian: Tensor) -> float:
    """||X(W-Q)||_F / ||XW||_F from W, Q [out, in] and X's Hessian, a multiple of X.T @ X."""
    difference = weight - rounded
    of_difference = torch.sum(linear(difference, hessian, None) * difference, dtype=torch.float64)
    of_weight = torch.sum(linear(weight, hessian, None) * weight, dtype=torch.float64)
    return float((of_difference / of_weight).clamp(min=0).sqrt())


def _add_batch(self: Any, inp: Tensor, out: Tensor, batch_index: int | None = None) -> None:
    """``GPTQ.add_batch``, but the rows of several samples are multiplied at once."""
    rows = inp.reshape(-1, inp.shape[-1])
    with self.lock:
        pending = self.__dict__.setdefault("pending_rows", [])
        pending.append(rows)
        self.fwd_counter += 1
        self.nsamples += len(rows)
        if sum(map(len, pending)) >= _HESSIAN_ROWS:
            _sum_pending(self)


def _sum_pending(task: Any) -> None:
    """Add the pending rows' products to the task's sums."""
    with task.lock:
        pending = task.__dict__.pop("pending_rows", [])
        if not pending:
            return
        rows = torch.cat(pending).float()
        partials, counts, device = task._device_hessian_partials, task._device_sample_counts, rows.device
        if device not in partials:
            partials[device] = torch.zeros(rows.shape[1], rows.shape[1], device=device)
        add_gram(partials[device], rows)
        counts[device] = counts.get(device, 0) + len(rows)
        task._record_partial_ready(device)
        task._hessian_dirty = True


def _materialize(original: Callable[..., None]) -> Callable[..., None]:
    """``GPTQ.materialize_global_hessian``, with what is pending."""

    def materialize(self: Any, target_device: torch.device | None = None) -> None:
        _sum_pending(self)
        original(self, target_device)

    return materialize


def _begin(run: _Run, original: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
    """``begin_shared_input_capture``, which also notes when all layers of the pass have one input.

    None of them then reads another's output, and the pass stops at the last of them.
    """

    def begin(self: Any, model: Any, names: list[str], *given: Any, **more: Any) -> dict[str, str]:
        leaders = original(self, model, names, *given, **more)
        run.products_unread = len(set(leaders.values())) == 1 and len(leaders) == len(names) - 1
        return leaders

    return begin


def _end(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """``end_shared_input_capture`` after the pending sums, here with all threads."""

    def end(self: Any, names: list[str]) -> dict[str, Any]:
        for task in filter(None, map(self.tasks.get, names)):
            _sum_pending(task)
        return original(self, names)

    return end


def _forward(run: _Run, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``HookedLinear.forward`` for plain layers on the CPU; other ones are passed on to it."""
    from gptqmodel.nn_modules.hooked_linear import STOP_FORWARD_EXCEPTION

    @torch.inference_mode()
    def forward(self: Any, input: Tensor) -> Tensor:
        special = self._w4a_stream_replay_mode or self.online_full_had or self.online_partial_had
        if special or not self.weight.device.type == input.device.type == "cpu":
            return original(self, input)
        if self.forward_hook is None:
            return remembered(self, input)
        if run.products_unread or self.forward_hook_last:
            output = input.new_zeros(1).expand(*input.shape[:-1], self.out_features)
        else:
            output = linear(input, self.weight, self.bias)
        self.forward_hook(self, (input,), output)
        if self.forward_hook_last:
            raise STOP_FORWARD_EXCEPTION.with_traceback(None)
        return output

    return forward
