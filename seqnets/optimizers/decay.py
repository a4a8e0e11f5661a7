"""Decoupled weight decay, by default of weights but not of biases and norms."""

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
"""Which parameters decay: a function from parameters to a tree of the same structure, True where
they decay; ``"weights"``, which means `decay_mask`; or None, which means all.

The default is a name and not a function, since `optax.inject_hyperparams` would take a function for
a schedule.
"""


def decay_mask(params: PyTree) -> PyTree:
    """True for leaves with two or more axes (weights), False for vectors and scalars.

    In this library, biases and the scales of norms are vectors. Embeddings count as weights, and so
    would several biases stacked along another axis.

    Args:
      params: a pytree of arrays.

    Returns:
      A pytree of bool with the same structure.

    Example:
      >>> import jax.numpy as jnp
      >>> decay_mask({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)})
      {'bias': False, 'kernel': True}
    """
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def decoupled_decay(
    weight_decay: float, mask: DecayMask = "weights"
) -> optax.GradientTransformation:
    """Subtract ``weight_decay * params`` from updates that will be *added* to the parameters.

    Chain it after an algorithm and before the learning rate, which then scales both. Its ``update``
    requires ``params``.

    Args:
      weight_decay: coefficient of the decay, at least 0.
      mask: which parameters decay; see `DecayMask`.

    Returns:
      An Optax gradient transformation.

    Raises:
      ValueError: if weight_decay is negative or not finite, or mask is a string other than
        ``"weights"``; when updating, if params is not given.

    References:
      Loshchilov, Hutter, Decoupled Weight Decay Regularization, ICLR 2019, arXiv:1711.05101.
    """
    check_range("weight_decay", weight_decay, 0, math.inf, closed="left")
    if isinstance(mask, str) and mask != "weights":
        raise ValueError(f"mask: expected 'weights', a function, or None, got {mask!r}")
    mask = decay_mask if mask == "weights" else mask
    return optax.add_decayed_weights(-weight_decay, mask)
