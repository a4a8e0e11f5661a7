"""Activation functions that are accurate at the extremes in every float type.

Each is a pure function of floats that keeps shape and dtype. At ±∞, its value and its gradient are
their limits; NaN stays NaN. `jax.nn` is used wherever it meets these conditions. All functions
except `softmax` and `log_softmax` are element-wise.

In float16 and bfloat16, values and derivatives are computed in float32 and rounded once. Their
relative error is one rounding of the dtype even where they are small, as in the tail of a sigmoid,
except that numbers below 1e-35 may become 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from seqnets.checks import check_dtype, check_number, check_range
from seqnets.precision import rounded_once
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


def _with_slope(
    function: Callable[[Array], Array], slope: Callable[[Array], Array]
) -> Callable[[Array], Array]:
    """An element-wise function with a derivative that avoids cancellation.

    For example, JAX computes ``1 - tanh²``, which in float32 is 0 for x >= 9.
    """
    sloped = jax.custom_jvp(function)
    sloped.defjvps(lambda tangent, _, x: tangent * slope(x))
    return sloped


def _bell(x: Array) -> Array:
    """``σ(x) σ(-x)``, the derivative of the sigmoid."""
    return jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)


_precise_sigmoid = _with_slope(jax.nn.sigmoid, _bell)
_precise_tanh = _with_slope(jnp.tanh, lambda x: 4 * _bell(2 * x))
_expm1 = _with_slope(jnp.expm1, jnp.exp)
_softsign = _with_slope(
    lambda x: jnp.where(jnp.isinf(x), jnp.sign(x), x / (1 + jnp.abs(x))),
    lambda x: jnp.square(1 / (1 + jnp.abs(x))),
)


def linear(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``x``, the identity, for layers without an activation.

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.
    """
    return x


@rounded_once(_precise_sigmoid)
def sigmoid(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``σ(x) = 1 / (1 + exp(-x))``, the logistic function.

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.

    References:
      Rumelhart, Hinton, Williams, Learning Representations by Back-Propagating Errors,
      Nature 323, 1986.
    """
    return jax.nn.sigmoid(x)


@rounded_once(_precise_tanh)
def tanh(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``tanh(x) = (exp(x) - exp(-x)) / (exp(x) + exp(-x))``.

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.

    References:
      LeCun, Bottou, Orr, Müller, Efficient BackProp, in Neural Networks: Tricks of the Trade,
      1998 (there scaled and stretched).
    """
    return jnp.tanh(x)


def relu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``max(x, 0)``; the gradient at 0 is 0.

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.

    References:
      Nair, Hinton, Rectified Linear Units Improve Restricted Boltzmann Machines, ICML 2010.
    """
    return jax.nn.relu(x)


@rounded_once()
def leaky_relu(x: Float[Array, "*S"], negative_slope: float = 0.01) -> Float[Array, "*S"]:
    """``x`` where x >= 0, else ``negative_slope · x``; the gradient at 0 is 1.

    Args:
      x: floats of any shape.
      negative_slope: slope for x < 0.

    Returns:
      Array with the shape and dtype of x.

    Raises:
      TypeError: if negative_slope is not a number.

    References:
      Maas, Hannun, Ng, Rectifier Nonlinearities Improve Neural Network Acoustic Models, 2013.
    """
    check_number("negative_slope", negative_slope)
    return jax.nn.leaky_relu(x, negative_slope)


@rounded_once()
def prelu(x: Float[Array, "*S D"], slope: Float[Array, " D"] | float) -> Float[Array, "*S D"]:
    """``x`` where x >= 0, else ``slope · x``, with a learned slope; the gradient at 0 is 1.

    Args:
      x: floats of shape [..., D].
      slope: a scalar, or one slope per element of the last axis, [D]; `seqnets.modules.PReLU` has
        it as a parameter.

    Returns:
      Array with the shape and dtype of x.

    Raises:
      TypeError: if x is not of floats, or slope is not of numbers.
      ValueError: if slope is neither a scalar nor [D].

    References:
      He, Zhang, Ren, Sun, Delving Deep into Rectifiers, 2015, arXiv:1502.01852.
    """
    check_dtype("x", x, "float")
    if np.ndim(slope) == 0:
        check_number("slope", slope)
    slope = jnp.asarray(slope, jnp.result_type(x))
    if slope.shape not in ((), jnp.shape(x)[-1:]):
        raise ValueError(
            f"slope: expected a scalar or shape {jnp.shape(x)[-1:]}, got {slope.shape}"
        )
    negative = jnp.minimum(x, 0)  # keeps 0 · ∞ out of the gradient of the slope
    return jnp.where(x >= 0, x, jnp.broadcast_to(slope, jnp.shape(x)) * negative)


@rounded_once()
def elu(x: Float[Array, "*S"], alpha: float = 1.0) -> Float[Array, "*S"]:
    """``x`` where x > 0, else ``alpha · (exp(x) - 1)``; the gradient at 0 is alpha.

    Args:
      x: floats of any shape.
      alpha: minus the limit for x → -∞.

    Returns:
      Array with the shape and dtype of x.

    Raises:
      TypeError: if alpha is not a number.

    References:
      Clevert, Unterthiner, Hochreiter, Fast and Accurate Deep Network Learning by Exponential
      Linear Units, 2015, arXiv:1511.07289.
    """
    check_number("alpha", alpha)
    return _elu(x, alpha)


@rounded_once()
def selu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``λ · elu(x, α)``, α = 1.6733 and λ = 1.0507, which preserve mean 0 and variance 1.

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.

    References:
      Klambauer et al., Self-Normalizing Neural Networks, 2017, arXiv:1706.02515.
    """
    return 1.0507009873554805 * _elu(x, 1.6732632423543772)


@rounded_once()
def celu(x: Float[Array, "*S"], alpha: float = 1.0) -> Float[Array, "*S"]:
    """``max(x, 0) + min(alpha · (exp(x / alpha) - 1), 0)``: ELU with a continuous derivative.

    Args:
      x: floats of any shape.
      alpha: minus the limit for x → -∞; positive.

    Returns:
      Array with the shape and dtype of x.

    Raises:
      TypeError: if alpha is not a number.
      ValueError: if alpha is not positive.

    References:
      Barron, Continuously Differentiable Exponential Linear Units, 2017, arXiv:1704.07483.
    """
    check_range("alpha", alpha, 0, closed="neither")
    return _elu(x, alpha, alpha)


@rounded_once()
def gelu(x: Float[Array, "*S"], *, approximate: bool = False) -> Float[Array, "*S"]:
    """``x · Φ(x)`` with the standard normal distribution function Φ.

    Args:
      x: floats of any shape.
      approximate: if True, compute ``x/2 · (1 + tanh u)`` with u = √(2/π) (x + 0.044715 x³),
        whose error is at most 0.0005.

    Returns:
      Array with the shape and dtype of x.

    References:
      Hendrycks, Gimpel, Gaussian Error Linear Units, 2016, arXiv:1606.08415.
    """
    # For |x| > 40, Φ is 0 or 1 even in float64, and x³ may overflow.
    return _saturate(_cubic_gelu if approximate else _exact_gelu, x, bound=40)


@rounded_once()
def silu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``x · σ(x)``, also called swish.

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.

    References:
      Elfwing, Uchibe, Doya, Sigmoid-Weighted Linear Units, 2017, arXiv:1702.03118.
    """
    return _saturate(jax.nn.silu, x, bound=800)


@rounded_once()
def mish(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``x · tanh(softplus(x))``.

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.

    References:
      Misra, Mish: A Self Regularized Non-Monotonic Activation Function, 2019, arXiv:1908.08681.
    """
    return _saturate(jax.nn.mish, x, bound=800)


@rounded_once()
def softplus(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``log(1 + exp(x))``, computed as ``max(x, 0) + log1p(exp(-|x|))``.

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.

    References:
      Dugas et al., Incorporating Second-Order Functional Knowledge for Better Option Pricing,
      NIPS 2000.
    """
    return jax.nn.softplus(x)


@rounded_once()
def softsign(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``x / (1 + |x|)``.

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.

    Raises:
      TypeError: if x is not of floats.

    References:
      Glorot, Bengio, Understanding the Difficulty of Training Deep Feedforward Neural Networks,
      AISTATS 2010.
    """
    check_dtype("x", x, "float")
    return _softsign(x)


@rounded_once()
def hard_sigmoid(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``min(max(x + 3, 0), 6) / 6``, the variant with slope 1/6 (PyTorch, Keras 3).

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.

    References:
      Courbariaux, Bengio, David, BinaryConnect, 2015, arXiv:1511.00363 (there with slope 1/2);
      Howard et al., Searching for MobileNetV3, 2019, arXiv:1905.02244 (slope 1/6).
    """
    return jax.nn.hard_sigmoid(x)


def hard_tanh(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``min(max(x, -1), 1)``.

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.

    References:
      Collobert, Large Scale Machine Learning, PhD thesis, Université Paris VI, 2004.
    """
    return jax.nn.hard_tanh(x)


def relu6(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``min(max(x, 0), 6)``.

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.

    References:
      Krizhevsky, Convolutional Deep Belief Networks on CIFAR-10, 2010.
    """
    return jax.nn.relu6(x)


@rounded_once()
def log_sigmoid(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``log σ(x) = -log(1 + exp(-x))``, computed as ``-softplus(-x)``.

    Args:
      x: floats of any shape.

    Returns:
      Array with the shape and dtype of x.

    References:
      Dugas et al., Incorporating Second-Order Functional Knowledge for Better Option Pricing,
      NIPS 2000 (softplus).
    """
    return jax.nn.log_sigmoid(x)


@rounded_once()
def softmax(x: Float[Array, "*S V"], axis: int = -1) -> Float[Array, "*S V"]:
    """``exp(x_i) / Σ_j exp(x_j)`` along an axis; elements of -∞ get probability 0.

    Args:
      x: floats, [..., V].
      axis: axis along which the results sum to 1.

    Returns:
      Array with the shape and dtype of x. It is NaN where no limit exists, which is if
      an element along the axis is +∞, or all are -∞.

    Raises:
      TypeError: if x is not of floats.

    References:
      Bridle, Probabilistic Interpretation of Feedforward Classification Network Outputs, in
      Neurocomputing, 1990; the largest element is subtracted first, so that exp cannot overflow.
    """
    check_dtype("x", x, "float")
    return jax.nn.softmax(x, axis=axis)


@rounded_once()
def log_softmax(x: Float[Array, "*S V"], axis: int = -1) -> Float[Array, "*S V"]:
    """``x_i - log Σ_j exp(x_j)`` along an axis, the logarithm of `softmax`.

    Args:
      x: floats, [..., V].
      axis: axis along which the exponentials of the results sum to 1.

    Returns:
      Array with the shape and dtype of x; NaN where `softmax` is NaN.

    Raises:
      TypeError: if x is not of floats.

    References:
      Blanchard, Higham, Higham, Accurately Computing the Log-Sum-Exp and Softmax Functions,
      IMA Journal of Numerical Analysis 41, 2021, arXiv:1909.03469.
    """
    check_dtype("x", x, "float")
    return jax.nn.log_softmax(x, axis=axis)


def _elu(x: Array, alpha: float, width: float = 1.0) -> Array:
    """``x`` where x > 0, else ``alpha · (exp(x / width) - 1)``."""
    positive = x > 0
    return jnp.where(positive, x, alpha * _expm1(jnp.where(positive, 0, x) / width))


def _exact_gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


def _cubic_gelu(x: Array) -> Array:
    """The approximation of `gelu`, with ``(1 + tanh u) / 2 = σ(2u)`` to avoid cancellation."""
    return x * jax.nn.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))


def _saturate(function: Callable[[Array], Array], x: Array, bound: float) -> Array:
    """Evaluate a function that tends to 0 on the left and to x on the right, without ``0 · ∞``.

    Outside of [-bound, bound], the function equals its limit in every float type, so the value
    and the gradient of the limit are used there.
    """
    x = jnp.asarray(x)
    inside = jnp.abs(x) <= bound
    value = function(jnp.where(inside, x, jnp.zeros_like(x)))
    return jnp.where(inside, value, jnp.where(jnp.isnan(x), x, jax.nn.relu(x)))
