"""Long short-term memory whose state is an image, with any number of axes."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jax import lax

from seqnets.cells.gate import sigmoid
from seqnets.cells.prepared import PreparedCell
from seqnets.cells.product import factor_dtype, sum_dtype
from seqnets.cells.roles import roles
from seqnets.checks import check_number, check_range, check_shape
from seqnets.initializers import forget_bias, per_gate
from seqnets.typing import Array, Float, Key

__all__ = ["ConvLSTM", "ConvLSTMCarry", "ConvLSTMParams"]


@roles(w_x="input", w_h="recurrent")
class ConvLSTMParams(NamedTuple):
    """Parameters of a `ConvLSTM`; the blocks of the gates lie side by side on the last axis."""

    w_x: Float[Array, "*K D G"]
    """[*kernel, D, 4H] input kernel."""
    w_h: Float[Array, "*K H G"]
    """[*kernel, H, 4H] recurrent kernel."""
    b: Float[Array, " G"]
    """[4H] bias."""


class ConvLSTMCarry(NamedTuple):
    """State of a `ConvLSTM`."""

    c: Float[Array, "B *I H"]
    """[B, *image, H] cell state."""
    h: Float[Array, "B *I H"]
    """[B, *image, H] hidden state, also the output."""


@dataclasses.dataclass(frozen=True)
class ConvLSTM(PreparedCell[ConvLSTMParams, ConvLSTMCarry]):
    """Convolutional long short-term memory over images with one or more axes.

        i, f, g, o = split(x_t * W_x + h_{t-1} * W_h + b)
        c_t = σ(f) ∘ c_{t-1} + σ(i) ∘ tanh(g)
        h_t = σ(o) ∘ tanh(c_t)
        y_t = h_t

    ``*`` is a convolution (without flipping the kernel) of stride 1, zero-padded so that the
    image keeps its size; channels come last. The gates are in the order i, f, g, o.

    Args:
      features: number of channels H of the state.
      image: size of the image along each axis; inputs are [B, T, *image, D].
      kernel: size of both kernels along each axis.
      forget_bias: initial bias of the forget gate.
      initialization: see `seqnets.initializers.Initialization`.

    Raises:
      ValueError: if a size is below 1, or image and kernel differ in their number of axes.
      TypeError: if forget_bias is not a number.

    Example:
      >>> import jax
      >>> cell = ConvLSTM(features=4, image=(8, 8), kernel=(3, 3))
      >>> params = cell.init(jax.random.key(0), in_features=1)
      >>> params.w_x.shape, cell.initial_carry(params, 2, "float32").h.shape
      ((3, 3, 1, 16), (2, 8, 8, 4))

    References:
      Shi et al., Convolutional LSTM Network: A Machine Learning Approach for Precipitation
      Nowcasting, 2015, arXiv:1506.04214; here without peepholes.
    """

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    forget_bias: float = 1.0

    def __post_init__(self) -> None:
        """Reject sizes below 1 and differing numbers of axes."""
        super().__post_init__()
        check_number("forget_bias", self.forget_bias)
        for name, sizes in (("image", self.image), ("kernel", self.kernel)):
            for size in sizes:
                check_range(name, size, 1)
        if not self.image or len(self.image) != len(self.kernel):
            raise ValueError(
                "kernel: expected one size for each axis of the image, at least one, "
                f"got kernel {self.kernel} and image {self.image}"
            )

    @property
    def input_letters(self) -> str:
        """The axes of the image, then the features."""
        return "I " * len(self.image) + "D"

    def init(self, key: Key, in_features: int) -> ConvLSTMParams:
        """Draw float32 parameters gate by gate: Glorot-uniform w_x, orthogonal w_h."""
        check_range("in_features", in_features, 1)
        key_x, key_h, key_b = jax.random.split(key, 3)
        H, given = self.features, self.initialization
        inputs = per_gate(given.inputs or initializers.glorot_uniform(), 4)
        recurrent = per_gate(given.recurrent or initializers.orthogonal(), 4)
        bias = given.bias or forget_bias(self.forget_bias, gate=1, gates=4)
        return ConvLSTMParams(
            w_x=inputs(key_x, (*self.kernel, in_features, 4 * H), jnp.float32),
            w_h=recurrent(key_h, (*self.kernel, H, 4 * H), jnp.float32),
            b=bias(key_b, (4 * H,), jnp.float32),
        )

    def initial_carry(self, params: ConvLSTMParams, batch: int, dtype: Any) -> ConvLSTMCarry:
        """Zeros, ``c`` and ``h`` [batch, *image, H]."""
        shape = (batch, *self.image, self.features)
        return ConvLSTMCarry(c=jnp.zeros(shape, dtype), h=jnp.zeros(shape, dtype))

    def prepare(self, params: ConvLSTMParams, xs: Float[Array, "*B D"]) -> Float[Array, "*B G"]:
        """``x * W_x + b``, [..., *image, 4H].

        Raises:
          ValueError: if the size or the number of channels of the images is not as expected.
        """
        axes = len(self.image) + 1
        leading, image = xs.shape[:-axes], (*self.image, params.w_x.shape[-2])
        check_shape("xs", xs, (*leading, *image), "image of the cell, features of the parameters")
        z = _convolve(xs.reshape(-1, *image), params.w_x)
        z = z + jnp.broadcast_to(params.b, z.shape)
        return z.reshape(*leading, *z.shape[1:])

    def advance(
        self, params: ConvLSTMParams, carry: ConvLSTMCarry, prepared: Float[Array, "B *I G"]
    ) -> tuple[ConvLSTMCarry, Float[Array, "B *I H"]]:
        """The gates and the two state equations."""
        i, f, g, o = jnp.split(prepared + _convolve(carry.h, params.w_h), 4, axis=-1)
        c = sigmoid(f) * carry.c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return ConvLSTMCarry(c=c, h=h), h


def _convolve(images: Array, kernel: Array) -> Array:
    """Convolve ``[N, *image, D]`` with ``[*kernel, D, F]`` to ``[N, *image, F]``."""
    n, factors = images.ndim - 2, factor_dtype(images, kernel)
    axes, last = tuple(range(1, n + 1)), n + 1
    numbers = lax.ConvDimensionNumbers(
        lhs_spec=(0, last, *axes), rhs_spec=(last, n, *range(n)), out_spec=(0, last, *axes)
    )
    z = lax.conv_general_dilated(
        images.astype(factors),
        kernel.astype(factors),
        (1,) * n,
        "SAME",
        dimension_numbers=numbers,
    )
    return z.astype(sum_dtype(images, kernel))
