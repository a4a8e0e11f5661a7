"""Forecasting: what comes after the end of each series, as a distribution for every step."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from seqnets.data.windows import Window
from seqnets.dropout import dropout, fold_in, fold_in_rows
from seqnets.heads import Head
from seqnets.modules import Stack, apply
from seqnets.recurrence import Regularization
from seqnets.reduction import Weighted, weighted, widen
from seqnets.training.state import StepKeys
from seqnets.training.step import LossFn
from seqnets.typing import Array, Cell, Float, Key, PyTree

__all__ = ["Forecaster", "forecasting_loss"]


class Forecaster(nn.Module):
    """Recurrent encoder and decoder that say all steps to come at once.

    The encoder reads the past and hands its carry to the decoder, which reads what is known of
    each step to come. No output is fed back, so errors do not add up over the horizon. At the
    start of training the output layer is zero: with windows of `seqnets.data.windows` that is
    the seasonal naive forecast.

    Attributes:
      cells: cells of the encoder, and again of the decoder, one a layer.
      head: output distribution.
      dropout: rate between layers and before the output.
      variational: draw that dropout once for all steps of a row.
      regularization: disturbs the recurrence in training.
      dtype: of the layers' products, bfloat16 say; state, sums and parameters stay float32.

    References:
      Sutskever, Vinyals, Le, Sequence to Sequence Learning with Neural Networks, 2014,
      arXiv:1409.3215; Wen et al., A Multi-Horizon Quantile Recurrent Forecaster, 2017,
      arXiv:1711.11053 (there the decoder is dense).
    """

    cells: tuple[Cell, ...]
    head: Head
    dropout: float = 0.0
    variational: bool = False
    regularization: Regularization = Regularization()
    dtype: Any = None

    @nn.compact
    def __call__(
        self, window: Window, dropout_keys: Key | None = None, weight_key: Key | None = None
    ) -> Float[Array, "B H S"]:
        """Raw parameters of the head for each step, [B, H, head.size].

        Args:
          window: see `seqnets.data.windows.Window`.
          dropout_keys: [B] random keys, one a row; None for no dropout.
          weight_key: one random key of the weight drop; None for none.
        """
        keys = [fold_in_rows(dropout_keys, place) for place in range(3)]
        drops = [fold_in(weight_key, place) for place in range(2)]
        carry, _ = self._layers("encoder")(
            window.past, mask=window.past_mask, dropout_keys=keys[0], weight_key=drops[0]
        )
        _, ys = self._layers("decoder")(
            window.future, carry, dropout_keys=keys[1], weight_key=drops[1]
        )
        ys = dropout(widen(ys), keys[2], self.dropout, same_steps=self.variational)
        ys = jnp.concatenate([ys, window.future], axis=-1)
        return nn.Dense(self.head.size, kernel_init=nn.initializers.zeros, name="output")(ys)

    def _layers(self, name: str) -> Stack:
        return Stack(
            self.cells,
            dropout=self.dropout,
            variational=self.variational,
            regularization=self.regularization,
            dtype=self.dtype,
            name=name,
        )


def forecasting_loss(model: Forecaster) -> LossFn:
    """The head's loss of every observed step to come, in units of the window's scale."""

    def loss_fn(
        params: PyTree, carry: PyTree, batch: Window, keys: StepKeys | None
    ) -> tuple[Weighted, tuple[PyTree, dict[str, Weighted]]]:
        raw = apply(model, params, batch, *(keys or (None, None)))
        loss = weighted(model.head.loss(raw, batch.target), batch.weight)
        return loss, (carry, {})

    return loss_fn
