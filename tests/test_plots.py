"""Pictures of forecasts: what is drawn, and what is refused."""

import os
import re
import stat

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from seqnets import extras, plots
from seqnets.data import Series
from seqnets.data.errors import DataError
from seqnets.plots import BANDS, FORMATS, MOST, check_picture, plot_forecasts


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, in order."""
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: saved.append(self) or save(self, *a, **k)
    )
    return saved


def make(rng, count, steps=30, horizon=4, dates=True):
    times = pd.date_range("2001-01-01", periods=steps, freq="D") if dates else None
    series = [
        Series(f"s{i}", rng.normal(size=steps), times, "D" if dates else None) for i in range(count)
    ]
    return series, [np.sort(rng.normal(size=(horizon, len(BANDS))), axis=1) for _ in series]


@pytest.mark.parametrize("dates", [True, False])
def test_history_median_bands_and_actual(rng, tmp_path, figures, dates):
    series, quantiles = make(rng, 1, dates=dates)
    actual = rng.normal(size=3)
    plot_forecasts(tmp_path / "picture.png", series, quantiles, [actual])
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"history", "median", "actual"}
    np.testing.assert_array_equal(lines["history"].get_ydata(), series[0].values)
    np.testing.assert_array_equal(lines["median"].get_ydata(), quantiles[0][:, 2])
    np.testing.assert_array_equal(lines["actual"].get_ydata(), actual)
    bands = {band.get_label(): band.get_datalim(axes.transData) for band in axes.collections}
    for label, low, high in (("90%", 0, 4), ("50%", 1, 3)):
        assert bands[label].y0 == quantiles[0][:, low].min()
        assert bands[label].y1 == quantiles[0][:, high].max()
    last, first = lines["history"].get_xdata()[-1], lines["median"].get_xdata()[0]
    assert first > last


def test_of_many_series_a_few_are_drawn(rng, tmp_path, figures):
    series, quantiles = make(rng, 40)
    plot_forecasts(tmp_path / "picture.svg", series, quantiles)
    titles = [axes.get_title() for axes in figures[0].axes]
    assert len(titles) == MOST
    assert titles[0] == "s0"
    assert titles[-1] == "s39"
    assert len(figures[0].legends) == 1


def test_what_is_refused(rng, tmp_path, monkeypatch):
    series, quantiles = make(rng, 1)
    for name in ("picture.xyz", "picture", ".png", "."):
        with pytest.raises(DataError, match=re.escape("expected a file that ends in .png, ")):
            plot_forecasts(tmp_path / name, series, quantiles)
    with pytest.raises(DataError, match="there is no folder"):
        plot_forecasts(tmp_path / "no" / "picture.png", series, quantiles)
    assert not list(tmp_path.iterdir())

    def missing(name):
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"seqnets\[plot\]"):
        plots.plot_forecasts(tmp_path / "picture.png", series, quantiles)


def test_every_format_is_one_of_matplotlib():
    assert set(FORMATS) <= set(Figure().canvas.get_supported_filetypes())


def test_a_picture_goes_through_links_and_into_devices(rng, tmp_path):
    series, quantiles = make(rng, 1)
    link = tmp_path / "link.svg"
    link.symlink_to("target")
    plot_forecasts(link, series, quantiles)
    assert link.is_symlink()
    assert b"<svg" in (tmp_path / "target").read_bytes()
    assert check_picture("--plot", "/dev/null") == "png"
    plot_forecasts("/dev/null", series, quantiles)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
