"""Long short-term memory with a projected output."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax.linen import initializers

from seqnets.cells.gated import GatedParams
from seqnets.cells.lstm import LSTMFamily
from seqnets.checks import check_range
from seqnets.typing import Key

__all__ = ["ProjectedLSTM"]


@dataclasses.dataclass(frozen=True)
class ProjectedLSTM(LSTMFamily):
    """Long short-term memory with a linear projection of its output.

        i, f, g, o = split(x_t W_x + h_{t-1} W_h + b)
        c_t = σ(f) ∘ c_{t-1} + σ(i) ∘ tanh(g)
        h_t = (σ(o) ∘ tanh(c_t)) W_p
        y_t = h_t

    The recurrent weights ``w_h`` are [P, 4H], so a large state needs few recurrent weights. The
    projection ``W_p`` [H, P] is ``params.w_p`` and has no bias; there is no second, non-recurrent
    projection. This is ``proj_size`` in PyTorch.

    Args:
      features: size P of the output.
      hidden: size H of the cell state.
      forget_bias, activation, gate_activation, initialization: as in `LSTM`.

    Raises:
      ValueError: if features or hidden is below 1.
      TypeError: if forget_bias is not a number.

    Example:
      >>> import jax
      >>> cell = ProjectedLSTM(features=2, hidden=6)
      >>> params = cell.init(jax.random.key(0), in_features=3)
      >>> params.w_h.shape, params.w_p.shape
      ((2, 24), (6, 2))

    References:
      Sak, Senior, Beaufays, Long Short-Term Memory Based Recurrent Neural Network Architectures
      for Large Vocabulary Speech Recognition, 2014, arXiv:1402.1128; here without peepholes.
    """

    hidden: int = dataclasses.field(kw_only=True)

    gates: ClassVar[int] = 4

    def __post_init__(self) -> None:
        """Reject sizes below 1."""
        super().__post_init__()
        check_range("hidden", self.hidden, 1)

    @property
    def width(self) -> int:
        """Size H of one gate."""
        return self.hidden

    def init(self, key: Key, in_features: int) -> GatedParams:
        """Draw float32 parameters as `LSTM` does; the projection is Glorot-uniform."""
        key, key_p = jax.random.split(key)
        shape = (self.hidden, self.features)
        w_p = initializers.glorot_uniform()(key_p, shape, jnp.float32)
        return super().init(key, in_features)._replace(w_p=w_p)
