"""A model's profile: scores of held-out pairs and of general text, its greedy answers, its KL to the base."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.profiles import Answered, OwnSample, Scored, ScoredPair
from trimtab.data.pair import Pair
from trimtab.export.measuring.answers import Answer, answers_of, batches, prompts_of
from trimtab.export.measuring.distributions import Distributions, compare
from trimtab.export.measuring.local_model import LocalModel
from trimtab.export.measuring.sampling import sampled
from trimtab.recipes.compare import MeasureSection

GENERAL_TEXT = Path(__file__).with_name("general_text.txt")


@dataclass(frozen=True)
class Asked:
    """What every model of a comparison is asked, as token ids of one tokenizer. ``prompts``: by the positions of
    their held-out pairs."""

    pairs: list[Answer]
    general: list[Answer]
    prompts: dict[int, list[int]]
    own_prompts: list[list[int]]
    answer_tokens: int
    sample_tokens: int
    seed: int
    max_tokens: int


def asked(
    tokenizer: Any,
    heldout: list[Pair],
    section: MeasureSection,
    *,
    prompts: int,
    answer_tokens: int,
    max_length: int,
    seed: int,
) -> Asked:
    """The first held-out pairs and prompts, and the first general passages, tokenised.

    InputError where every prompt fills ``max_length``.
    """
    answered = prompts_of(tokenizer, heldout[:prompts], max_length)
    if not answered:
        raise InputError(
            f"none of the first {prompts} held-out prompts has less than max_length={max_length} tokens; raise "
            "train.max_length, or compare.prompts"
        )
    return Asked(
        pairs=answers_of(tokenizer, heldout[: section.pairs], max_length),
        general=[_passage(tokenizer, text, max_length) for text in passages()[: section.general_passages]],
        prompts=answered,
        own_prompts=list(prompts_of(tokenizer, heldout[: section.own_samples], max_length).values()),
        answer_tokens=answer_tokens,
        sample_tokens=section.sample_tokens,
        seed=seed,
        max_tokens=min(1024, max(1, (1 << 28) // (4 * len(tokenizer)))),
    )


def passages() -> list[str]:
    """The general text that comes with Trimtab, a passage a paragraph; no quantisation is calibrated on it."""
    text = GENERAL_TEXT.read_text(encoding="utf-8")
    return [" ".join(block.split()) for block in text.split("\n\n") if block.strip()]


def measured(model: LocalModel, base: LocalModel | None, tokenizer: Any, what: Asked) -> dict[str, Any]:
    """The lists of a ``Profile`` for ``model``; ``base`` None: the model is the base, whose KL to itself is 0."""
    began = time.monotonic()
    pairs = scored(model, what.pairs, what.max_tokens)
    own = sampled(model, what.own_prompts, what.sample_tokens, tokenizer.eos_token_id, what.seed)
    samples = [Answer(p, a) for p, a in zip(what.own_prompts, own, strict=True)]
    return {
        "pairs": [
            ScoredPair(chosen=chosen, rejected=rejected)
            for chosen, rejected in zip(pairs[::2], pairs[1::2], strict=True)
        ],
        "general": scored(model, what.general, what.max_tokens),
        "answers": _greedy(model, tokenizer, what),
        "answered": list(what.prompts),
        "own": [OwnSample(kl=0.0, tokens=len(s.answer)) for s in samples]
        if base is None
        else kl_to_base(model, base, samples, what.max_tokens),
        "seconds": round(time.monotonic() - began, 1),
    }


def scored(model: LocalModel, answers: list[Answer], max_tokens: int) -> list[Scored]:
    """Summed log-probability of each answer's tokens, in the order of ``answers``."""
    found: dict[int, Scored] = {}
    for indices, batch in batches(answers, max_tokens):
        whole = model.distributions(batch)
        start = 0
        for index, answer in zip(indices, batch, strict=True):
            n = len(answer.answer)
            part = Distributions(whole.scores[start : start + n]).part(slice(0, n))
            targets = torch.tensor(answer.answer, device=part.scores.device)[:, None]
            found[index] = Scored(logprob=round(float(part.of(targets).double().sum()), 5), tokens=n)
            start += n
    return [found[index] for index in range(len(answers))]


def kl_to_base(model: LocalModel, base: LocalModel, samples: list[Answer], max_tokens: int) -> list[OwnSample]:
    """KL(model || base) over each sample's tokens: the whole distribution's at each, not the drawn token's
    alone."""
    found: dict[int, OwnSample] = {}
    for indices, batch in batches(samples, max_tokens):
        targets = torch.tensor([token for sample in batch for token in sample.answer])
        kl = compare(model.distributions(batch), base.distributions(batch), targets).kl
        parts = kl.double().split([len(sample.answer) for sample in batch])
        for index, part in zip(indices, parts, strict=True):
            found[index] = OwnSample(kl=round(float(part.sum()), 6), tokens=len(part))
    return [found[index] for index in range(len(samples))]


def _greedy(model: LocalModel, tokenizer: Any, what: Asked) -> list[Answered]:
    stop = tokenizer.eos_token_id
    return [
        Answered(
            text=tokenizer.decode(tokens, skip_special_tokens=True).strip(),
            tokens=len(tokens),
            ended=tokens[-1:] == [stop],
        )
        for tokens in model.greedy(list(what.prompts.values()), what.answer_tokens, stop)
    ]


def _passage(tokenizer: Any, text: str, max_length: int) -> Answer:
    """A passage after the token that begins a text, or, where a tokenizer has none, after its own first token."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: max_length - 1]
    begin = tokenizer.bos_token_id
    return Answer(ids[:1], ids[1:]) if begin is None else Answer([begin], ids)
