"""Answers drawn from a model in this process, token by token at temperature 1."""

import torch

from trimtab.export.measuring.local_model import LocalModel, until


@torch.inference_mode()
def sampled(model: LocalModel, prompts: list[list[int]], limit: int, stop: int, seed: int) -> list[list[int]]:
    """One answer to each prompt from the model's own distribution, ``limit`` tokens at most, ``stop`` included.

    Drawn by the inverse of the distribution function from numbers that ``seed`` gives, one a prompt and place: two
    models that are alike draw alike, so that the difference of their figures has less chance in it.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(len(prompts), limit, generator=generator, dtype=torch.float64)

    def draw(rows: slice, logits: torch.Tensor, place: int) -> torch.Tensor:
        reached = torch.softmax(logits.double(), -1).cumsum(-1)
        last = torch.full_like(
            reached[:, :1], reached.shape[-1] - 1, dtype=torch.long
        )  # where rounding stops short
        wanted = draws[rows, place].to(logits.device)[:, None].contiguous()
        return torch.minimum(torch.searchsorted(reached, wanted, right=True), last)

    return [until(answer, stop) for answer in model.continued(prompts, limit, stop, draw)]
