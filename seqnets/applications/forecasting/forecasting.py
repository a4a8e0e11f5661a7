"""Forecasting as an application: what a run needs, and what a fitted forecaster can do."""

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
    """A forecaster with its weights: it predicts what follows series, and measures itself."""

    shape: WindowShape
    network: ForecastNetwork
    weights: Weights
    series: Sequence[Series] | None = None
    """Those that it was fitted to, where they are at hand."""

    @np.errstate(all="ignore")  # what is not finite is told in the end
    def predict(
        self, series: Sequence[Series], levels: Sequence[float]
    ) -> list[Float[np.ndarray, "H Q"]]:
        """Quantiles of the time steps after the end of each series, in its units.

        Args:
          series: histories.
          levels: levels of the quantiles, increasing, in (0, 1).

        Raises:
          ValueError: if the levels do not increase in (0, 1), a series has no observed value, or
            its forecasts are not finite.
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
        """Errors of the forecasts beside those of seasonal naive.

        Args:
          histories: the series up to the forecast.
          futures: what followed, matched by `match_series`; time steps beyond the horizon are
            ignored.

        Returns:
          ``smape`` (percent), ``mase``, ``weighted_quantile_loss``, ``coverage`` (of the central
          90 %), ``series``, ``horizon``, ``season``, and under ``seasonal_naive`` the errors of
          that forecast.
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
        """The configured file, or the built-in series."""
        return read_histories(config)

    def prepare(
        self, config: ForecastConfig, read: Callable[[], Histories]
    ) -> Work[FittedForecaster]:
        """A network trained on windows of the series at random cuts.

        The last time steps of every series, as many as are forecast, are held out for validation
        if the series are long enough for that.
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
    """Forecasts in long form: ``unique_id``, ``ds``, and a column for each quantile.

    Args:
      series: the histories.
      quantiles: forecasts of each.
      names: of the columns, Q of them.
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
                f"series {one.id!r}: the forecasts are not finite: its values are too large or "
                "differ too much in size, or the model is broken"
            )


def match_series(
    histories: Sequence[Series], futures: Sequence[Series], horizon: int
) -> list[Float[np.ndarray, "H"]]:
    """What followed each history, at most ``horizon`` time steps; by identifier.

    A single history and a single future belong together whatever they are called.

    Raises:
      DataError: if a future is missing, or does not begin where its history ends.
    """
    if len(histories) == len(futures) == 1:
        found = {histories[0].id: futures[0]}
    else:
        found = {one.id: one for one in futures}
    actuals = []
    for history in histories:
        future = found.get(history.id)
        if future is None:
            raise DataError(f"series {history.id!r}: not among the actual values")
        expected, begin = future_times(history, 1)[0], _first_time(future)
        if begin is not None and begin != expected:
            raise DataError(
                f"series {history.id!r}: actual values must begin at {expected}, the step after "
                f"the history, and begin at {begin}"
            )
        actuals.append(future.values[:horizon])
    return actuals


def _first_time(series: Series) -> pd.Timestamp | int | None:
    """The time of the first value, where the file has times."""
    if series.times is not None:
        return series.times[0]
    return None if series.ticks is None else series.ticks[0]


@jax.jit(static_argnums=(0, 1))
def _quantiles(
    network: ForecastNetwork, levels: tuple[float, ...], params: PyTree, window: Window
) -> Float[Array, "B H Q"]:
    """Quantiles of windows, in units of their scales; one program for any number of series."""
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
