"""Regularization of the recurrence: recurrent dropout, zoneout, and weight drop."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from seqnets.cells.composite import CompositeCell
from seqnets.cells.roles import map_role, weights_of_role
from seqnets.checks import check_dtype, check_range, did_you_mean
from seqnets.dropout import check_keys, dropout, fold_in_rows
from seqnets.recurrence.contract import Noise
from seqnets.typing import Array, Cell, Key, PyTree

__all__ = ["Regularization"]


@dataclasses.dataclass(frozen=True)
class Regularization:
    """Noise in the recurrence of a layer during training.

    Attributes:
      recurrent_dropout: rate of variational dropout on the hidden state that the step reads, with
        one mask for all steps of a row. In gated cells, only the recurrent product is affected.
      zoneout: probability that a unit of the carry keeps its old value in a step: a number for all
        parts of the carry, or pairs of a part and its probability, ``(("c", 0.5), ("h", 0.05))``;
        parts that are not listed always take their new values. In evaluation, the new value is the
        expectation. Zoneout does not apply to parts that are not of floats. If the carry has a part
        h, that h is the output.
      weight_drop: rate of dropout on the recurrent weights ``w_h``, with one mask for all rows and
        steps of a batch.

    Raises:
      TypeError: if a rate is not a number.
      ValueError: if a rate is not in [0, 1).

    References:
      Gal, Ghahramani, A Theoretically Grounded Application of Dropout in Recurrent Neural
      Networks, 2016, arXiv:1512.05287 (here without the dropout on inputs);
      Krueger et al., Zoneout: Regularizing RNNs by Randomly Preserving Hidden
      Activations, 2017, arXiv:1606.01305; Merity, Keskar, Socher, Regularizing and Optimizing
      LSTM Language Models, 2018, arXiv:1708.02182 (weight drop).
    """

    recurrent_dropout: float = 0.0
    zoneout: float | tuple[tuple[str, float], ...] = 0.0
    weight_drop: float = 0.0

    def __post_init__(self) -> None:
        check_range("recurrent_dropout", self.recurrent_dropout, 0, 1, closed="left")
        check_range("weight_drop", self.weight_drop, 0, 1, closed="left")
        rates = self.zoneout if isinstance(self.zoneout, tuple) else (("", self.zoneout),)
        for part, rate in rates:
            check_range(f"zoneout {part}".strip(), rate, 0, 1, closed="left")

    def drop_weights(self, params: PyTree, key: Key | None) -> PyTree:
        """Apply the weight drop: dropout on the recurrent weights of a cell.

        Args:
          params: parameters with recurrent weights; see `seqnets.cells.roles`.
          key: random key; None for no dropout (evaluation).

        Returns:
          The parameters, with the recurrent weights replaced.

        Raises:
          TypeError: if weight_drop is not 0 and the parameters have no recurrent weights.
        """
        if self.weight_drop == 0:
            return params
        if not any(True for _ in weights_of_role(params, "recurrent")):
            raise TypeError(
                "weight_drop: expected a cell whose parameters have recurrent weights, got "
                f"{type(params).__name__}"
            )
        if key is None:
            return params

        def drop(w: Array) -> Array:
            return dropout(w, jax.random.split(key, w.shape[0]), self.weight_drop)

        return map_role(drop, params, ("recurrent",))

    def noise(self, cell: Cell, params: PyTree, rows: int, steps: int, keys: Key | None) -> Noise:
        """Draw the noise for `unroll`.

        Args:
          cell: the cell.
          params: its parameters.
          rows: number of rows B.
          steps: number of time steps T.
          keys: [B] random keys, one per row, independent of the device; None for evaluation.

        Returns:
          Masks for training, or expectations for evaluation.

        Raises:
          ValueError: if ``zoneout`` names a part that the carry does not have, or keys is not [B].
          TypeError: if there is recurrent dropout and the carry has no part ``h``, if ``zoneout``
            names a part that is not of floats, or if there is recurrent dropout or zoneout and
            the cell is a composite.
        """
        if isinstance(cell, CompositeCell) and (self.recurrent_dropout or self.zoneout):
            raise TypeError(
                "regularization: expected no recurrent dropout or zoneout for a composite, got "
                f"{self}"
            )
        carry = jax.eval_shape(lambda: cell.initial_carry(params, rows, jnp.float32))
        if keys is not None:
            check_keys("dropout_keys", keys, rows)
        return Noise(
            hidden=self._hidden(carry, fold_in_rows(keys, 0)),
            updates=self._updates(carry, steps, fold_in_rows(keys, 1)),
        )

    def _hidden(self, carry: PyTree, keys: Key | None) -> Array | None:
        if self.recurrent_dropout == 0:
            return None
        if not hasattr(carry, "h"):
            raise TypeError(
                f"recurrent_dropout: expected a cell whose carry has a part h, got {carry}"
            )
        if keys is None:
            return None
        return dropout(jnp.ones(carry.h.shape), keys, self.recurrent_dropout)

    def _updates(self, carry: PyTree, steps: int, keys: Key | None) -> PyTree:
        if not self.zoneout:
            return None
        leaves = jax.tree.leaves(carry)
        rates = self._zoneout_of(carry)

        def part(number: int, leaf: Any, rate: float) -> Array:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                return jnp.ones((1, steps), jnp.float32)
            if keys is None or rate == 0:
                return jnp.full((1, steps), 1 - rate, jnp.float32)
            shape = (steps, *leaf.shape[1:])
            draw = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, shape))
            return draw(fold_in_rows(keys, number))

        drawn = [part(n, *pair) for n, pair in enumerate(zip(leaves, rates, strict=True))]
        return jax.tree.unflatten(jax.tree.structure(carry), drawn)

    def _zoneout_of(self, carry: PyTree) -> list[float]:
        """The zoneout rate of each leaf of the carry."""
        paths = jax.tree_util.tree_leaves_with_path(carry)
        parts = {jax.tree_util.keystr(p, simple=True, separator="."): leaf for p, leaf in paths}
        if not isinstance(self.zoneout, tuple):
            return [self.zoneout] * len(parts)
        rates = dict(self.zoneout)
        for name in rates:
            if name not in parts:
                raise ValueError(
                    f"zoneout: the carry has no part {name!r}; {did_you_mean(name, parts)}"
                )
            check_dtype(f"zoneout: part {name!r} of the carry", parts[name], "float")
        return [rates.get(name, 0.0) for name in parts]
