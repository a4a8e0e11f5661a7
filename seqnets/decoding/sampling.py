"""Sampling of tokens from logits.

`filter_logits` computes the logits of the distribution to sample from. Any option that only
changes this distribution belongs there.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from seqnets.checks import check_dtype, check_range, check_rank
from seqnets.dropout import check_keys
from seqnets.typing import Array, Float, Int, Keys

__all__ = ["Sampling", "filter_logits", "sample_token"]


@dataclass(frozen=True)
class Sampling:
    """How to choose a token; hashable, so that it can be a static argument of `jax.jit`.

    Args:
      temperature: divisor of the logits. 1 keeps the distribution; 0 is greedy decoding.
      top_k: sample from the k most probable tokens only; None samples from all.
      top_p: sample from the smallest set of most probable tokens whose probabilities, at this
        temperature and within the top k, sum to at least p; None or 1 samples from all.

    Raises:
      TypeError: if a value is not a number.
      ValueError: if temperature is negative or not finite in float32, top_k < 1, or top_p is
        not in (0, 1].

    References:
      Fan, Lewis, Dauphin, Hierarchical Neural Story Generation, 2018, arXiv:1805.04833 (top k);
      Holtzman et al., The Curious Case of Neural Text Degeneration, 2019, arXiv:1904.09751
      (top p, the nucleus).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, 0, float(jnp.finfo(jnp.float32).max))
        if self.top_k is not None:
            check_range("top_k", self.top_k, 1)
        if self.top_p is not None:
            check_range("top_p", self.top_p, 0, 1, closed="right")


def filter_logits(logits: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """The logits of the distribution to sample from: temperature, then top k, then top p.

    Top k keeps exactly min(k, V) tokens; top p keeps as few as possible. Among equal logits, the
    lower token comes first, also at temperature 0.

    Args:
      logits: [B, V]; -∞ excludes a token.
      sampling: the options.

    Returns:
      [B, V] float32 or wider, 0 for the most probable token and -∞ for excluded tokens. A row whose
      logits do not define a distribution (one is NaN or +∞, or all are -∞) is NaN.

    Raises:
      ValueError: if logits is not [B, V].
      TypeError: if logits is not of floats.
    """
    check_rank("logits", logits, 2, "B V")
    check_dtype("logits", logits, "float")
    logits = jnp.asarray(logits, jnp.promote_types(logits.dtype, jnp.float32))
    # Subtract the largest first, so that a tiny temperature gives -∞ and never ∞ - ∞.
    logits = logits - jnp.max(logits, axis=-1, keepdims=True)
    broken = jnp.any(jnp.isnan(logits), axis=-1, keepdims=True)
    size = logits.shape[-1]
    greedy = sampling.temperature < float(jnp.finfo(logits.dtype).tiny)
    if not greedy:
        # XLA may multiply by the reciprocal; for a huge temperature it is 0, and 0 · ∞ is NaN.
        out = jnp.isneginf(logits)
        logits = jnp.where(out, -jnp.inf, logits / sampling.temperature)
    keep = 1 if greedy else min(sampling.top_k or size, size)
    if keep < size or (sampling.top_p or 1) < 1:
        logits = _keep_best(logits, keep, sampling.top_p or 1.0)
    return jnp.where(broken, jnp.nan, logits)


def sample_token(logits: Float[Array, "B V"], keys: Keys, sampling: Sampling) -> Int[Array, " B"]:
    """Choose one token per row.

    Args:
      logits: [B, V].
      keys: [B] random keys, one per row, so that a token does not depend on the other rows.
      sampling: the options; at temperature 0 the keys have no effect, and the lowest token among
        the largest logits is chosen.

    Returns:
      [B] int32 tokens; -1, which is not a token, for rows whose logits do not define a distribution
      (one is NaN or +∞, or all are -∞), so that a broken model does not generate text.

    Raises:
      ValueError: if logits is not [B, V] or keys is not [B].
      TypeError: if logits is not of floats.
    """
    filtered = filter_logits(logits, sampling)
    check_keys("keys", keys, filtered.shape[0])
    drawn = jax.vmap(jax.random.categorical)(keys, filtered)
    return jnp.where(jnp.isnan(filtered[:, 0]), -1, drawn).astype(jnp.int32)


def _keep_best(logits: Array, k: int, p: float) -> Array:
    """Replace by -∞ all but the k largest, or the first of them whose probabilities reach p."""
    best, tokens = jax.lax.top_k(logits, k)  # sorted, with the lower token first among equals
    share = jnp.cumsum(jax.nn.softmax(best, axis=-1), axis=-1)
    before = jnp.pad(share[:, :-1], ((0, 0), (1, 0)))
    best = jnp.where((before < p) | (p == 1), best, -jnp.inf)
    rows = jnp.arange(logits.shape[0])[:, None]
    return jnp.full_like(logits, -jnp.inf).at[rows, tokens].set(best)
