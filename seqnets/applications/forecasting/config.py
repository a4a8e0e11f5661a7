"""The configuration of a forecaster."""

from __future__ import annotations

import dataclasses

from seqnets.config import Fraction, Positive, field
from seqnets.modules.config import RecurrentConfig
from seqnets.optimizers.config import OptimizerConfig
from seqnets.training.config import TrainConfig

__all__ = ["ForecastConfig", "ForecastModel", "SeriesData"]


@dataclasses.dataclass(frozen=True)
class SeriesData:
    """What series are read, and what is forecast.

    Attributes:
      file: a file that `seqnets.data.read_series` reads; none for the CO2 record of Mauna Loa.
      horizon: time steps to forecast H; none: one season, or 12 where there is no season.
      season: length of a season m, in time steps; none: taken from the dates, else 1.
      context: time steps of the past that are read; none: ``profile`` seasons, but 64 to 256.
      profile: earlier seasons whose value of the same phase is shown for each time step to come.
    """

    file: str | None = field(None, may_change=True, may_differ=True, keyword=None)
    horizon: Positive | None = None
    season: Positive | None = None
    context: Positive | None = None
    profile: Positive = 7


@dataclasses.dataclass(frozen=True)
class ForecastModel(RecurrentConfig):
    """A recurrent encoder and decoder.

    Attributes:
      head: a key of `seqnets.heads.HEADS`, the output distribution.
    """

    dropout: Fraction = 0.3
    head: str = "quantile"


@dataclasses.dataclass(frozen=True)
class ForecastConfig:
    """A run of ``seqnets forecast train``; its defaults are the preset ``default``."""

    data: SeriesData = SeriesData()
    model: ForecastModel = ForecastModel()
    optimizer: OptimizerConfig = OptimizerConfig(weight_decay=1e-3)
    train: TrainConfig = TrainConfig(
        batch_size=64, steps=1500, evaluate_every=100, checkpoint_every=100
    )
