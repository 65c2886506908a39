"""Whether a model is still the one it was: perplexity on general text, KL to the base on its own samples."""

import numpy as np

from trimtab.artifacts.profiles import OwnSample, Scored


def passage_nll(passages: list[Scored]) -> np.ndarray:
    """Each passage's part in the log of the perplexity: their mean is it."""
    tokens = np.array([passage.tokens for passage in passages], dtype=float)
    return -np.array([passage.logprob for passage in passages]) / tokens.mean()


def sample_kl(samples: list[OwnSample]) -> np.ndarray:
    """KL(model || base) of each sample, nats a token."""
    return np.array([sample.kl / sample.tokens for sample in samples])
