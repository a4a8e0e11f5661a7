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
from seqnets.checks import check_levels
from seqnets.data.checksums import checksum_of_series
from seqnets.data.errors import DataError
from seqnets.data.frames import series_from_frame
from seqnets.data.series import Series

__all__ = ["Forecaster"]


class Forecaster(Estimator[pd.DataFrame, FittedForecaster]):
    """A recurrent forecaster of many series at once, with calibrated quantiles.

    Without keywords it is the preset ``default`` of ``seqnets forecast train``: season and horizon
    follow from the dates.

    It is fitted to a frame in long form: columns (or index levels) ``unique_id``, ``ds``, and
    ``y``, as are all frames that it takes.

    Args:
      **keywords: fields of the sections of
        `seqnets.applications.forecasting.config.ForecastConfig`; ``horizon`` and ``season`` are
        numbers of time steps.

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
        """Forecast what follows each series.

        Args:
          frame: histories in long form; None for the series that were fitted.
          levels: levels of the quantiles, in (0, 1), in any order.

        Returns:
          A frame with the columns ``unique_id``, ``ds``, and one per level, ascending, named
          ``str(level)``; a row for each series and time step.

        Raises:
          NotFittedError: if nothing was fitted.
          ValueError: if a level is not in (0, 1), or the frame cannot be read as series.
        """
        ascending = check_levels("levels", np.sort(np.asarray(levels, np.float64))).tolist()
        series = self._histories(frame)
        return forecast_frame(
            series, self.fitted.predict(series, ascending), list(map(str, ascending))
        )

    def score(self, actual: pd.DataFrame, frame: pd.DataFrame | None = None) -> dict[str, Any]:
        """Errors of the forecasts beside those of seasonal naive, as ``evaluate`` prints them.

        Args:
          actual: what followed the series, in long form.
          frame: the histories; None for the series that were fitted.

        Raises:
          NotFittedError: if nothing was fitted.
          DataError: if histories and actual values do not match.
        """
        histories = self._histories(frame)
        return self.fitted.evaluate(histories, series_from_frame(actual, shortest=1))

    def _histories(self, frame: pd.DataFrame | None) -> Sequence[Series]:
        if frame is not None:
            return series_from_frame(frame)
        if self.fitted.series is None:
            raise DataError(
                "frame: expected series, since this forecaster was loaded from a run that does not "
                "hold those that it was fitted to"
            )
        return self.fitted.series

    def _further_files(self) -> dict[str, str]:
        """The series that were fitted, so that a loaded forecaster predicts without a frame."""
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
