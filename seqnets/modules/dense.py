"""Dense modules that Flax lacks: a multi-layer perceptron, dropout per row, and PReLU."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from seqnets import activations
from seqnets.checks import check_range
from seqnets.dropout import dropout, fold_in_rows
from seqnets.typing import Activation, Array, Float, Key

__all__ = ["MLP", "Dropout", "PReLU"]


class MLP(nn.Module):
    """Multi-layer perceptron: dense layers with activation and dropout after each but the last.

    Attributes:
      features: sizes of the layers, in order.
      activation: element-wise function between layers.
      dropout: dropout rate after each activation, in [0, 1).
    """

    features: Sequence[int]
    activation: Activation = activations.relu
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, xs: Float[Array, "B *T D"], dropout_keys: Key | None = None
    ) -> Float[Array, "B *T H"]:
        """Apply the layers to the last axis.

        Args:
          xs: [B, ..., D].
          dropout_keys: [B] random keys, one per row; None for no dropout (evaluation).

        Returns:
          [B, ..., features[-1]].

        Raises:
          ValueError: if there are no layers, a size is below 1, dropout is not in [0, 1), or
            dropout_keys is not [B].
        """
        if not self.features:
            raise ValueError("features: expected at least one layer, got none")
        for size in self.features:
            check_range("features", size, 1)
        *inner, last = self.features
        for number, size in enumerate(inner):
            xs = self.activation(nn.Dense(size, name=f"layer_{number}")(xs))
            xs = dropout(xs, fold_in_rows(dropout_keys, number), self.dropout)
        return nn.Dense(last, name=f"layer_{len(inner)}")(xs)


class Dropout(nn.Module):
    """The function `seqnets.dropout.dropout` as a module.

    Attributes:
      rate: probability of zero, in [0, 1).
      same_steps: for xs [B, T, ...], use the same mask at all time steps (variational dropout).
    """

    rate: float
    same_steps: bool = False

    def __call__(self, xs: Float[Array, " B *D"], keys: Key | None = None) -> Float[Array, " B *D"]:
        """Drop elements of ``xs [B, ...]``.

        Args:
          xs: [B, ...] floats.
          keys: [B] random keys, one per row; None for no dropout (evaluation).

        Returns:
          Array with the shape and dtype of xs.

        Raises:
          ValueError, TypeError: as in `seqnets.dropout.dropout`.
        """
        return dropout(xs, keys, self.rate, same_steps=self.same_steps)


class PReLU(nn.Module):
    """Parametric ReLU: `seqnets.activations.prelu` with a learned slope, or one per feature.

    Attributes:
      per_feature: if True, learn one slope per element of the last axis instead of a single one.
      initial_slope: initial value of the slopes; 0.25 in the paper.

    References:
      He, Zhang, Ren, Sun, Delving Deep into Rectifiers, 2015, arXiv:1502.01852.
    """

    per_feature: bool = False
    initial_slope: float = 0.25

    @nn.compact
    def __call__(self, xs: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
        """Apply the activation with the parameter ``slope``.

        Args:
          xs: floats, [..., D].

        Returns:
          Array with the shape and dtype of xs.

        Raises:
          TypeError: if xs is not of floats.
        """
        shape = (jnp.shape(xs)[-1],) if self.per_feature else ()
        slope = self.param("slope", nn.initializers.constant(self.initial_slope), shape)
        return activations.prelu(xs, slope)
