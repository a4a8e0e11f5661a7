"""Tokens from a language model: a rollout that samples."""

from __future__ import annotations

import jax.numpy as jnp

from seqnets.checks import check_dtype, check_range, check_rank, check_shape
from seqnets.decoding.rollout import Choose, StepFn, rollout, start_rollout
from seqnets.decoding.sampling import Sampling, sample_token
from seqnets.typing import Array, Float, Int, Key, Keys, PyTree

__all__ = ["generate", "sampler"]


def sampler(sampling: Sampling) -> Choose:
    """Choose a token of each row's logits [B, V]."""

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
    """Continue from a carry, every token computed once; wrap it in `jax.jit`.

    It is `rollout` with a sampled token fed back. For many lengths with one program, see `stream`.

    Args:
      step_fn: the model: carry and token [B] to the next carry and logits [B, V].
      carry: its state after the prompt without its last token.
      token: [B] last token of each row's prompt; ``step_fn`` sees it first.
      key: root of the randomness; row b draws its token number t with
        ``fold_in(fold_in(key, b), t)``. To continue further, call again with the returned carry,
        the last tokens, and another key.
      tokens: number of tokens to write, U, 0 or more.
      sampling: how tokens are chosen.

    Returns:
      (carry, tokens): the carry after all tokens but the last, which it has not seen; [B, U]
      int32, -1 where the logits were no distribution.

    Raises:
      ValueError: if token is not [B], tokens is negative, or the logits are not [B, V].
      TypeError: if token is not of integers or the logits are not of floats.
    """
    token = jnp.asarray(token)
    check_rank("token", token, 1, "B")
    check_dtype("token", token, "int")
    check_range("tokens", tokens, 0)
    state = start_rollout(carry, token.astype(jnp.int32), key)
    state, written, _ = rollout(step_fn, state, steps=tokens, choose=sampler(sampling))
    return state.carry, written
