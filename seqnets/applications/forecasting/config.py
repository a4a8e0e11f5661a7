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
    """The series to train on, and the sizes of windows in time steps.

    Attributes:
      file: file for `seqnets.data.read_series`; None for the CO2 record of Mauna Loa.
      horizon: number H of time steps to forecast; None for one season, or 12 without seasonality.
      season: seasonal period m; None for that of the dates, or 1 if the dates have none.
      context: number W of past time steps that are read; None for ``profile`` seasons, but at
        least 64 and at most 256.
      profile: number K of earlier seasons whose values of the same phase are features of each
        future time step.
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
      head: key of `seqnets.heads.HEADS`, the output distribution.
    """

    dropout: Fraction = 0.3
    head: str = "quantile"


@dataclasses.dataclass(frozen=True)
class ForecastConfig:
    """Configuration of ``seqnets forecast train``; its defaults are the preset ``default``."""

    data: SeriesData = SeriesData()
    model: ForecastModel = ForecastModel()
    optimizer: OptimizerConfig = OptimizerConfig(weight_decay=1e-3)
    train: TrainConfig = TrainConfig(
        batch_size=64, steps=1500, evaluate_every=100, checkpoint_every=100
    )
