"""Pairs of losses for a generator and its discriminator, from logits, unreduced.

Each pair is two functions: ``*_discriminator(real, fake)`` returns the losses of the logits on
real and on generated examples apart (their numbers may differ), ``*_generator(fake)`` that of
the generator. All are computed in float32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from seqnets.activations import relu, softplus
from seqnets.checks import check_dtype, check_same_shape
from seqnets.dropout import check_keys
from seqnets.reduction import widen
from seqnets.typing import Array, Float, Keys

__all__ = [
    "gradient_penalty",
    "hinge_discriminator",
    "hinge_generator",
    "least_squares_discriminator",
    "least_squares_generator",
    "non_saturating_discriminator",
    "non_saturating_generator",
    "wasserstein_discriminator",
    "wasserstein_generator",
]

Logits = Float[Array, "*S"]


def non_saturating_discriminator(real: Logits, fake: Logits) -> tuple[Logits, Logits]:
    """``-log σ(real)`` and ``-log(1 - σ(fake))``.

    References:
      Goodfellow et al., Generative Adversarial Networks, 2014, arXiv:1406.2661.
    """
    return softplus(-widen(real)), softplus(widen(fake))


def non_saturating_generator(fake: Logits) -> Logits:
    """``-log σ(fake)``, the form whose gradient stays when the discriminator wins.

    References:
      Goodfellow et al., Generative Adversarial Networks, 2014, arXiv:1406.2661, section 3.
    """
    return softplus(-widen(fake))


def least_squares_discriminator(real: Logits, fake: Logits) -> tuple[Logits, Logits]:
    """``(real - 1)² / 2`` and ``fake² / 2``.

    References:
      Mao et al., Least Squares Generative Adversarial Networks, 2016, arXiv:1611.04076, eq. 9.
    """
    return 0.5 * jnp.square(widen(real) - 1), 0.5 * jnp.square(widen(fake))


def least_squares_generator(fake: Logits) -> Logits:
    """``(fake - 1)² / 2``.

    References:
      Mao et al., Least Squares Generative Adversarial Networks, 2016, arXiv:1611.04076, eq. 9.
    """
    return 0.5 * jnp.square(widen(fake) - 1)


def hinge_discriminator(real: Logits, fake: Logits) -> tuple[Logits, Logits]:
    """``max(1 - real, 0)`` and ``max(1 + fake, 0)``.

    References:
      Lim, Ye, Geometric GAN, 2017, arXiv:1705.02894.
    """
    return relu(1 - widen(real)), relu(1 + widen(fake))


def hinge_generator(fake: Logits) -> Logits:
    """``-fake``, which stays linear where the discriminator's hinge is flat.

    References:
      Lim, Ye, Geometric GAN, 2017, arXiv:1705.02894.
    """
    return -widen(fake)


def wasserstein_discriminator(real: Logits, fake: Logits) -> tuple[Logits, Logits]:
    """``-real`` and ``fake``, for a critic kept smooth, for instance by `gradient_penalty`.

    References:
      Arjovsky, Chintala, Bottou, Wasserstein GAN, 2017, arXiv:1701.07875.
    """
    return -widen(real), widen(fake)


def wasserstein_generator(fake: Logits) -> Logits:
    """``-fake``, the critic's score of generated examples with its sign turned.

    References:
      Arjovsky, Chintala, Bottou, Wasserstein GAN, 2017, arXiv:1701.07875.
    """
    return -widen(fake)


def gradient_penalty(
    critic: Callable[[Float[Array, " B *D"]], Float[Array, " B"]],
    real: Float[Array, " B *D"],
    fake: Float[Array, " B *D"],
    keys: Keys,
) -> Float[Array, " B"]:
    """``(|∂ critic(x) / ∂ x| - 1)²`` at a random point x between real and fake, for each row.

    The norm is over all axes of a row. To be multiplied by the weight λ (10 in the paper).

    Args:
      critic: scores [B] of examples [B, ...]; the score of a row must depend on that row only.
      real: real examples, [B, ...] float.
      fake: generated examples, same shape.
      keys: [B] random keys, one a row.

    Raises:
      TypeError: if real is not of floats.
      ValueError: if the shapes differ, keys is not [B], or the critic does not return [B].

    References:
      Gulrajani et al., Improved Training of Wasserstein GANs, 2017, arXiv:1704.00028.
    """
    check_same_shape(real=real, fake=fake)
    check_dtype("real", real, "float")
    rows = real.shape[0]
    check_keys("keys", keys, rows)
    t = jax.vmap(lambda key: jax.random.uniform(key, (), real.dtype))(keys)
    t = t.reshape((rows,) + (1,) * (real.ndim - 1))

    def total(x: Array) -> Array:
        scores = critic(x)
        if scores.shape != (rows,):
            raise ValueError(f"critic: expected scores of shape {(rows,)}, got {scores.shape}")
        return jnp.sum(scores)

    gradient = widen(jax.grad(total)(t * real + (1 - t) * fake)).reshape(rows, -1)
    squared = jnp.sum(jnp.square(gradient), -1)
    # √ has an infinite slope at 0, where a dead critic would put NaN into every parameter.
    positive = squared > 0
    norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)
    return jnp.square(norm - 1)
