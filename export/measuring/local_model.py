"""A model in this process, as it is measured: distributions over answers' tokens, and greedy answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trimtab.export.measuring.answers import Answer, batches
from trimtab.export.measuring.distributions import Distributions

ROWS = 32  # prompts answered at once
# Rows of the prompts, logits [rows, vocabulary] and the place in the answer in, the next tokens out, [rows, 1].
Choose = Callable[[slice, Tensor, int], Tensor]


class LocalModel:
    """A transformers (or PEFT) causal LM in evaluation mode."""

    known: int | None = None  # all log-probabilities are

    def __init__(self, model: Any) -> None:
        self.model = model
        self._device = next(model.parameters()).device

    @torch.inference_mode()
    def distributions(self, batch: list[Answer]) -> Distributions:
        """Of the answers' tokens, one answer after the other, as logits [tokens, vocabulary]."""
        ids, mask = self._padded([a.prompt + a.answer for a in batch], left=False)
        rows = [row for row, a in enumerate(batch) for _ in a.answer]
        columns = [at for a in batch for at in range(len(a.prompt) - 1, a.length - 1)]
        with self._head_sees(lambda hidden: hidden[rows, columns][None]):
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        if logits.shape[:2] != (1, len(rows)):
            raise RuntimeError(
                f"logits {list(logits.shape)} for {len(rows)} tokens: this model has a head of its own"
            )
        return Distributions(logits[0])

    @torch.inference_mode()
    def greedy(self, prompts: list[list[int]], limit: int, stop: int) -> list[list[int]]:
        """Each prompt's most likely continuation token by token, ``limit`` at most, ``stop`` included."""
        tokens = self.continued(prompts, limit, stop, lambda rows, logits, place: logits.argmax(-1, keepdim=True))
        return [until(row, stop) for row in tokens]

    @torch.inference_mode()
    def continued(self, prompts: list[list[int]], limit: int, stop: int, choose: Choose) -> list[list[int]]:
        """Each prompt's continuation by the token that ``choose`` takes, up to where all of a batch have ended."""
        answers: list[list[int]] = []
        for at in range(0, len(prompts), ROWS):
            rows = slice(at, at + ROWS)
            answers += self._continued(prompts[rows], limit, stop, partial(choose, rows))
        return answers

    def follows(self, answers: list[Answer], limit: int, stop: int, max_tokens: int) -> list[int]:
        """How many leading tokens of each answer are this model's own greedy ones.

        Greedy answers part where the most likely token first differs, so one pass over the answers tells.
        """
        agreed = [0] * len(answers)
        for indices, batch in batches(answers, max_tokens):
            best = self.distributions(batch).best().tolist()
            for index, answer in zip(indices, batch, strict=True):
                own, best = best[: len(answer.answer)], best[len(answer.answer) :]
                agreed[index] = leading(answer.answer, own)
        return agreed

    def _continued(
        self, prompts: list[list[int]], limit: int, stop: int, choose: Callable[[Tensor, int], Tensor]
    ) -> list[list[int]]:
        ids, mask = self._padded(prompts, left=True)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache, steps = None, []
        ended = torch.zeros(len(prompts), dtype=torch.bool, device=self._device)
        for place in range(limit):
            with self._head_sees(lambda hidden: hidden[:, -1:]):
                out = self.model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                )
            cache, ids = out.past_key_values, choose(out.logits[:, -1], place)
            steps.append(ids)
            ended |= ids[:, 0] == stop
            if ended.all():
                break
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], -1)
            positions = positions[:, -1:] + 1
        return [list(map(int, row)) for row in torch.cat(steps, -1).tolist()]

    def _padded(self, rows: list[list[int]], *, left: bool) -> tuple[Tensor, Tensor]:
        """Token ids and mask, [rows, longest]."""
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(rows):
            at = slice(width - len(tokens), width) if left else slice(0, len(tokens))
            ids[row, at] = torch.tensor(tokens)
            mask[row, at] = 1
        return ids.to(self._device), mask.to(self._device)

    @contextmanager
    def _head_sees(self, select: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """The head is given ``select`` of the hidden states [rows, tokens, width] alone: logits of a whole batch
        would take more memory than all else."""
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, inputs: (select(inputs[0]), *inputs[1:]))
        try:
            yield
        finally:
            hook.remove()


def until(tokens: list[int], stop: int) -> list[int]:
    """``tokens`` up to the first ``stop``, that included."""
    return tokens[: tokens.index(stop) + 1] if stop in tokens else tokens


def leading(tokens: list[int], others: list[int]) -> int:
    """How many of ``tokens`` are also the first of ``others``."""
    pairs = zip(tokens, others, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(tokens), len(others)))
