"""What either engine's trainer needs to survive: whole checkpoints, a stop at the first NaN and on a signal."""

import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from trimtab.artifacts.errors import GateError, InputError
from trimtab.train.checkpoints import complete, latest, step_of
from trimtab.train.fsdp import shard_on_cpu
from trimtab.train.job import Job


class Durable:
    """Mixed into a subclass of transformers' Trainer, before it."""

    job: Job
    seconds_before = 0.0  # of training, in the processes that this one goes on from
    began = 0.0

    def suspects(self) -> list[int]:
        """Pairs, by their place in the data, that a loss which is not finite came from, where they are known."""
        return []

    def release(self: Any) -> None:
        """Let go of all that takes memory; the trainer is of no use after."""
        self.accelerator.free_memory()
        held = (
            "model",
            "model_wrapped",
            "optimizer",
            "lr_scheduler",
            "fused",
            "reference",
            "ref_model",
            "callback_handler",
        )
        for name in held:
            setattr(self, name, None)

    def take_up_finished(self: Any, checkpoint: Path) -> bool:
        """Load ``checkpoint`` if training had come to its end there; Trainer itself would take one step more."""
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        early = state.stateful_callbacks.get("EarlyStoppingCallback", {}).get("attributes", {})
        waited, patience = (
            early.get("early_stopping_patience_counter", 0),
            self.job.section.early_stopping_patience,
        )
        ended = state.global_step >= state.max_steps or (patience and waited >= patience)
        if not ended or self.is_fsdp_enabled:
            return False
        self.state = state
        self._load_from_checkpoint(state.best_model_checkpoint or str(checkpoint))
        return True

    def create_accelerator_and_postprocess(self: Any) -> None:
        """Trainer's, with FSDP2 without GPUs too."""
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        if self.args.fsdp and not self.is_fsdp_enabled:
            shard_on_cpu(self)

    def _maybe_log_save_evaluate(self: Any, tr_loss: Any, grad_norm: Any, *rest: Any, **more: Any) -> None:
        control = self.control
        if control.should_log or control.should_evaluate or control.should_save:
            self._stop_unless_finite(tr_loss, grad_norm)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *rest, **more)  # type: ignore[misc]

    def _stop_unless_finite(self: Any, loss: Any, grad_norm: Any) -> None:
        norm = 0.0 if grad_norm is None else float(grad_norm)
        figures = self.accelerator.gather(torch.tensor([[float(loss), norm]], device=self.args.device))
        if bool(figures.isfinite().all()):
            return
        rows = self.suspects()
        self.log({"loss": float(loss), "grad_norm": norm})  # the curves end where the run did
        names = ", ".join(str(row + 1) for row in rows[:12]) + (" and more" if len(rows) > 12 else "")
        last = step_of(latest(Path(self.args.output_dir)))
        kept = f"the last good checkpoint, of step {last}, is kept" if last else "there is no checkpoint yet"
        raise GateError(
            f"{self.job.arm}: training diverged at step {self.state.global_step}: loss {float(loss):g}, "
            f"gradient norm {norm:g}" + (f", on the training pairs {names}" if names else "") + f"; {kept}. "
            "Pairs are counted over the data as mixed and split. Lower train.learning_rate, or see what "
            "`trimtab data check` says of them"
        )

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        directory = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                complete(directory, self.seconds_before + time.monotonic() - self.began)
        except (OSError, SafetensorError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
                raise
            shutil.rmtree(directory, ignore_errors=True)
            last = step_of(latest(Path(self.args.output_dir)))
            raise InputError(
                f"{self.job.arm}: the checkpoint of step {self.state.global_step} cannot be written to "
                f"{self.args.output_dir}: {error}; the one of step {last} is kept: free some disk, then the same "
                "command goes on from it"
            ) from error

    def _save(self: Any, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Weights and their configuration: no tokenizer, and no pickled arguments."""
        model = self.accelerator.unwrap_model(self.model)
        own = (
            {"selected_adapters": ["default"], "save_embedding_layers": False} if self.job.section.use_lora else {}
        )
        target = Path(output_dir or self.args.output_dir)
        target.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(target, state_dict=state_dict, **own)


class StopOnSignal(TrainerCallback):
    """SIGTERM, or the first Ctrl-C: the step is finished, a checkpoint written, and training ends."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
            }

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All processes stop after the same step: where there are several, they agree when they log."""
        stop = bool(self.received)
        if args.world_size > 1:
            if not control.should_log:
                return
            flag = torch.tensor([self.received], device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            self.received = int(flag.item())
            stop = bool(self.received)
        if stop:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = number


def made_durable(trainer: Any, job: Job) -> Any:
    """``trainer`` with its job, early stopping where the recipe has it, and no printing of its own."""
    trainer.job = job
    if job.section.early_stopping_patience:
        trainer.add_callback(EarlyStoppingCallback(job.section.early_stopping_patience))
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    return trainer
