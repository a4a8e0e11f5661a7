"""Plots of forecasts, with matplotlib (the extra ``plot``)."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.checks import check_shape
from seqnets.data.errors import DataError
from seqnets.data.files import check_output, write_file
from seqnets.data.series import Series, future_times
from seqnets.extras import require
from seqnets.files import is_special
from seqnets.typing import Float

__all__ = ["BANDS", "check_picture", "plot_forecasts"]

BANDS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantile levels of a plot: the median and the central 50% and 90% intervals."""

FORMATS = ("png", "svg", "pdf", "jpg", "jpeg", "webp", "tif", "tiff", "eps", "ps")
MOST = 6
COLUMNS = 2
COLOR = "tab:blue"


def plot_forecasts(
    path: str | Path,
    series: Sequence[Series],
    quantiles: Sequence[Float[np.ndarray, "H Q"]],
    actuals: Sequence[Float[np.ndarray, " H"]] | None = None,
) -> None:
    """Plot the end of each history, the median forecast, and bands of 50% and 90%.

    Args:
      path: file to write; its suffix gives the format: png, svg, pdf, jpg, jpeg, webp, tif, tiff,
        eps, or ps.
      series: histories; of more than six, six evenly spaced ones are drawn.
      quantiles: one [H, 5] array per series, the forecasts at the levels `BANDS`.
      actuals: one array per series with the actual values, at most H; None draws none.

    Raises:
      ImportError: if matplotlib is not installed; the message names the extra.
      ValueError: if the quantiles of a series are not [H, 5].
      DataError: if the suffix is not an image format, or the file cannot be written.
    """
    for number, forecast in enumerate(quantiles):
        expected = (np.shape(forecast)[0] if np.ndim(forecast) else 0, len(BANDS))
        check_shape(f"quantiles[{number}]", forecast, expected, "the levels of BANDS")
    picture_format = check_picture(str(path), path)
    require("matplotlib", extra="plot")
    from matplotlib.figure import Figure

    chosen = np.unique(np.linspace(0, len(series) - 1, min(MOST, len(series))).round().astype(int))
    columns = min(COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(12 / (3 - columns) ** 0.2, 3.4 * rows), layout="constrained")
    for place, number in enumerate(chosen, 1):
        axes = figure.add_subplot(rows, columns, place)
        actual = None if actuals is None else actuals[number]
        _draw(axes, series[number], quantiles[number], actual)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format=picture_format, dpi=120)
    write_file(path, picture.getvalue())


def check_picture(name: str, path: str | Path) -> str:
    """The image format for a file, from its suffix; png for a device such as ``/dev/stdout``.

    Args:
      name: name of the argument, or the path, with which error messages start.
      path: file to write.

    Returns:
      The format, such as ``"png"``.

    Raises:
      DataError: if the suffix is not an image format, or the file cannot be written.
    """
    ending = Path(path).suffix[1:].lower()
    if ending not in FORMATS and not is_special(path):
        raise DataError(
            f"{name}: expected a file that ends in .{', .'.join(FORMATS)}, got {str(path)!r}"
        )
    check_output(name, path)
    return ending if ending in FORMATS else "png"


def _draw(axes: Any, one: Series, quantiles: np.ndarray, actual: np.ndarray | None) -> None:
    horizon = len(quantiles)
    shown = min(len(one.values), max(4 * horizon, 60))
    past = np.arange(len(one.values)) if one.times is None else one.times
    future = future_times(one, horizon)
    low, lower, median, upper, high = quantiles.T
    axes.plot(past[-shown:], one.values[-shown:], color="black", linewidth=1, label="history")
    axes.fill_between(future, low, high, color=COLOR, alpha=0.2, linewidth=0, label="90%")
    axes.fill_between(future, lower, upper, color=COLOR, alpha=0.35, linewidth=0, label="50%")
    axes.plot(future, median, color=COLOR, linewidth=1.5, label="median")
    if actual is not None:
        axes.plot(future[: len(actual)], actual, "k:", linewidth=1, label="actual")
    axes.set_title(one.id)
    axes.margins(x=0.01)
    axes.grid(alpha=0.25)
