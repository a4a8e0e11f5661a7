"""Losses for a discriminator and its generator, from logits, unreduced.

``*_discriminator(real, fake)`` returns separate losses for the logits of real and of generated
examples, whose numbers may differ. ``*_generator(fake)`` returns the losses of the generator. All
are computed in float32 or wider.
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
    """``-log σ(real)`` and ``-log(1 - σ(fake))``, the losses of the original GAN.

    Args:
      real: logits of the discriminator for real examples, any shape.
      fake: logits of the discriminator for generated examples, any shape.

    Returns:
      Losses with the shapes of real and of fake.

    References:
      Goodfellow et al., Generative Adversarial Networks, 2014, arXiv:1406.2661.
    """
    return softplus(-widen(real)), softplus(widen(fake))


def non_saturating_generator(fake: Logits) -> Logits:
    """``-log σ(fake)``, whose gradient does not vanish when the discriminator is confident.

    Args:
      fake: logits of the discriminator for generated examples, any shape.

    Returns:
      Losses with the shape of fake.

    References:
      Goodfellow et al., Generative Adversarial Networks, 2014, arXiv:1406.2661, section 3.
    """
    return softplus(-widen(fake))


def least_squares_discriminator(real: Logits, fake: Logits) -> tuple[Logits, Logits]:
    """``(real - 1)² / 2`` and ``fake² / 2``, the least squares losses.

    Args:
      real: logits of the discriminator for real examples, any shape.
      fake: logits of the discriminator for generated examples, any shape.

    Returns:
      Losses with the shapes of real and of fake.

    References:
      Mao et al., Least Squares Generative Adversarial Networks, 2016, arXiv:1611.04076, eq. 9.
    """
    return 0.5 * jnp.square(widen(real) - 1), 0.5 * jnp.square(widen(fake))


def least_squares_generator(fake: Logits) -> Logits:
    """``(fake - 1)² / 2``, the least squares loss.

    Args:
      fake: logits of the discriminator for generated examples, any shape.

    Returns:
      Losses with the shape of fake.

    References:
      Mao et al., Least Squares Generative Adversarial Networks, 2016, arXiv:1611.04076, eq. 9.
    """
    return 0.5 * jnp.square(widen(fake) - 1)


def hinge_discriminator(real: Logits, fake: Logits) -> tuple[Logits, Logits]:
    """``max(1 - real, 0)`` and ``max(1 + fake, 0)``, the hinge losses.

    Args:
      real: logits of the discriminator for real examples, any shape.
      fake: logits of the discriminator for generated examples, any shape.

    Returns:
      Losses with the shapes of real and of fake.

    References:
      Lim, Ye, Geometric GAN, 2017, arXiv:1705.02894.
    """
    return relu(1 - widen(real)), relu(1 + widen(fake))


def hinge_generator(fake: Logits) -> Logits:
    """``-fake``, which has a constant gradient where the hinge of the discriminator is flat.

    Args:
      fake: logits of the discriminator for generated examples, any shape.

    Returns:
      Losses with the shape of fake.

    References:
      Lim, Ye, Geometric GAN, 2017, arXiv:1705.02894.
    """
    return -widen(fake)


def wasserstein_discriminator(real: Logits, fake: Logits) -> tuple[Logits, Logits]:
    """``-real`` and ``fake``, for a critic kept smooth, e.g. by `gradient_penalty`.

    Args:
      real: logits of the discriminator for real examples, any shape.
      fake: logits of the discriminator for generated examples, any shape.

    Returns:
      Losses with the shapes of real and of fake.

    References:
      Arjovsky, Chintala, Bottou, Wasserstein GAN, 2017, arXiv:1701.07875.
    """
    return -widen(real), widen(fake)


def wasserstein_generator(fake: Logits) -> Logits:
    """``-fake``, the negative score of generated examples.

    Args:
      fake: logits of the discriminator for generated examples, any shape.

    Returns:
      Losses with the shape of fake.

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
    """``(‖∂ critic(x) / ∂ x‖ - 1)²`` at a random point x between real and fake, for each row.

    The norm is over all axes of a row. Multiply the result by a weight λ (10 in the paper).

    Args:
      critic: maps examples [B, ...] to scores [B]; the score of a row must depend on that row only.
      real: [B, ...] floats, real examples.
      fake: generated examples, same shape.
      keys: [B] random keys, one per row.

    Returns:
      [B] float32 or wider.

    Raises:
      TypeError: if real is not of floats or keys is not of typed keys.
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
    # √ has an infinite slope at 0, so a constant critic would make every parameter NaN.
    positive = squared > 0
    norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)
    return jnp.square(norm - 1)
