"""Forecasting as an application: preparing a run, and using a fitted forecaster."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from seqnets.applications.application import Model, Work
from seqnets.applications.forecasting.config import ForecastConfig
from seqnets.applications.forecasting.data import (
    ROWS,
    Histories,
    held_out,
    read_histories,
    validation_windows,
    window_shape,
    windows_of_lead,
)
from seqnets.applications.forecasting.network import ForecastNetwork
from seqnets.applications.forecasting.objective import forecasting_loss
from seqnets.baselines.series import seasonal_naive
from seqnets.checks import check_levels
from seqnets.config import look_up
from seqnets.data.errors import DataError
from seqnets.data.series import Series, future_times, read_series
from seqnets.data.source import rows_of
from seqnets.data.windows import SeriesWindows, Window, WindowShape, WindowSource
from seqnets.devices import data_parallel
from seqnets.heads import HEADS
from seqnets.metrics.series import evaluate_forecasts
from seqnets.modules import apply
from seqnets.runs import RunDirectory
from seqnets.training import LossEvaluation, Weights, make_train_step
from seqnets.typing import Array, Float, Key, PyTree

__all__ = ["FORECASTING", "FittedForecaster", "Forecasting", "forecast_frame", "match_series"]

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SERIES_FILE = "series.csv"


@dataclasses.dataclass(frozen=True)
class FittedForecaster:
    """A forecaster with its weights, for predicting and evaluating."""

    shape: WindowShape
    network: ForecastNetwork
    weights: Weights
    series: Sequence[Series] | None = None
    """The series of the fit, if available."""

    @np.errstate(all="ignore")  # non-finite forecasts raise an error at the end
    def predict(
        self, series: Sequence[Series], levels: Sequence[float]
    ) -> list[Float[np.ndarray, "H Q"]]:
        """Forecast the next H values of each series.

        Args:
          series: series so far.
          levels: Q increasing levels of the quantiles, in (0, 1).

        Returns:
          Quantiles [H, Q] of each series, in its units.

        Raises:
          ValueError: if the levels are not increasing and in (0, 1), a series has no observed
            value, or a forecast is not finite.
        """
        levels = tuple(check_levels("levels", levels).tolist())
        windows = SeriesWindows(series, self.shape)
        forecasts: list[np.ndarray] = []
        for start in range(0, len(series), ROWS):
            rows = np.arange(start, min(start + ROWS, len(series)))
            cuts = windows.lengths[rows]
            window = rows_of(windows.windows(rows, cuts), slice(0, ROWS))
            quantiles = _quantiles(self.network, levels, self.weights.params, window)
            forecasts.extend(windows.restore(rows, cuts, np.asarray(quantiles)[: len(rows)]))
        _check_finite(series, forecasts)
        return forecasts

    def evaluate(self, histories: Sequence[Series], futures: Sequence[Series]) -> dict[str, Any]:
        """Compare forecasts with the values that followed.

        Args:
          histories: series so far.
          futures: values that followed, with the same identifiers; values beyond the horizon are
            ignored.

        Returns:
          ``smape`` (in percent), ``mase``, ``weighted_quantile_loss``, ``coverage`` of the central
          90% interval, the numbers ``series``, ``horizon``, and ``season``, and
          ``seasonal_naive``, a dict of the errors of the seasonal naive forecast.

        Raises:
          DataError: if a future is missing or does not start where its history ends.
          ValueError: as for `predict`.
        """
        season, horizon = self.shape.season, self.shape.horizon
        actuals = match_series(histories, futures, horizon)
        past = [one.values for one in histories]

        def errors(quantiles: Sequence[np.ndarray]) -> dict[str, float]:
            cut = [q[: len(actual)] for q, actual in zip(quantiles, actuals, strict=True)]
            return evaluate_forecasts(actuals, cut, LEVELS, past, season)

        naive = [seasonal_naive(values, horizon, season, LEVELS) for values in past]
        return {
            **errors(self.predict(histories, LEVELS)),
            "series": len(histories),
            "horizon": horizon,
            "season": season,
            "seasonal_naive": errors(naive),
        }


class Forecasting:
    """The application; see `seqnets.applications.application.Application`."""

    config = ForecastConfig
    files = (SERIES_FILE,)

    def read(self, config: ForecastConfig) -> Histories:
        """Read the configured file, or the built-in series."""
        return read_histories(config)

    def prepare(
        self, config: ForecastConfig, read: Callable[[], Histories]
    ) -> Work[FittedForecaster]:
        """Prepare training on windows of the series at random cuts.

        The last H time steps of every series are held out for validation, if any series is long
        enough.
        """
        train = config.train
        layout = data_parallel([train.batch_size], shard_optimizer=train.shard_optimizer)
        config, windows, histories = windows_of_lead(config, read, layout.peers)
        network, last = _network(config), held_out(windows)
        validation = functools.cache(functools.partial(validation_windows, windows))
        loss_fn = forecasting_loss(network)
        return Work(
            config=config,
            model=_model(network, windows.shape, histories and histories.series),
            step=make_train_step(loss_fn, config.optimizer.build(), accumulate=train.accumulate),
            source=WindowSource(
                windows, batch_size=train.batch_size, seed=train.seed, held_out=last
            ),
            evaluation=LossEvaluation(loss_fn, validation, rows=ROWS, layout=layout),
            layout=layout,
            checksums=histories.checksums if histories else {},
        )

    def restore(self, config: ForecastConfig, run: RunDirectory) -> Model[FittedForecaster]:
        """The model of a run directory."""
        file = run.path / SERIES_FILE
        series = read_series(file, shortest=1) if file.exists() else None
        return _model(_network(config), window_shape(config), series)


FORECASTING = Forecasting()


def forecast_frame(
    series: Sequence[Series],
    quantiles: Sequence[Float[np.ndarray, "H Q"]],
    names: Sequence[str],
) -> pd.DataFrame:
    """Convert forecasts to the long layout: ``unique_id``, ``ds``, and a column per quantile.

    Args:
      series: series so far.
      quantiles: [H, Q] forecasts of each series.
      names: names of the Q columns.
    """
    parts = []
    for one, values in zip(series, quantiles, strict=True):
        columns = {name: values[:, i] for i, name in enumerate(names)}
        times = future_times(one, len(values))
        parts.append(pd.DataFrame({"unique_id": one.id, "ds": times, **columns}))
    return pd.concat(parts, ignore_index=True)


def _check_finite(series: Sequence[Series], forecasts: Sequence[np.ndarray]) -> None:
    for one, quantiles in zip(series, forecasts, strict=True):
        if not np.isfinite(quantiles).all():
            raise DataError(
                f"series {one.id!r}: the forecasts are not finite; its values may be too large or "
                "differ too much in size, or the model may be invalid"
            )


def match_series(
    histories: Sequence[Series], futures: Sequence[Series], horizon: int
) -> list[Float[np.ndarray, "H"]]:
    """The values that followed each history, at most ``horizon`` of them, matched by identifier.

    A single history and a single future match whatever their identifiers.

    Raises:
      DataError: if a future is missing, or does not start where its history ends.
    """
    if len(histories) == len(futures) == 1:
        found = {histories[0].id: futures[0]}
    else:
        found = {one.id: one for one in futures}
    actuals = []
    for history in histories:
        future = found.get(history.id)
        if future is None:
            raise DataError(f"series {history.id!r}: missing from the actual values")
        expected, begin = future_times(history, 1)[0], _first_time(future)
        if begin is not None and begin != expected:
            raise DataError(
                f"series {history.id!r}: expected actual values from {expected}, right after the "
                f"history, got values from {begin}"
            )
        actuals.append(future.values[:horizon])
    return actuals


def _first_time(series: Series) -> pd.Timestamp | int | None:
    """The time of the first value; None without times."""
    if series.times is not None:
        return series.times[0]
    return None if series.ticks is None else series.ticks[0]


@jax.jit(static_argnums=(0, 1))
def _quantiles(
    network: ForecastNetwork, levels: tuple[float, ...], params: PyTree, window: Window
) -> Float[Array, "B H Q"]:
    """Quantiles of windows in units of their targets; one program for any number of series."""
    return network.head.quantiles(apply(network, params, window), levels)


def _network(config: ForecastConfig) -> ForecastNetwork:
    model = config.model
    return ForecastNetwork(
        layers=model.build_layers(),
        head=look_up("model.head", HEADS, model.head)(),
        dropout=model.dropout,
        variational=model.variational,
        execution=model.execution(),
    )


def _model(
    network: ForecastNetwork, shape: WindowShape, series: Sequence[Series] | None
) -> Model[FittedForecaster]:
    def init(key: Key) -> PyTree:
        example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape.shapes(1))
        return network.init(key, example)["params"]

    return Model(
        init=init,
        fitted=lambda weights: FittedForecaster(shape, network, weights, series),
    )
