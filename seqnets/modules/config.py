"""The recurrent layers in the configurations of models."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from seqnets.cells import CELLS
from seqnets.config import ConfigError, Fraction, Positive, call_named, field, look_up
from seqnets.modules.layer import Layer
from seqnets.recurrence import Execution, Regularization

__all__ = ["LayerConfig", "RecurrentConfig"]

MAXIMUM_LAYERS = 256
"""Largest number of layers, since each takes time to trace and to compile."""

Options = dict[str, bool | int | float | str]


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """One recurrent layer; a field that is None has the value of the section ``model``.

    Attributes:
      cell: a key of `seqnets.cells.CELLS`.
      features: size H of the layer.
      cell_options: further arguments of the cell, e.g. ``{ forget_bias = 2.0 }``.
      recurrent_dropout, zoneout, weight_drop: see `seqnets.recurrence.Regularization`.
    """

    cell: str | None = None
    features: Positive | None = None
    cell_options: Options | None = None
    recurrent_dropout: Fraction | None = None
    zoneout: dict[str, Fraction] | None = None
    weight_drop: Fraction | None = None


@dataclasses.dataclass(frozen=True)
class RecurrentConfig:
    """The recurrent layers of a model.

    Attributes:
      cell: a key of `seqnets.cells.CELLS`.
      cell_options: further arguments of the cell, e.g. ``{ forget_bias = 2.0 }``.
      hidden: size H of each layer.
      layers: number of layers L, or a list of tables, one per layer; see `LayerConfig`.
      dropout: dropout rate between layers and before the output.
      variational: use the same dropout mask at all time steps of a row.
      recurrent_dropout, zoneout, weight_drop: see `seqnets.recurrence.Regularization`; zoneout is
        given per part of the carry, e.g. ``{c = 0.5, h = 0.05}``.
      dtype: dtype of the products; with bfloat16 the state, all sums, and the parameters remain
        float32.
      strategy: how layers are computed; see `seqnets.recurrence.Execution`.
      remat: number of time steps between the carries stored for the gradient; None stores
        everything. See `seqnets.recurrence.Execution`.
    """

    cell: str = "lstm"
    cell_options: Options = field({}, options_of="cell")
    hidden: Positive = 64
    layers: Positive | list[LayerConfig] = 1
    dropout: Fraction = 0.0
    variational: bool = False
    recurrent_dropout: Fraction = 0.0
    zoneout: dict[str, Fraction] = field({})
    weight_drop: Fraction = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    strategy: str = "auto"
    remat: Positive | None = None

    def build_layers(self) -> tuple[Layer, ...]:
        """The layers, from the input up.

        Raises:
          ConfigError: if a cell or an option does not exist, or the number of layers is 0 or more
            than `MAXIMUM_LAYERS`.
        """
        number = self.layers if isinstance(self.layers, int) else len(self.layers)
        if number > MAXIMUM_LAYERS:
            raise ConfigError(
                f"model.layers: expected at most {MAXIMUM_LAYERS} layers, got {number}"
            )
        if isinstance(self.layers, int):
            return (self._layer("model", LayerConfig()),) * self.layers
        if not self.layers:
            raise ConfigError("model.layers: expected at least one layer, got none")
        return tuple(
            self._layer(f"model.layers.{number}", layer) for number, layer in enumerate(self.layers)
        )

    def execution(self) -> Execution:
        """How the layers are computed.

        Raises:
          ConfigError: if there is no such strategy.
        """
        dtype = None if self.dtype == "float32" else self.dtype
        try:
            return Execution(self.strategy, self.remat, dtype)
        except ValueError as error:
            raise ConfigError(f"model.{error}") from error

    def _layer(self, key: str, layer: LayerConfig) -> Layer:
        def own(name: str) -> Any:
            value = getattr(layer, name)
            return getattr(self, name) if value is None else value

        name = own("cell")
        options = own("cell_options")
        if layer.cell not in (None, self.cell) and layer.cell_options is None:
            options = {}  # the options of the section are for another cell
        features = self.hidden if layer.features is None else layer.features
        cell = call_named(
            f"{key}.cell_options",
            look_up(f"{key}.cell", CELLS, name),
            name,
            options,
            features=features,
        )
        regularization = Regularization(
            recurrent_dropout=own("recurrent_dropout"),
            zoneout=tuple(sorted(own("zoneout").items())),
            weight_drop=own("weight_drop"),
        )
        return Layer(cell, regularization)
