"""Forecasting from end to end: train on a file of series, forecast them, measure the forecasts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from seqnets.baselines.series import seasonal_naive
from seqnets.checks import check_levels
from seqnets.config import HEADS, ForecastConfig, SeriesData, load, look_up
from seqnets.data.builtin.mauna_loa import mauna_loa
from seqnets.data.errors import DataError
from seqnets.data.series import Series, future_times, read_series, season_of
from seqnets.data.windows import SeriesWindows, Window, WindowShape
from seqnets.jobs.fingerprints import sums_of_files, sums_of_text
from seqnets.jobs.running import Trained, Work, evaluation_layout, layout_for, rows_of, run_job
from seqnets.metrics.series import evaluate_forecasts
from seqnets.modules import apply
from seqnets.reduction import Weighted
from seqnets.runs import RunDirectory
from seqnets.tasks.forecasting import Forecaster, forecasting_loss
from seqnets.training.checkpoint import CheckpointStore
from seqnets.training.loop import sums_to_host
from seqnets.training.processes import copy_of_lead, told_by_lead
from seqnets.typing import Array, PyTree

__all__ = [
    "ForecastRun",
    "evaluate_forecast",
    "forecast",
    "forecast_table",
    "load_forecast_run",
    "match_series",
    "read_or_builtin",
    "train_forecast",
]

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
ROWS = 128
VALIDATION_WINDOWS = 2048
CONTEXT = (64, 256)
NO_SEASON_HORIZON = 12


@dataclasses.dataclass(frozen=True)
class ForecastRun:
    """A trained forecaster, as read from a run directory."""

    config: ForecastConfig
    shape: WindowShape
    model: Forecaster
    params: PyTree


def train_forecast(
    config: ForecastConfig, out: str | Path, *, resume: bool = False, tensorboard: bool = False
) -> Trained:
    """Train a forecaster on a file of series, keeping everything in the directory ``out``.

    The last steps of every series, as many as are forecast, are held out for validation where
    the series are long enough for that.

    Raises:
      ValueError: if the series, the configuration or the directory cannot be used.
      NonFiniteError: if the loss stops being finite.
    """
    rows, seed, layout = config.train.batch_size, config.train.seed, layout_for(config.train)
    own = layout.rows(rows)
    config, windows, sums = _windows_of_lead(config)
    model, held_out = _model(config), _held_out(windows)
    example = windows.batch(0, 1, seed, held_out)
    work = Work(
        init=lambda key: model.init(key, example)["params"],
        carry=lambda params: (),
        loss_fn=forecasting_loss(model),
        batch=lambda k: windows.batch(k, rows, seed, held_out, own),
        evaluate=_validation(model, windows, held_out),
        metric="loss",
        layout=layout,
        data=sums,
    )
    return run_job(config, work, out, resume=resume, tensorboard=tensorboard)


def _windows_of_lead(
    config: ForecastConfig,
) -> tuple[ForecastConfig, SeriesWindows, dict[str, str]]:
    """The series, read by process 0, which tells all of them: a row may be of any.

    Returns:
      The configuration with the numbers that the series decide; the windows; and on process 0 the
      SHA-256 of what was read.

    Raises:
      DataError: on process 0, if the series cannot be read or are too short.
      LeadError: on the others, if it failed on process 0.
    """
    given = config

    def read_all() -> tuple[tuple[SeriesWindows, dict[str, str]], dict[str, Any]]:
        sums = sums_of_files([] if given.data.file is None else [given.data.file])
        series = read_or_builtin(given)
        sums = sums or sums_of_text("the CO2 record of Mauna Loa", *_in_words(series))
        resolved = _resolve(given, series)
        windows = SeriesWindows(series, _shape(resolved))
        # Raise here, where all are told, what they would raise later.
        windows.batch(0, 1, given.train.seed, _held_out(windows))
        told = {"data": dataclasses.asdict(resolved.data), "lengths": windows.lengths.tolist()}
        return (windows, sums), told

    read, about = told_by_lead(read_all)
    config = dataclasses.replace(config, data=SeriesData(**about["data"]))
    lengths = about["lengths"]
    values = copy_of_lead(read[0].values if read else np.empty(sum(lengths)))
    if read:
        return config, *read
    parts = np.split(values, np.cumsum(lengths)[:-1])
    series = [Series(f"{number}", part) for number, part in enumerate(parts)]
    return config, SeriesWindows(series, _shape(config)), {}


def _held_out(windows: SeriesWindows) -> int:
    """Steps at the end of every series for validation: as many as are forecast, or none."""
    horizon = windows.shape.horizon
    return horizon if windows.usable(horizon).size else 0


def read_or_builtin(config: ForecastConfig) -> list[Series]:
    """The configured series: those of the file, or the CO2 record of Mauna Loa.

    Raises:
      DataError: if the file cannot be read.
    """
    return mauna_loa() if config.data.file is None else read_series(config.data.file)


def load_forecast_run(path: str | Path) -> ForecastRun:
    """Read the best checkpoint of a run of `train_forecast`.

    Raises:
      ValueError: if the directory is not such a run, or holds no checkpoint that can be read.
    """
    run = RunDirectory.open(path)
    config = load(ForecastConfig, run.config_file)
    model, shape = _model(config), _shape(config)
    windows = SeriesWindows([Series("example", np.zeros(1), None, None)], shape)
    example = windows.windows(np.array([0]), np.array([1]))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), example)["params"])
    params = CheckpointStore(run.checkpoints).restore_best_params(like)
    return ForecastRun(config, shape, model, params)


def forecast(
    run: ForecastRun, series: Sequence[Series], levels: Sequence[float]
) -> list[np.ndarray]:
    """Quantiles of the steps after the end of each series.

    Args:
      run: the model.
      series: histories.
      levels: levels of the quantiles, increasing, in (0, 1).

    Returns:
      One array [H, Q] a series, in its units.

    Raises:
      ValueError: if the levels do not increase in (0, 1), or a series has no observed value.
    """
    check_levels("levels", levels)
    windows = SeriesWindows(series, run.shape)

    @jax.jit
    def raw_of(params: PyTree, window: Window) -> Array:
        return apply(run.model, params, window)

    forecasts: list[np.ndarray] = []
    for start in range(0, len(series), ROWS):
        rows = np.arange(start, min(start + ROWS, len(series)))
        cuts = windows.lengths[rows]
        window = rows_of(windows.windows(rows, cuts), slice(0, ROWS))
        raw = raw_of(run.params, window)[: len(rows)]
        forecasts.extend(windows.restore(rows, cuts, run.model.head.quantiles(raw, levels)))
    return forecasts


def forecast_table(
    series: Sequence[Series], quantiles: Sequence[np.ndarray], levels: Sequence[float]
) -> pd.DataFrame:
    """Forecasts in long form: a row for each series and step, a column ``q…`` for each level."""
    parts = []
    for one, values in zip(series, quantiles, strict=True):
        columns = {f"q{level:g}": values[:, i] for i, level in enumerate(levels)}
        times = future_times(one, len(values))
        parts.append(pd.DataFrame({"unique_id": one.id, "ds": times, **columns}))
    return pd.concat(parts, ignore_index=True)


def evaluate_forecast(
    run: ForecastRun, histories: Sequence[Series], futures: Sequence[Series]
) -> dict[str, Any]:
    """Errors of the forecasts beside those of seasonal naive.

    Args:
      run: the model.
      histories: the series up to the forecast.
      futures: what came then, matched by `match_series`; steps beyond the horizon are ignored.

    Returns:
      ``smape`` (per cent), ``mase``, ``weighted_quantile_loss``, ``coverage`` (of the central
      90 %), ``series``, ``horizon``, and the same errors under ``seasonal_naive``.

    Raises:
      DataError: if series do not match.
    """
    actuals = match_series(histories, futures, run.shape.horizon)
    past = [one.values for one in histories]
    season, horizon = run.shape.season, run.shape.horizon

    def errors(quantiles: Sequence[np.ndarray]) -> dict[str, float]:
        cut = [q[: len(actual)] for q, actual in zip(quantiles, actuals, strict=True)]
        return evaluate_forecasts(actuals, cut, LEVELS, past, season)

    naive = [seasonal_naive(values, horizon, season, LEVELS) for values in past]
    return {
        **errors(forecast(run, histories, LEVELS)),
        "series": len(histories),
        "horizon": horizon,
        "season": season,
        "seasonal_naive": errors(naive),
    }


def match_series(
    histories: Sequence[Series], futures: Sequence[Series], horizon: int
) -> list[np.ndarray]:
    """What came after each history, at most ``horizon`` steps; by identifier.

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
    return None if series.steps is None else series.steps[0]


def _in_words(series: Sequence[Series]) -> list[str]:
    """The series' values, to the last bit."""
    return [repr(one.values.tolist()) for one in series]


def _resolve(config: ForecastConfig, series: Sequence[Series]) -> ForecastConfig:
    """The configuration with horizon, season and context as numbers."""
    data = config.data
    season = data.season or season_of(series[0].frequency) or 1
    horizon = data.horizon or (season if season > 1 else NO_SEASON_HORIZON)
    context = data.context or int(np.clip(data.profile * season, *CONTEXT))
    data = dataclasses.replace(data, season=season, horizon=horizon, context=context)
    return dataclasses.replace(config, data=data)


def _shape(config: ForecastConfig) -> WindowShape:
    data = config.data
    if data.context is None or data.horizon is None or data.season is None:
        raise DataError("data.horizon, data.season, data.context: expected numbers, got none")
    return WindowShape(data.context, data.horizon, data.season, data.profile)


def _model(config: ForecastConfig) -> Forecaster:
    return Forecaster(
        cells=config.model.cells(),
        head=look_up("model.head", HEADS, config.model.head)(),
        **config.model.recurrence(),
    )


def _validation(
    model: Forecaster, windows: SeriesWindows, held_out: int
) -> Callable[[PyTree], dict[str, Weighted]]:
    """Sums of the loss over this process's share of the held-out ends.

    Where there are very many series, of a fixed sample of them.
    """
    usable = windows.usable(0)
    chosen = np.random.default_rng(0).permutation(usable)[:VALIDATION_WINDOWS]
    chosen = np.sort(chosen)
    cuts = windows.lengths[chosen] - windows.shape.horizon
    layout, share = evaluation_layout(ROWS)
    step = layout.evaluation_step(forecasting_loss(model))
    batches = [
        layout.split(rows_of(windows.windows(chosen[i : i + ROWS], cuts[i : i + ROWS]), share))
        for i in range(0, len(chosen), ROWS)
    ]

    def evaluate(params: PyTree) -> dict[str, Weighted]:
        return sums_to_host([step(params, (), batch)[1] for batch in batches])

    return evaluate
