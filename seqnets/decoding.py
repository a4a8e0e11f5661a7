"""Decoding: from the logits of any step function to tokens, in one compiled loop.

`filter_logits` turns logits into the logits of the distribution drawn from; everything that
only changes that distribution belongs there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp

from seqnets.checks import check_dtype, check_range, check_rank, check_shape
from seqnets.typing import Array, Float, Int, Key

__all__ = ["Sampling", "StepFn", "filter_logits", "generate", "sample_token"]

CarryT = TypeVar("CarryT")


class StepFn(Protocol[CarryT]):
    """One step of a language model, its parameters already inside (a closure or partial)."""

    def __call__(
        self, carry: CarryT, token: Int[Array, " B"], /
    ) -> tuple[CarryT, Float[Array, "B V"]]:
        """Carry and token to the next carry (same structure, shapes, dtypes) and logits."""
        ...


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen; hashable, so it can be a static argument of `jax.jit`.

    Args:
      temperature: logits are divided by it. 1 leaves them; towards 0 the largest wins, and 0 is
        greedy decoding.
      top_k: draw among the k most probable tokens only; None among all.
      top_p: draw among the fewest most probable tokens whose probability, at this temperature
        and within the top k, sums up to at least p; None or 1 among all.

    Raises:
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
    """Logits of the distribution that is drawn from: temperature, then top k, then top p.

    Exactly min(k, V) tokens survive top k, and the fewest possible top p. Among equal logits
    the lower token comes first, in all three.

    Args:
      logits: [B, V]; -∞ for a token that must not come.
      sampling: what to do.

    Returns:
      [B, V] float32 or wider, 0 for the most probable token and -∞ for tokens that are out. A
      row without a distribution (NaN, +∞, or -∞ everywhere) is NaN throughout.

    Raises:
      ValueError: if logits is not [B, V].
      TypeError: if logits is not of floats.
    """
    check_rank("logits", logits, 2, "B V")
    check_dtype("logits", logits, "float")
    logits = jnp.asarray(logits, jnp.promote_types(logits.dtype, jnp.float32))
    # Relative to the largest first: a tiny temperature then gives -∞, never ∞ - ∞.
    logits = logits - jnp.max(logits, axis=-1, keepdims=True)
    broken = jnp.any(jnp.isnan(logits), axis=-1, keepdims=True)
    size = logits.shape[-1]
    greedy = sampling.temperature < float(jnp.finfo(logits.dtype).tiny)
    if not greedy:
        # The reciprocal of a huge temperature may be 0, and 0 · ∞ is NaN.
        out = jnp.isneginf(logits)
        logits = jnp.where(out, -jnp.inf, logits / sampling.temperature)
    keep = 1 if greedy else min(sampling.top_k or size, size)
    if keep < size or (sampling.top_p or 1) < 1:
        logits = _keep_best(logits, keep, sampling.top_p or 1.0)
    return jnp.where(broken, jnp.nan, logits)


def sample_token(logits: Float[Array, "B V"], keys: Key, sampling: Sampling) -> Int[Array, " B"]:
    """Choose one token a row.

    Args:
      logits: [B, V].
      keys: [B] random keys, one a row, so that a row's token does not depend on its neighbours.
      sampling: how; at temperature 0 the keys do not matter, the lowest of equal logits wins.

    Returns:
      [B] int32 tokens; -1, which is no token, for a row whose logits are no distribution (NaN,
      +∞, or -∞ everywhere): a broken model must not write text.

    Raises:
      ValueError: if logits is not [B, V] or keys is not [B].
      TypeError: if logits is not of floats.
    """
    filtered = filter_logits(logits, sampling)
    check_shape("keys", keys, filtered.shape[:1], "one key a row")
    drawn = jax.vmap(jax.random.categorical)(keys, filtered)
    return jnp.where(jnp.isnan(filtered[:, 0]), -1, drawn).astype(jnp.int32)


def generate(
    step_fn: StepFn[CarryT],
    carry: CarryT,
    token: Int[Array, " B"],
    key: Key,
    tokens: int,
    sampling: Sampling,
) -> tuple[CarryT, Int[Array, "B U"]]:
    """Write on from a carry: one `jax.lax.scan`, every token computed once.

        carry, logits = step_fn(carry, token)
        token = sample_token(logits, ...)           <- and so on, ``tokens`` times

    Wrap it in `jax.jit`. Row b draws its token number t with
    ``fold_in(fold_in(key, b), t)``: the same key gives the same text, and a row's text does not
    depend on how many rows are beside it.

    Args:
      step_fn: the model.
      carry: its state after the prompt without its last token.
      token: [B] last token of each row's prompt; `step_fn` sees it first.
      key: root of the randomness; to write on further, call again with the returned carry, the
        last tokens and another key.
      tokens: number of tokens to write, U, 0 or more.
      sampling: how tokens are chosen.

    Returns:
      (carry, tokens): the carry after all tokens but the last, which it has not seen; [B, U]
      int32, -1 where the logits were no distribution.

    Raises:
      ValueError: if token is not [B], tokens is negative or the logits are not [B, V].
      TypeError: if token is not of integers or the logits are not of floats.
    """
    token = jnp.asarray(token)
    check_rank("token", token, 1, "B")
    check_dtype("token", token, "int")
    check_range("tokens", tokens, 0)
    fold_in = jax.vmap(jax.random.fold_in, (None, 0)), jax.vmap(jax.random.fold_in, (0, None))
    rows = fold_in[0](key, jnp.arange(token.shape[0]))

    def step(state: tuple[CarryT, Array], number: Array) -> tuple[tuple[CarryT, Array], Array]:
        carry, token = state
        carry, logits = step_fn(carry, token)
        check_shape("logits", logits, (*token.shape, *logits.shape[1:]), "rows of token")
        token = sample_token(logits, fold_in[1](rows, number), sampling)
        return (carry, token), token

    state = (carry, token.astype(jnp.int32))
    (carry, _), written = jax.lax.scan(step, state, jnp.arange(tokens))
    return carry, written.T


def _keep_best(logits: Array, k: int, p: float) -> Array:
    """-∞ but for the k largest, and of these the first whose probabilities sum up to p."""
    best, tokens = jax.lax.top_k(logits, k)  # sorted, the lower token first among equals
    share = jnp.cumsum(jax.nn.softmax(best, axis=-1), axis=-1)
    before = jnp.pad(share[:, :-1], ((0, 0), (1, 0)))
    best = jnp.where((before < p) | (p == 1), best, -jnp.inf)
    rows = jnp.arange(logits.shape[0])[:, None]
    return jnp.full_like(logits, -jnp.inf).at[rows, tokens].set(best)
