"""The series of a run, read by process 0, which sends all of them to all processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from seqnets.applications.forecasting.config import ForecastConfig, SeriesData
from seqnets.data.builtin.mauna_loa import mauna_loa
from seqnets.data.checksums import checksum_of_series
from seqnets.data.errors import DataError
from seqnets.data.series import Series, read_series, season_of
from seqnets.data.source import Share, rows_of
from seqnets.data.windows import SeriesWindows, Window, WindowShape

__all__ = [
    "ROWS",
    "Histories",
    "held_out",
    "read_histories",
    "validation_windows",
    "window_shape",
    "windows_of_lead",
]

CONTEXT = (64, 256)
NO_SEASON_HORIZON = 12
ROWS = 128  # windows evaluated or predicted at once
VALIDATION_WINDOWS = 2048


class Histories(NamedTuple):
    """Series to train on, and their checksum."""

    series: Sequence[Series]
    checksums: Mapping[str, str]
    """SHA-256 by a name for messages."""


def read_histories(config: ForecastConfig) -> Histories:
    """Read the configured file, or the CO2 record of Mauna Loa.

    Raises:
      DataError: if the file cannot be read.
    """
    file = config.data.file
    series = mauna_loa() if file is None else read_series(file)
    name = "the CO2 record of Mauna Loa" if file is None else str(file)
    return Histories(series, {name: checksum_of_series(series)})


def windows_of_lead(
    config: ForecastConfig, read: Callable[[], Histories], peers: Any
) -> tuple[ForecastConfig, SeriesWindows, Histories | None]:
    """Read the series on process 0, and make their windows on all processes.

    Every process needs all series, since a row may be of any series.

    Args:
      config: configuration of the run.
      read: returns the series.
      peers: the processes.

    Returns:
      The configuration with the sizes that depend on the series; the windows; and the series on
      process 0, None on the others.

    Raises:
      DataError: on process 0, if the series cannot be read or are too short.
      LeadError: on the others, if process 0 failed.
    """

    def read_all() -> tuple[tuple[SeriesWindows, Histories], dict[str, Any]]:
        histories = read()
        resolved = _resolved(config, histories.series)
        windows = SeriesWindows(histories.series, window_shape(resolved))
        windows.check_usable(held_out(windows))  # raise here, where all processes learn of it
        told = {"data": dataclasses.asdict(resolved.data), "lengths": windows.lengths.tolist()}
        return (windows, histories), told

    kept, about = peers.broadcast(read_all)
    config = dataclasses.replace(config, data=SeriesData(**about["data"]))
    lengths = about["lengths"]
    values = peers.broadcast_arrays(kept[0].values if kept else np.empty(sum(lengths)))
    if kept:
        return config, *kept
    parts = np.split(values, np.cumsum(lengths)[:-1])
    series = [Series(f"{number}", part) for number, part in enumerate(parts)]
    return config, SeriesWindows(series, window_shape(config)), None


def held_out(windows: SeriesWindows) -> int:
    """Number of time steps held out at the end of every series: the horizon, or 0 if too short."""
    horizon = windows.shape.horizon
    return horizon if windows.usable(horizon).size else 0


def validation_windows(windows: SeriesWindows, share: Share) -> list[Window]:
    """Batches of the last window of every series, or of a fixed sample of 2048 series.

    Args:
      windows: windows of the series.
      share: which rows of each batch.
    """
    usable = windows.usable(0)
    chosen = np.sort(np.random.default_rng(0).permutation(usable)[:VALIDATION_WINDOWS])
    cuts = windows.lengths[chosen] - windows.shape.horizon
    batches = [
        windows.windows(chosen[i : i + ROWS], cuts[i : i + ROWS])
        for i in range(0, len(chosen), ROWS)
    ]
    return [rows_of(window, share.rows(ROWS)) for window in batches]


def window_shape(config: ForecastConfig) -> WindowShape:
    """The sizes of windows, from a resolved configuration.

    Raises:
      DataError: if the configuration is not resolved.
    """
    data = config.data
    if data.context is None or data.horizon is None or data.season is None:
        raise DataError("data.horizon, data.season, data.context: expected numbers, got none")
    return WindowShape(data.context, data.horizon, data.season, data.profile)


def _resolved(config: ForecastConfig, series: Sequence[Series]) -> ForecastConfig:
    """The configuration with horizon, season, and context set to numbers."""
    if not series:
        raise DataError("series: expected at least one, got none")
    data = config.data
    season = data.season or season_of(series[0].frequency) or 1
    horizon = data.horizon or (season if season > 1 else NO_SEASON_HORIZON)
    context = data.context or int(np.clip(data.profile * season, *CONTEXT))
    data = dataclasses.replace(data, season=season, horizon=horizon, context=context)
    return dataclasses.replace(config, data=data)
