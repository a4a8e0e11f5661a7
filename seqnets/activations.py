"""Element-wise activations, right at the extremes in every float type.

Each is a pure function, keeps shape and dtype, and has the limit of its values and of its
gradient at ±∞ (where that limit is finite): `jax.nn` is used where it has them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from seqnets.checks import check_dtype, check_range
from seqnets.typing import Array, Float

__all__ = [
    "celu",
    "elu",
    "gelu",
    "hard_sigmoid",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
]


def linear(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``x``: the identity, for layers that need an activation and want none."""
    return x


def sigmoid(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``σ(x) = 1 / (1 + exp(-x))``, the logistic function."""
    return jax.nn.sigmoid(x)


def tanh(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``tanh(x) = (exp(x) - exp(-x)) / (exp(x) + exp(-x))``."""
    return jnp.tanh(x)


def relu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``max(x, 0)``; the gradient at 0 is 0.

    References:
      Nair, Hinton, Rectified Linear Units Improve Restricted Boltzmann Machines, ICML 2010.
    """
    return jax.nn.relu(x)


def leaky_relu(x: Float[Array, "*S"], negative_slope: float = 0.01) -> Float[Array, "*S"]:
    """``x`` where x > 0, else ``negative_slope · x``.

    References:
      Maas, Hannun, Ng, Rectifier Nonlinearities Improve Neural Network Acoustic Models, 2013.
    """
    return jax.nn.leaky_relu(x, negative_slope)


def prelu(x: Float[Array, "*S D"], slope: Float[Array, " D"] | float) -> Float[Array, "*S D"]:
    """``x`` where x > 0, else ``slope · x``, with a learned slope.

    Args:
      x: any shape.
      slope: a scalar, or one slope for each element of the last axis, [D].

    Raises:
      ValueError: if slope is neither a scalar nor [D].

    References:
      He, Zhang, Ren, Sun, Delving Deep into Rectifiers, 2015, arXiv:1502.01852.
    """
    slope = jnp.asarray(slope, jnp.result_type(x))
    if slope.shape not in ((), jnp.shape(x)[-1:]):
        raise ValueError(
            f"slope: expected a scalar or shape {jnp.shape(x)[-1:]}, got {slope.shape}"
        )
    # The unselected branch sees a finite number, so that 0 · ∞ never enters the slope's gradient.
    return jnp.where(x > 0, x, jnp.broadcast_to(slope, jnp.shape(x)) * jnp.minimum(x, 0))


def elu(x: Float[Array, "*S"], alpha: float = 1.0) -> Float[Array, "*S"]:
    """``x`` where x > 0, else ``alpha · (exp(x) - 1)``.

    References:
      Clevert, Unterthiner, Hochreiter, Fast and Accurate Deep Network Learning by Exponential
      Linear Units, 2015, arXiv:1511.07289.
    """
    return jax.nn.elu(x, alpha)


def selu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``λ · elu(x, α)`` with α = 1.6733 and λ = 1.0507, which keep mean 0 and variance 1.

    References:
      Klambauer et al., Self-Normalizing Neural Networks, 2017, arXiv:1706.02515.
    """
    return jax.nn.selu(x)


def celu(x: Float[Array, "*S"], alpha: float = 1.0) -> Float[Array, "*S"]:
    """``max(x, 0) + min(alpha · (exp(x / alpha) - 1), 0)``: ELU with a continuous derivative.

    Raises:
      ValueError: if alpha is not positive.

    References:
      Barron, Continuously Differentiable Exponential Linear Units, 2017, arXiv:1704.07483.
    """
    check_range("alpha", alpha, 0, closed="neither")
    return jax.nn.celu(x, alpha)


def gelu(x: Float[Array, "*S"], *, approximate: bool = False) -> Float[Array, "*S"]:
    """``x · Φ(x)``, Φ the normal distribution function.

    Args:
      x: any shape.
      approximate: use ``x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))``; the exact form is the default.

    References:
      Hendrycks, Gimpel, Gaussian Error Linear Units, 2016, arXiv:1606.08415.
    """
    return _saturate(lambda v: jax.nn.gelu(v, approximate=approximate), x)


def silu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``x · σ(x)``, also called swish.

    References:
      Elfwing, Uchibe, Doya, Sigmoid-Weighted Linear Units, 2017, arXiv:1702.03118.
    """
    return _saturate(jax.nn.silu, x)


def mish(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``x · tanh(softplus(x))``.

    References:
      Misra, Mish: A Self Regularized Non-Monotonic Activation Function, 2019, arXiv:1908.08681.
    """
    return _saturate(lambda v: v * jnp.tanh(softplus(v)), x)


def softplus(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``log(1 + exp(x))``, computed as ``max(x, 0) + log1p(exp(-|x|))``."""
    return jax.nn.softplus(x)


def softsign(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``x / (1 + |x|)``."""
    bound = jnp.asarray(jnp.finfo(jnp.result_type(x)).max, jnp.result_type(x))
    finite = jnp.where(jnp.isinf(x), jnp.sign(x) * bound, x)
    return finite / (1 + jnp.abs(finite))


def hard_sigmoid(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``min(max(x + 3, 0), 6) / 6``: the variant with slope 1/6 (PyTorch, Keras 3)."""
    return jax.nn.hard_sigmoid(x)


def hard_tanh(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``min(max(x, -1), 1)``."""
    return jax.nn.hard_tanh(x)


def relu6(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``min(max(x, 0), 6)``.

    References:
      Krizhevsky, Convolutional Deep Belief Networks on CIFAR-10, 2010.
    """
    return jax.nn.relu6(x)


def log_sigmoid(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``log σ(x) = -softplus(-x)``."""
    return jax.nn.log_sigmoid(x)


def softmax(x: Float[Array, "*S V"], axis: int = -1) -> Float[Array, "*S V"]:
    """``exp(x_i) / Σ_j exp(x_j)`` along an axis; entries of -∞ get probability 0.

    Raises:
      TypeError: if x is not of floats.
    """
    check_dtype("x", x, "float")
    return jax.nn.softmax(x, axis=axis)


def log_softmax(x: Float[Array, "*S V"], axis: int = -1) -> Float[Array, "*S V"]:
    """``x_i - log Σ_j exp(x_j)`` along an axis.

    Raises:
      TypeError: if x is not of floats.
    """
    check_dtype("x", x, "float")
    return jax.nn.log_softmax(x, axis=axis)


def _saturate(function: Callable[[Array], Array], x: Array) -> Array:
    """Functions that tend to 0 on the left and to x on the right, without ``0 · ∞`` between.

    Beyond ±bound the function equals its limit in every float type, so that value and gradient
    are taken from the limit there.
    """
    x = jnp.asarray(x)
    inside = jnp.abs(x) <= 100
    value = function(jnp.where(inside, x, jnp.zeros_like(x)))
    return jnp.where(inside, value, jnp.where(jnp.isnan(x), x, jax.nn.relu(x)))
