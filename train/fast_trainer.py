"""transformers' Trainer on packed pairs: its loop, checkpoints and distribution, our step."""

import hashlib
import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from tqdm import tqdm
from transformers import AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

from trimtab.train.arguments import training_arguments
from trimtab.train.batches import Collator, Shuffled, tokens_of
from trimtab.train.durable import Durable, made_durable
from trimtab.train.forward import use_pair_forward
from trimtab.train.fused_layers import fuse_layers
from trimtab.train.fused_lora import FusedLora, fuse_lora
from trimtab.train.job import Job
from trimtab.train.memory import give_back_free_memory
from trimtab.train.models import load_model, load_policy
from trimtab.train.packing import PackedPairs, in_pieces, pack
from trimtab.train.pair_tokens import PairTokens
from trimtab.train.reference import (
    ADAPTER,
    CachedReference,
    Reference,
    adapter_reference,
    base_reference,
    model_reference,
)
from trimtab.train.step import AnswerLogprobs, Figures, Totals, answer_logprobs, dpo, orpo, sft


class PairTrainer(Durable, Trainer):
    """Trains one arm. A batch goes through in pieces; figures are summed on the device and read when logged."""

    def __init__(self, job: Job, reference: Reference | None, fused: FusedLora, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.job, self.reference, self.fused = job, reference, fused
        self.model_accepts_loss_kwargs = False  # the loss is a mean over pairs already
        self._figures: Figures = {}
        self._batches = self._tokens = 0
        self._since = time.perf_counter()
        self._recent: list[tuple[list[int], Tensor]] = []
        self._largest = 0  # tokens of the largest piece so far

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one batch, piece by piece; its loss."""
        model.train()
        with self.fused.kept():
            return self._forward_backward(model, inputs["pieces"])

    def _forward_backward(self, model: Any, pieces: list[PackedPairs]) -> Tensor:
        totals = self._totals(pieces)
        share = self.current_gradient_accumulation_steps
        loss = torch.zeros((), device=self.args.device)
        weighted = self._in_step(pieces)
        for index, (piece, weight) in enumerate(weighted):
            last = index == len(weighted) - 1
            if piece.input_ids.numel() > self._largest:
                self._largest = piece.input_ids.numel()
                give_back_free_memory()
            with nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    part, figures = self._step(model, piece, totals)
                # Gradients are averaged over processes, parts of one loss are summed.
                self.accelerator.backward(part * (weight * self.args.world_size / share))
            if not weight:
                continue
            loss = loss + part.detach().float()
            self._recent.append((piece.rows, part.detach()))
            for name, value in figures.items():
                self._figures[name] = self._figures[name] + value if name in self._figures else value
            self._tokens += piece.tokens
            self.state.num_input_tokens_seen += piece.tokens  # of this process; kept in checkpoints
        self._batches += 1
        return loss * (self.args.world_size / share)

    def suspects(self) -> list[int]:
        """Rows of the pieces whose loss is not finite; of the last piece if the gradient alone is not."""
        bad = [row for rows, loss in self._recent if not bool(loss.isfinite()) for row in rows]
        if bad or self.args.world_size > 1:  # of other processes' pairs this one knows nothing
            return bad
        return self._recent[-1][0]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's log with the mean of the figures since the last one, over all processes."""
        if "loss" in logs and self._batches:
            names = sorted(self._figures)
            sums = torch.stack([self._figures[name].float() for name in names] + [self._count(self._tokens)])
            *means, tokens = self.accelerator.reduce(sums, "sum").tolist()
            logs |= {name: value / self._batches for name, value in zip(names, means, strict=True)}
            logs["tokens_per_second"] = tokens / (time.perf_counter() - self._since)
            self._figures, self._batches, self._tokens, self._recent = {}, 0, 0, []
        super().log(logs, start_time)
        self._since = time.perf_counter()

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Means over all held-out pairs together, whatever the batches and processes."""
        began = time.perf_counter()
        self.model.eval()
        with self.fused.kept():
            rows = [
                self.accelerator.gather_for_metrics(self._measured(inputs["pieces"]))
                for inputs in self.get_eval_dataloader(eval_dataset)
            ]
        table = torch.cat(rows)
        answers = AnswerLogprobs(
            table[:, :3], table[:, 3:6], table[:, 8:] if self.job.section.log_logits else None
        )
        loss, figures = self._loss(answers, answers.totals, table[:, 6:8])
        seconds = time.perf_counter() - began
        metrics = {
            f"{metric_key_prefix}_{name}": value.item() for name, value in {"loss": loss, **figures}.items()
        }
        metrics |= {
            f"{metric_key_prefix}_runtime": seconds,
            f"{metric_key_prefix}_samples_per_second": len(table) / seconds,
            f"{metric_key_prefix}_steps_per_second": len(rows) / seconds,
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[has-type]
        return metrics

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return Shuffled(len(self.train_dataset), self.args.data_seed, lambda: self.state.epoch)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted here."""
        return 0

    def _measured(self, pieces: list[PackedPairs]) -> Tensor:
        """For each pair: sums, counts, the reference's log-probabilities, and logits where logged."""
        parts = []
        for piece, weight in self._in_step(pieces):
            with torch.no_grad(), self.compute_loss_context_manager():
                answers = answer_logprobs(self.model_wrapped, piece, log_logits=self.job.section.log_logits)
                reference = self.reference(self.model_wrapped, piece) if self.reference else answers.answers
            columns = [answers.sums, answers.counts, reference]
            if weight:
                parts.append(torch.cat(columns if answers.logits is None else [*columns, answers.logits], 1))
        return torch.cat(parts)

    def _in_step(self, pieces: list[PackedPairs]) -> list[tuple[PackedPairs, float]]:
        """``pieces`` with their weights: under FSDP all processes must run the model equally often."""
        weighted = [(piece, 1.0) for piece in pieces]
        if self.is_fsdp_enabled:
            most = self.accelerator.gather(torch.tensor([len(pieces)], device=self.args.device)).max()
            weighted += [(pieces[-1], 0.0)] * (int(most) - len(pieces))
        return weighted

    def _step(self, model: Any, piece: PackedPairs, totals: Totals) -> tuple[Tensor, Figures]:
        reference = self.reference(model, piece) if self.reference else None
        return self._loss(answer_logprobs(model, piece, log_logits=self.job.section.log_logits), totals, reference)

    def _loss(self, answers: AnswerLogprobs, totals: Totals, reference: Tensor | None) -> tuple[Tensor, Figures]:
        own = self.job.own
        if self.job.arm == "orpo":
            return orpo(answers, totals, beta=own.beta)
        if self.job.arm == "sft" or reference is None:
            return sft(answers, totals)
        options = {"beta": own.beta, "loss_type": own.loss_type, "label_smoothing": own.label_smoothing}
        return dpo(answers, totals, reference, **options)

    def _totals(self, pieces: list[PackedPairs]) -> Totals:
        counts = [count for piece in pieces for count in piece.target_counts]
        prompt, chosen, rejected = (sum(column) for column in zip(*counts, strict=True))
        totals = (len(counts), prompt + chosen, chosen, rejected)
        if self.args.world_size == 1:
            return Totals(*totals)
        return Totals(*self.accelerator.reduce(torch.tensor(totals, device=self.args.device), "sum"))

    def _count(self, number: int) -> Tensor:
        return torch.tensor(float(number), device=self.args.device)


def make_fast_trainer(job: Job, callbacks: list[TrainerCallback]) -> PairTrainer:
    """A trainer for ``job``, ready for ``train()`` and ``evaluate()``."""
    tokenizer = AutoTokenizer.from_pretrained(job.model_dir)
    policy = load_policy(job.recipe, job.model_dir, job.start)
    use_pair_forward(policy.get_base_model() if job.section.use_lora else policy)
    reference = _reference(job, policy)
    fused = fuse_lora(policy) if not job.section.fsdp else FusedLora([])
    fuse_layers(policy)
    length = job.section.max_length
    trainer = PairTrainer(
        job,
        reference,
        fused,
        model=policy,
        args=TrainingArguments(**training_arguments(job)),
        train_dataset=tokens_of(tokenizer, job.train, length, "training"),
        eval_dataset=tokens_of(tokenizer, job.heldout, length, "held-out", len(job.train)),
        processing_class=tokenizer,
        data_collator=Collator(job),
        callbacks=callbacks,
    )
    if trainer.reference and job.own.precompute_ref_log_probs:
        trainer.reference = _precomputed(trainer, job)
    made_durable(trainer, job)
    return trainer


def _reference(job: Job, policy: Any) -> Reference | None:
    source = job.reference
    if source is None:
        return None
    if source.kind == "base":
        return base_reference
    if source.kind == "adapter":
        policy.load_adapter(source.path, ADAPTER, is_trainable=False)
        policy.set_adapter("default")
        return adapter_reference
    model = use_pair_forward(load_model(job.section, Path(source.path)))
    model.requires_grad_(False).eval()
    if torch.cuda.is_available() and not job.section.load_in_4bit:
        model.to(torch.cuda.current_device())
    return model_reference(model)


def _precomputed(trainer: PairTrainer, job: Job) -> Reference:
    """The reference's log-probabilities of all pairs, from disk if they are there; processes share the work."""
    tokens: list[PairTokens] = [*trainer.train_dataset, *trainer.eval_dataset]
    content = hashlib.sha256(json.dumps(tokens).encode()).hexdigest()
    source = job.reference
    key = {"reference": source and source.parent.digest, "kind": source and source.kind, "tokens": content}
    path = job.work_dir.parent / "reference.safetensors"
    if cached := CachedReference.load(path, key):
        return cached
    args, accelerator = trainer.args, trainer.accelerator
    table = torch.zeros(len(job.train) + len(job.heldout), 2, device=args.device)
    pieces = in_pieces(tokens, job.max_tokens)[args.process_index :: args.world_size]
    trainer.model.eval()
    for piece in tqdm(pieces, desc=f"reference of {job.arm}", unit="batch", disable=args.process_index > 0):
        batch = pack(piece, with_prompt=False).to(args.device)
        table[batch.rows] = trainer.reference(trainer.model, batch).float()  # type: ignore[misc]
    cached = CachedReference(accelerator.reduce(table, "sum").cpu())
    if args.process_index == 0:
        cached.save(path, key)
    return cached
