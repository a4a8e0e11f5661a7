"""The network of a forecaster, which predicts a distribution for every future time step."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from seqnets.data.windows import Window
from seqnets.dropout import dropout, fold_in, fold_in_rows
from seqnets.heads import Head
from seqnets.modules import Layer, Stack
from seqnets.recurrence import Execution
from seqnets.reduction import widen
from seqnets.typing import Array, Float, Key, Keys

__all__ = ["ForecastNetwork"]


class ForecastNetwork(nn.Module):
    """Recurrent encoder and decoder that forecast all time steps of the horizon at once.

    The encoder reads the past and passes its carry to the decoder, which reads the known features
    of each future time step. Outputs are not fed back, so errors do not accumulate over the
    horizon. The output layer is initially zero, which gives the seasonal naive forecast for windows
    of `seqnets.data.SeriesWindows`.

    Attributes:
      layers: recurrent layers of the encoder, and also of the decoder.
      head: output distribution.
      dropout: dropout rate between layers and before the output, in [0, 1).
      variational: whether to use one dropout mask for all time steps of a row.
      execution: how the recurrent layers are computed.

    References:
      Sutskever, Vinyals, Le, Sequence to Sequence Learning with Neural Networks, 2014,
      arXiv:1409.3215; Wen et al., A Multi-Horizon Quantile Recurrent Forecaster, 2017,
      arXiv:1711.11053 (there the decoder is dense).
    """

    layers: tuple[Layer, ...]
    head: Head
    dropout: float = 0.0
    variational: bool = False
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self, window: Window, dropout_keys: Keys | None = None, weight_key: Key | None = None
    ) -> Float[Array, "B H S"]:
        """Compute the raw outputs of the head for each future time step.

        Args:
          window: B windows; see `seqnets.data.Window`.
          dropout_keys: [B] random keys, one per row; None for no dropout.
          weight_key: random key of weight dropout; None for no weight dropout.

        Returns:
          [B, H, head.size] raw outputs, for `seqnets.heads.Head`.
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
            self.layers,
            dropout=self.dropout,
            variational=self.variational,
            execution=self.execution,
            name=name,
        )
