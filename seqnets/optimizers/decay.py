"""Weight decay apart from the gradient, on weights and not on biases and norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

from seqnets.checks import check_range
from seqnets.typing import PyTree

__all__ = ["DecayMask", "decay_mask", "decoupled_decay"]

DecayMask: TypeAlias = Callable[[PyTree], PyTree] | Literal["weights"] | None
"""Which parameters decay: parameters to a tree of the same structure, True where to decay;
``"weights"`` is `decay_mask`, None all.

A name and no function is the default, since `optax.inject_hyperparams` takes functions for
schedules.
"""


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
    weight_decay: float, mask: DecayMask = "weights"
) -> optax.GradientTransformation:
    """Subtract ``weight_decay * params`` from finished updates, those to be *added* to params.

    Put it after an algorithm and before the learning rate, which then scales both. Its
    ``update`` needs ``params``.

    Raises:
      ValueError: if weight_decay is negative or not finite, or mask is another name than
        ``"weights"``; when updating, if no params are given.
    """
    check_range("weight_decay", weight_decay, 0, math.inf, closed="left")
    if isinstance(mask, str) and mask != "weights":
        raise ValueError(f"mask: expected 'weights', a function, or None, got {mask!r}")
    mask = decay_mask if mask == "weights" else mask
    return optax.add_decayed_weights(-weight_decay, mask)
