"""Windows of many series: the inputs and targets of a forecaster.

A window at the cut ``t`` of a series ``y`` with seasonal period ``m`` represents ``y[t : t + H]``
by deviations from the seasonal naive forecast, in units of the mean seasonal change so far:

    base_h  = y[t - m + h mod m]                    the newest value of the same phase
    scale   = mean |y_i - y_{i-m}|, i < t           the denominator of MASE at the cut
    target  = (y_{t+h} - base_h) / scale

The target 0 is the seasonal naive forecast, and all series have equal weight whatever their units.
Inputs and scale depend only on values before the cut, in training as in forecasting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from seqnets.checks import check_range
from seqnets.data.errors import DataError
from seqnets.data.series import Series
from seqnets.data.source import WHOLE, Share
from seqnets.typing import Float, Int

__all__ = ["SeriesWindows", "Window", "WindowShape", "WindowSource"]

FAR = 8.0  # features beyond this many units are compressed logarithmically
LARGEST_TARGET = 100.0  # targets are clipped to this size, beyond which the scale is meaningless


class Window(NamedTuple):
    """A batch of windows, NumPy or JAX arrays; padded and missing time steps hold zeros."""

    past: Any
    """[B, W, 3] float32: standardized value, seasonal change, and 1 if the value was observed."""
    past_mask: Any
    """[B, W] bool, False before the start of the series."""
    future: Any
    """[B, H, K + 3] float32: known features of the future (see `WindowShape.profile`)."""
    target: Any
    """[B, H] float32, in units of ``scale`` from ``base``, within ±``LARGEST_TARGET``."""
    weight: Any
    """[B, H] float32: 1 where the target is observed, else 0."""


@dataclasses.dataclass(frozen=True)
class WindowShape:
    """Sizes of a window, in time steps.

    Attributes:
      context: number W of past time steps that are read.
      horizon: number H of time steps to forecast.
      season: seasonal period m, 1 without seasonality.
      profile: number K of earlier seasons whose values of the same phase are features of each
        future time step; 7 with a season of 24 hours covers a week.

    Raises:
      ValueError: if a size is below 1.
    """

    context: int
    horizon: int
    season: int
    profile: int

    def __post_init__(self) -> None:
        """Reject sizes below 1."""
        for name in ("context", "horizon", "season", "profile"):
            check_range(name, getattr(self, name), 1)

    def shapes(self, rows: int) -> Window:
        """Shapes of ``rows`` windows, as `jax.ShapeDtypeStruct`."""
        W, H, K = self.context, self.horizon, self.profile
        sizes = ((W, 3), (W,), (H, K + 3), (H,), (H,))
        dtypes = (np.float32, np.bool_, np.float32, np.float32, np.float32)
        return Window(*map(jax.ShapeDtypeStruct, ((rows, *size) for size in sizes), dtypes))


class SeriesWindows:
    """Windows of several series at any cut.

    Missing values before the first observed value of a series are dropped, so that at least one
    value is known before every cut.

    Args:
      series: the series, each with at least one observed value.
      shape: sizes of the windows.

    Attributes:
      shape: sizes of the windows.
      values: float64, the concatenated values of all series.

    Raises:
      DataError: if there is no series, or one has no observed value.
    """

    def __init__(self, series: Sequence[Series], shape: WindowShape) -> None:
        if not series:
            raise DataError("series: expected at least one, got none")
        self.shape = shape
        begun = [_begun(one) for one in series]
        lengths = np.array([len(values) for values in begun])
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        self.values = np.concatenate(begun)
        self._filled = np.concatenate([_fill(values, shape.season) for values in begun])
        self._scales = np.concatenate([_scales(values, shape.season) for values in begun])

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """[n] number of time steps of each series, from its first observed value."""
        return self._ends - self._starts

    def check_usable(self, held_out: int) -> Int[np.ndarray, " n"]:
        """Return `usable`, which must not be empty.

        Raises:
          DataError: if no series is long enough for a window.
        """
        usable = self.usable(held_out)
        if not usable.size:
            raise DataError(
                f"no series is long enough: a window needs {self.first_cut} past time steps and "
                f"{self.shape.horizon} to forecast, but the longest series has "
                f"{self.lengths.max()}; try a smaller horizon or season"
            )
        return usable

    def usable(self, held_out: int) -> Int[np.ndarray, " n"]:
        """Find the series that are long enough for a window.

        Args:
          held_out: number of time steps at the end of every series that the window must not use.

        Returns:
          [n] indices of series.
        """
        needed = self.first_cut + self.shape.horizon + held_out
        return np.flatnonzero(self.lengths >= needed)

    @property
    def first_cut(self) -> int:
        """The first time step that may be a cut."""
        return min(self.shape.season, self.shape.context) + 1

    def windows(self, rows: Int[np.ndarray, " B"], cuts: Int[np.ndarray, " B"]) -> Window:
        """Compute windows.

        Args:
          rows: [B] indices of series.
          cuts: [B] cuts, from 1 to the length of the series.

        Returns:
          The windows, NumPy arrays [B, ...].
        """
        W, H, m = self.shape.context, self.shape.horizon, self.shape.season
        scale = self._scale(rows, cuts)[:, None]
        past, real = self._take(self._filled, rows, cuts, np.arange(-W, 0))
        observed, _ = self._take(self.values, rows, cuts, np.arange(-W, 0))
        earlier, known = self._take(self._filled, rows, cuts, np.arange(-W, 0) - m)
        seen, count = real.astype(float), np.maximum(real.sum(1, keepdims=True), 1)
        level = (past * seen).sum(1, keepdims=True) / count
        spread = np.sqrt((np.square(past - level) * seen).sum(1, keepdims=True) / count)
        spread = np.maximum(spread, 1e-6 * np.abs(level) + 1e-12)
        change = np.where(known & real, (past - earlier) / scale, 0.0)
        past = np.where(real, (past - level) / spread, 0.0)
        features = np.stack([_press(past), _press(change), np.isfinite(observed) & real], -1)

        profile = self._profile(rows, cuts)
        base = profile[..., 0]
        steps = np.broadcast_to(np.arange(H) / H, base.shape)
        volatility = np.broadcast_to(np.log(scale / spread), base.shape)
        future = np.concatenate(
            [
                _press((profile - base[..., None]) / scale[..., None])[..., 1:],
                np.stack([_press((base - level) / spread), steps, volatility], -1),
                np.full((*base.shape, 1), np.log(cuts)[:, None, None] / 10),
            ],
            -1,
        )
        target, exists = self._take(self.values, rows, cuts, np.arange(H))
        target = np.clip((target - base) / scale, -LARGEST_TARGET, LARGEST_TARGET)
        weight = exists & np.isfinite(target)
        return Window(
            past=features.astype(np.float32),
            past_mask=real,
            future=future.astype(np.float32),
            target=np.where(weight, target, 0).astype(np.float32),
            weight=weight.astype(np.float32),
        )

    def restore(
        self,
        rows: Int[np.ndarray, " B"],
        cuts: Int[np.ndarray, " B"],
        quantiles: Float[np.ndarray, "B H Q"],
    ) -> Float[np.ndarray, "B H Q"]:
        """Convert forecasts from targets to the units of their series.

            base + scale · quantiles

        Args:
          rows: [B] indices of series.
          cuts: [B] cuts, from 1 to the length of the series.
          quantiles: [B, H, Q] forecasts in units of `Window.target`.

        Returns:
          [B, H, Q] float64.
        """
        base = self._profile(rows, cuts)[..., :1]
        scale = self._scale(rows, cuts)[:, None, None]
        return base + scale * np.asarray(quantiles, np.float64)

    def _scale(self, rows: np.ndarray, cuts: np.ndarray) -> np.ndarray:
        """[B] scales of the series, from values before the cut."""
        return self._scales[self._starts[rows] + cuts - 1]

    def _profile(self, rows: np.ndarray, cuts: np.ndarray) -> np.ndarray:
        """[B, H, K] values of the same phase in earlier seasons, from the newest back.

        Before the start of the series, the oldest known value is repeated.
        """
        H, m, K = self.shape.horizon, self.shape.season, self.shape.profile
        back = np.arange(H)[:, None] % m - m * np.arange(1, K + 1)[None, :]
        values, real = self._take(self._filled, rows, cuts, back.ravel())
        values, real = values.reshape(-1, H, K), real.reshape(-1, H, K)
        first = self._filled[self._starts[rows]]
        for k in range(K):
            before = first[:, None] if k == 0 else values[..., k - 1]
            values[..., k] = np.where(real[..., k], values[..., k], before)
        return values

    def _take(
        self, values: np.ndarray, rows: np.ndarray, cuts: np.ndarray, offsets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values at ``cuts + offsets``, [B, offsets], and whether the series has that time step."""
        positions = cuts[:, None] + offsets[None, :]
        real = (positions >= 0) & (positions < self.lengths[rows][:, None])
        index = np.where(real, self._starts[rows][:, None] + positions, 0)
        return np.where(real, values[index], 0.0), real


class WindowSource:
    """Windows at random cuts of random series; batch k is a pure function of (seed, k).

    Args:
      windows: windows of the series.
      batch_size: number of windows B of a batch.
      seed: seed of the choice, ≥ 0.
      held_out: number of time steps at the end of every series that no target includes.

    Raises:
      ValueError: if a number is out of range.
      DataError: if no series is long enough for a window.
    """

    def __init__(
        self, windows: SeriesWindows, *, batch_size: int, seed: int, held_out: int = 0
    ) -> None:
        check_range("batch_size", batch_size, 1)
        check_range("seed", seed, 0)
        check_range("held_out", held_out, 0)
        self._windows, self._held_out = windows, held_out
        self._usable = windows.check_usable(held_out)
        self.batch_size, self.seed = batch_size, seed

    @property
    def shapes(self) -> tuple[Window, ...]:
        """Shapes of the batches; all have the same."""
        return (self._windows.shape.shapes(self.batch_size),)

    def batch(self, k: int, share: Share = WHOLE) -> Window:
        """Return batch ``k``.

        Args:
          k: number of the batch, from 0.
          share: which of its rows; all by default.

        Raises:
          ValueError: if ``k`` is negative.
        """
        check_range("k", k, 0)
        rng = np.random.default_rng([self.seed, k])
        chosen = rng.choice(self._usable, self.batch_size)
        last = self._windows.lengths[chosen] - self._held_out - self._windows.shape.horizon
        cuts = rng.integers(self._windows.first_cut, last, endpoint=True)
        rows = share.rows(self.batch_size)
        return self._windows.windows(chosen[rows], cuts[rows])


def _press(x: np.ndarray) -> np.ndarray:
    """``FAR · asinh(x / FAR)``: about x near 0, logarithmic far away."""
    return FAR * np.arcsinh(x / FAR)


def _begun(one: Series) -> Float[np.ndarray, " n"]:
    """The values from the first observed one."""
    values = np.asarray(one.values, np.float64)
    observed = np.flatnonzero(np.isfinite(values))
    if not observed.size:
        raise DataError(f"series {one.id!r}: expected at least one observed value, got none")
    return values[observed[0] :]


def _fill(values: Float[np.ndarray, " n"], season: int) -> Float[np.ndarray, " n"]:
    """The values, each missing one replaced by the last one of its phase, else the last one."""
    filled = values.copy()
    for i in np.flatnonzero(~np.isfinite(filled)):
        same = i >= season and np.isfinite(filled[i - season])
        filled[i] = filled[i - season] if same else filled[i - 1]
    return filled


def _scales(values: Float[np.ndarray, " n"], season: int) -> Float[np.ndarray, " n"]:
    """The scale at each cut t, as element t - 1, from the values before the cut.

    The mean absolute seasonal change; if that is 0, the mean absolute change in one time step, then
    the mean absolute value, then 1.
    """
    scales = np.zeros(len(values))
    for sizes in (_changes(values, season), _changes(values, 1), np.abs(values), np.ones(1)):
        scales = np.where(scales > 0, scales, _running_mean(sizes))
    return scales


def _changes(values: Float[np.ndarray, " n"], lag: int) -> Float[np.ndarray, " n"]:
    """Absolute changes over ``lag`` time steps, NaN for the first ``lag``."""
    return np.abs(values - np.concatenate([np.full(lag, np.nan), values])[: len(values)])


def _running_mean(sizes: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Running mean that ignores missing values, 0 while all are missing."""
    seen = np.isfinite(sizes)
    return np.cumsum(np.where(seen, sizes, 0.0)) / np.maximum(np.cumsum(seen), 1)
