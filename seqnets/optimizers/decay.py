"""Weight decay apart from the gradient, on weights and not on biases and norms."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from seqnets.checks import check_range
from seqnets.typing import PyTree

__all__ = ["decay_mask", "decoupled_decay"]


def decay_mask(params: PyTree) -> PyTree:
    """True at leaves of two axes or more (weights), False at vectors and scalars.

    Biases and gains of norms are vectors throughout this library. Embeddings count as weights,
    and so would a bias that is stacked with others along an axis of its own.

    Example:
      >>> import jax.numpy as jnp
      >>> decay_mask({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)})
      {'bias': False, 'kernel': True}
    """
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def decoupled_decay(
    weight_decay: float, mask: Callable[[PyTree], PyTree] | None = decay_mask
) -> optax.GradientTransformation:
    """Subtract ``weight_decay * params`` from finished updates, those to be *added* to params.

    Put it after an algorithm and before the learning rate, which then scales both. Its
    ``update`` needs ``params``.

    Raises:
      ValueError: if weight_decay is negative or not finite; when updating, if no params are
        given.
    """
    check_range("weight_decay", weight_decay, 0, math.inf, closed="left")
    return optax.add_decayed_weights(-weight_decay, mask)
