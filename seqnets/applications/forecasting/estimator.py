"""Forecasting for data in memory: a pandas frame in, a frame of quantiles out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from seqnets.applications.estimator import Estimator
from seqnets.applications.forecasting.data import Histories
from seqnets.applications.forecasting.forecasting import (
    FORECASTING,
    SERIES_FILE,
    FittedForecaster,
    forecast_frame,
)
from seqnets.checks import check_levels, check_rank
from seqnets.data.checksums import checksum_of_series
from seqnets.data.errors import DataError
from seqnets.data.frames import series_from_frame
from seqnets.data.series import Series

__all__ = ["Forecaster"]


class Forecaster(Estimator[pd.DataFrame, FittedForecaster]):
    """A recurrent forecaster of many series at once that predicts quantiles.

    Without keywords, it has the configuration of ``seqnets forecast train default``, where season
    and horizon follow from the dates.

    All frames have the long layout: columns or index levels ``unique_id``, ``ds``, and ``y``; see
    `seqnets.data.series_from_frame`.

    Args:
      **keywords: fields of the sections of
        `seqnets.applications.forecasting.config.ForecastConfig`; ``horizon`` and ``season`` are
        numbers of time steps.

    Raises:
      ConfigError: if a keyword does not exist, or its value has a wrong type or is out of range.

    Example:
      >>> import pandas as pd
      >>> days = pd.date_range("2024-01-01", periods=60)
      >>> frame = pd.DataFrame({"unique_id": "a", "ds": days, "y": range(60)})
      >>> forecaster = Forecaster(horizon=3, hidden=4).fit(frame, steps=2)
      >>> forecaster.predict(levels=(0.1, 0.5, 0.9)).columns.tolist()
      ['unique_id', 'ds', '0.1', '0.5', '0.9']
    """

    application = FORECASTING

    def _reader(self, data: pd.DataFrame) -> Callable[[], Histories]:
        series = series_from_frame(data)
        return lambda: Histories(series, {"frame": checksum_of_series(series)})

    def predict(
        self, frame: pd.DataFrame | None = None, levels: Sequence[float] = (0.1, 0.5, 0.9)
    ) -> pd.DataFrame:
        """Forecast the next values of each series.

        Args:
          frame: series so far, in the long layout; None for the series of the last fit.
          levels: distinct levels of the quantiles, in (0, 1), in any order.

        Returns:
          A frame with the columns ``unique_id``, ``ds``, and one per level, ascending, named
          ``str(level)``, and one row per series and time step.

        Raises:
          NotFittedError: if the forecaster is not fitted.
          TypeError: if ``frame`` is not a pandas frame.
          ValueError: if the levels are not distinct and in (0, 1), the frame is not valid, or a
            forecast is not finite.
        """
        check_rank("levels", levels, 1, "Q")
        ascending = check_levels("levels", np.sort(np.asarray(levels, np.float64))).tolist()
        series = self._histories(frame)
        return forecast_frame(
            series, self.fitted.predict(series, ascending), list(map(str, ascending))
        )

    def score(self, actual: pd.DataFrame, frame: pd.DataFrame | None = None) -> dict[str, Any]:
        """Compare forecasts with the values that followed, as the command ``evaluate`` does.

        Args:
          actual: values that followed the series, in the long layout.
          frame: series so far, in the long layout; None for the series of the last fit.

        Returns:
          ``smape``, ``mase``, ``weighted_quantile_loss``, ``coverage``, and others; see
          `seqnets.applications.forecasting.forecasting.FittedForecaster.evaluate`.

        Raises:
          NotFittedError: if the forecaster is not fitted.
          TypeError: if a frame is not a pandas frame.
          DataError: if a frame is not valid, or the actual values do not follow the series.
        """
        histories = self._histories(frame)
        return self.fitted.evaluate(histories, series_from_frame(actual, shortest=1))

    def _histories(self, frame: pd.DataFrame | None) -> Sequence[Series]:
        if frame is not None:
            return series_from_frame(frame)
        if self.fitted.series is None:
            raise DataError(
                "frame: expected series, since this forecaster was loaded from a run without the "
                "series of its fit"
            )
        return self.fitted.series

    def _further_files(self) -> dict[str, str]:
        """The series of the fit, so that a loaded forecaster can predict without a frame."""
        series = self.fitted.series
        if series is None:
            return {}
        parts = [
            pd.DataFrame(
                {
                    "unique_id": one.id,
                    "ds": one.times if one.times is not None else list(one.ticks or ()),
                    "y": one.values,
                }
            )
            for one in series
        ]
        return {SERIES_FILE: pd.concat(parts).to_csv(index=False)}
