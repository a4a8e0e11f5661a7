"""Generation of tokens from a language model, by a rollout that samples."""

from __future__ import annotations

import jax.numpy as jnp

from seqnets.checks import check_dtype, check_range, check_rank, check_shape
from seqnets.decoding.rollout import Choose, StepFn, rollout, start_rollout
from seqnets.decoding.sampling import Sampling, sample_token
from seqnets.typing import Array, Float, Int, Key, Keys, PyTree

__all__ = ["generate", "sampler"]


def sampler(sampling: Sampling) -> Choose:
    """A function for `rollout` that samples a token from the logits [B, V] of each row.

    Args:
      sampling: how to choose tokens.

    Returns:
      ``choose(logits, keys, t)``, which returns [B] int32 tokens as `sample_token` does and raises
      ValueError if the logits are not [B, V], TypeError if they are not of floats.
    """

    def choose(logits: Float[Array, "B V"], keys: Keys, t: Int[Array, ""]) -> Int[Array, " B"]:
        check_shape("logits", logits, (*keys.shape, *logits.shape[1:]), "rows of token")
        return sample_token(logits, keys, sampling)

    return choose


def generate(
    step_fn: StepFn,
    carry: PyTree,
    token: Int[Array, " B"],
    key: Key,
    tokens: int,
    sampling: Sampling,
) -> tuple[PyTree, Int[Array, "B U"]]:
    """Generate tokens from a carry, with one model step per token; wrap it in `jax.jit`.

    It is `rollout` with sampled tokens fed back. To generate any number of tokens with one compiled
    program, use `stream`. To continue, call `generate` again with the returned carry, the last
    tokens, and another key.

    Args:
      step_fn: the model, which maps carry and token [B] to the next carry and logits [B, V].
      carry: state of the model after the prompt without its last token.
      token: [B] last token of the prompt of each row; the first input of ``step_fn``.
      key: random key; row b draws its t-th token with ``fold_in(fold_in(key, b), t)``.
      tokens: number of tokens U to generate, at least 0.
      sampling: how to choose tokens.

    Returns:
      ``(carry, tokens)``: the carry before the model has seen the last token, and [B, U] int32
      tokens, -1 where the logits did not define a distribution.

    Raises:
      ValueError: if token is not [B], tokens is negative, or the logits are not [B, V].
      TypeError: if token is not of integers, key is not a random key, or the logits are not of
        floats.
    """
    token = jnp.asarray(token)
    check_rank("token", token, 1, "B")
    check_dtype("token", token, "int")
    check_range("tokens", tokens, 0)
    state = start_rollout(carry, token.astype(jnp.int32), key)
    state, written, _ = rollout(step_fn, state, steps=tokens, choose=sampler(sampling))
    return state.carry, written
