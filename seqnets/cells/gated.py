"""The base class of gated cells: two fused products and a pointwise function of the results.

A gated cell consists of its equations. It defines the number of gates, and how the two products

    z_x = x W_x + b          z_h = h W_h + b_h

and the carry determine the next carry. The engine that runs it over time is responsible for the
products, the loop, the gradient, masks, resets, and the direction.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
from flax.linen import initializers

from seqnets.cells.product import multiply
from seqnets.cells.roles import roles
from seqnets.checks import check_range, check_rank
from seqnets.initializers import Initialization, Initializer, per_gate
from seqnets.typing import Array, Float, Key, PyTree

__all__ = [
    "GatedCell",
    "GatedParams",
    "HiddenCarry",
    "ProductDtypes",
    "check_inputs",
    "product_dtypes",
    "project_hidden",
    "project_inputs",
    "project_output",
]


@roles(w_x="input", w_h="recurrent", w_p="output")
class GatedParams(NamedTuple):
    """Parameters of a gated cell; the blocks of the gates lie side by side on the last axis."""

    w_x: Float[Array, "D G"]
    """[D, G·H] input weights."""
    w_h: Float[Array, "H G"]
    """[H, G·H] recurrent weights."""
    b: Float[Array, " G"] | None
    """[G·H] bias of the input product; None if the cell adds its own, e.g. after a norm."""
    b_h: Float[Array, " G"] | None = None
    """[G·H] bias of the recurrent product; None unless the cell needs it separately."""
    extra: PyTree = None
    """Parameters of the pointwise function (peepholes, norms); None for most cells."""
    w_p: Float[Array, "H P"] | None = None
    """[H, P] projection of the output; None for most cells."""


class HiddenCarry(Protocol):
    """A carry with an array ``h [B, H]``, which the recurrent product reads."""

    @property
    def h(self) -> Float[Array, "B H"]:
        """[B, H] hidden state."""
        ...


CarryT = TypeVar("CarryT", bound=HiddenCarry)


@dataclasses.dataclass(frozen=True)
class GatedCell(abc.ABC, Generic[CarryT]):
    """Base class of cells defined by gates and a pointwise function.

    The carry is a NamedTuple with a field ``h``, which the recurrent product reads and which is
    the output. Rows are independent of each other, so the engine may keep them on any axis.
    With a projection, ``h`` is narrower than the gates.

    Args:
      features: size of the output.
      initialization: how to draw the parameters; see `seqnets.initializers.Initialization`.

    Raises:
      ValueError: if features is below 1.
      TypeError: if a subclass does not define ``gates``.
    """

    features: int
    initialization: Initialization = dataclasses.field(default=Initialization(), kw_only=True)
    """How to draw the parameters; fields that are None keep the default of the cell."""

    gates: ClassVar[int]
    """Number of gates G."""
    input_letters: ClassVar[str] = "D"
    """Names of the axes of one input."""
    hidden_bias: ClassVar[bool] = False
    """Whether the recurrent product has its own bias ``b_h``."""

    def __post_init__(self) -> None:
        """Reject sizes below 1, and a class without its number of gates."""
        check_range("features", self.features, 1)
        if not hasattr(self, "gates"):
            raise TypeError(f"{type(self).__name__}.gates: expected the number of gates, got none")

    @property
    def width(self) -> int:
        """Size H of one gate, and of the output unless the cell projects it."""
        return self.features

    @abc.abstractmethod
    def pointwise(
        self, extra: PyTree, z_x: Float[Array, "*B G"], z_h: Float[Array, "*B G"], carry: CarryT
    ) -> CarryT:
        """The equations of the cell after the two products, for one or more rows.

        Args:
          extra: ``params.extra``.
          z_x: ``x W_x + b``, [..., G·H].
          z_h: ``h W_h + b_h``, [..., G·H].
          carry: carry before the step; ``z_h`` was computed from its field ``h``.

        Returns:
          The carry after the step; after `project_output`, its field ``h`` is also the output.
        """

    @abc.abstractmethod
    def initial_carry(self, params: GatedParams, batch: int, dtype: Any) -> CarryT:
        """Carry before the first step, every leaf ``[batch, H]`` of ``dtype``."""

    def bias_init(self) -> Initializer:
        """The initializer of ``b``: zeros unless the cell overrides it."""
        return initializers.zeros

    def init(self, key: Key, in_features: int) -> GatedParams:
        """Draw float32 parameters: Glorot-uniform w_x, one orthogonal block of w_h per gate.

        The field ``initialization`` overrides these defaults.

        Args:
          key: random key.
          in_features: size D of the inputs.

        Raises:
          ValueError: if in_features is below 1.

        References:
          Saxe, McClelland, Ganguli, Exact solutions to the nonlinear dynamics of learning in
          deep linear neural networks, 2014, arXiv:1312.6120 (orthogonal recurrent weights).
        """
        check_range("in_features", in_features, 1)
        width = self.gates * self.width
        key_x, key_h, key_b = jax.random.split(key, 3)
        given = self.initialization
        inputs = per_gate(given.inputs or initializers.glorot_uniform(), self.gates)
        recurrent = per_gate(given.recurrent or initializers.orthogonal(), self.gates)
        bias = given.bias or self.bias_init()
        return GatedParams(
            w_x=inputs(key_x, (in_features, width), jnp.float32),
            w_h=recurrent(key_h, (self.features, width), jnp.float32),
            b=bias(key_b, (width,), jnp.float32),
            b_h=jnp.zeros((width,), jnp.float32) if self.hidden_bias else None,
        )

    def step(
        self, params: GatedParams, carry: CarryT, x: Float[Array, "B D"]
    ) -> tuple[CarryT, Float[Array, "B H"]]:
        """Compute one step: both products, then `pointwise`.

        Args:
          params: parameters, from `init`.
          carry: carry before the step.
          x: inputs, [B, D].

        Returns:
          ``(carry, y)``: the carry after the step, and the output [B, features].

        Raises:
          ValueError: if x is not [B, D] with the D of the parameters.
        """
        check_rank("x", x, 2, "B D")
        dtypes = product_dtypes(params, x, carry.h)
        z_x = project_inputs(params, x, dtypes)
        z_h = project_hidden(params, carry.h, dtypes)
        carry = project_output(params, self.pointwise(params.extra, z_x, z_h, carry), dtypes)
        return carry, carry.h


class ProductDtypes(NamedTuple):
    """The dtypes in which the products of a cell are computed."""

    factors: Any
    """Dtype of inputs, states, and weights when they are multiplied."""
    sums: Any
    """Dtype of the sums and of the results."""


def product_dtypes(
    params: GatedParams, xs: Float[Array, "*B D"], h: Float[Array, "*B H"]
) -> ProductDtypes:
    """For factors, the dtype of the weights if it is narrower than that of the inputs.

    Otherwise, the promoted dtype of both. For sums, the promoted dtype of inputs, weights, and
    carry: bfloat16 weights with a float32 carry are multiplied in bfloat16, which is fast on matrix
    units, and summed in float32.
    """
    weights = jnp.promote_types(params.w_x.dtype, params.w_h.dtype)
    promoted = jnp.promote_types(xs.dtype, weights)
    factors = weights if promoted == xs.dtype else promoted
    return ProductDtypes(factors, jnp.promote_types(promoted, h.dtype))


def project_inputs(
    params: GatedParams, xs: Float[Array, "*B D"], dtypes: ProductDtypes
) -> Float[Array, "*B G"]:
    """``x W_x + b`` for one step ``[B, D]`` or for all steps at once ``[T, B, D]``.

    Raises:
      ValueError: if the size of the inputs does not match the parameters.
    """
    check_inputs(params, xs)
    return _project(xs, params.w_x, params.b, dtypes)


def project_hidden(
    params: GatedParams, h: Float[Array, "*B H"], dtypes: ProductDtypes
) -> Float[Array, "*B G"]:
    """``h W_h + b_h`` for one step, [B, G·H]."""
    return _project(h, params.w_h, params.b_h, dtypes)


def project_output(params: GatedParams, carry: CarryT, dtypes: ProductDtypes) -> CarryT:
    """The carry with h replaced by ``h W_p`` if there is a projection."""
    if params.w_p is None:
        return carry
    h = multiply(carry.h, params.w_p, dtypes.factors, dtypes.sums)
    return carry._replace(h=h)  # type: ignore[attr-defined]


def check_inputs(params: GatedParams, xs: Float[Array, "*B D"]) -> None:
    """Raise ValueError if the size of the inputs does not match the parameters."""
    expected, got = params.w_x.shape[0], xs.shape[-1]
    if got != expected:
        raise ValueError(f"xs: expected {expected} features, as the parameters have, got {got}")


def _project(x: Array, w: Array, b: Array | None, dtypes: ProductDtypes) -> Array:
    z = multiply(x, w, dtypes.factors, dtypes.sums)
    return z if b is None else z + jnp.broadcast_to(b.astype(z.dtype), z.shape)
