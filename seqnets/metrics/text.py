"""Metrics of language models, from sums of negative log likelihoods in nats."""

from __future__ import annotations

import math

from seqnets.checks import check_number, check_range

__all__ = ["bits_per_character", "perplexity"]


def bits_per_character(nats_total: float, characters: int) -> float:
    """``nats_total / (characters · log 2)``, comparable between tokenizers.

    Args:
      nats_total: negative log likelihood of the whole text, summed over its tokens, in nats.
      characters: number of characters (not tokens) of that text.

    Raises:
      ValueError: if characters is not positive.

    Example:
      >>> bits_per_character(nats_total=8 * math.log(2), characters=4)
      2.0
    """
    check_number("nats_total", nats_total)
    check_range("characters", characters, 0, closed="neither")
    return float(nats_total) / (characters * math.log(2))


def perplexity(nats_per_token: float) -> float:
    """``exp(nats_per_token)``; ∞ where that exceeds the largest float, NaN for NaN."""
    check_number("nats_per_token", nats_per_token)
    try:
        return math.exp(nats_per_token)
    except OverflowError:
        return math.inf
