"""Metrics of language models, from negative log likelihoods in nats."""

from __future__ import annotations

import math

from seqnets.checks import check_number, check_range

__all__ = ["bits_per_character", "perplexity"]


def bits_per_character(nats_total: float, characters: int) -> float:
    """``nats_total / (characters · log 2)``, which is comparable between tokenizers.

    Args:
      nats_total: negative log likelihood of the whole text, summed over its tokens, in nats.
      characters: number of characters (not tokens) of the text, positive.

    Returns:
      Bits per character.

    Raises:
      TypeError: if an argument is not a number.
      ValueError: if characters is not positive.

    Example:
      >>> bits_per_character(nats_total=8 * math.log(2), characters=4)
      2.0
    """
    check_number("nats_total", nats_total)
    check_range("characters", characters, 0, closed="neither")
    return float(nats_total) / (characters * math.log(2))


def perplexity(nats_per_token: float) -> float:
    """``exp(nats_per_token)``, the perplexity per token.

    Args:
      nats_per_token: mean negative log likelihood of the tokens, in nats.

    Returns:
      The perplexity; ∞ if it exceeds the largest float, NaN for NaN.

    Raises:
      TypeError: if nats_per_token is not a number.
    """
    check_number("nats_per_token", nats_per_token)
    try:
        return math.exp(nats_per_token)
    except OverflowError:
        return math.inf
