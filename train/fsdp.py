"""FSDP2 beyond what transformers' Trainer sets up by itself: without GPUs, and models that one process reads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import FullyShardedDataParallelPlugin
from accelerate.state import PartialState
from accelerate.utils import DistributedType

_SWITCHES = ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING")


def shard_on_cpu(trainer: Any) -> None:
    """Set the accelerator of ``trainer``, just made, to FSDP2 as its arguments say.

    All else is accelerate's, which opens this way for GPUs and their like only.
    """
    state = trainer.accelerator.state
    if state.distributed_type != DistributedType.MULTI_CPU:
        raise RuntimeError(f"made for several processes without GPUs, not for {state.distributed_type}")
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
    # Whatever asks for the state anew takes it from the second of these.
    state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    trainer.is_fsdp_enabled = True


@contextmanager
def first_process_reads(sharded: bool) -> Iterator[None]:
    """Within it ``from_pretrained`` reads weights in the first process only; the others get their shards from it
    when the trainer shards the model."""
    before = {name: os.environ.get(name) for name in _SWITCHES}
    if sharded:
        os.environ.update(dict.fromkeys(_SWITCHES, "true"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
