import numpy as np
import pandas as pd

from seqnets.data.builtin.mauna_loa import mauna_loa
from seqnets.data.series import season_of


def test_the_record():
    (one,) = mauna_loa()
    assert one.id == "mauna_loa_co2"
    assert (one.frequency, season_of(one.frequency)) == ("W-SAT", 52)
    assert one.times[[0, -1]].tolist() == [pd.Timestamp("1958-03-29"), pd.Timestamp("2001-12-29")]
    assert len(one.values) == 2284
    assert np.count_nonzero(np.isnan(one.values)) == 59


def test_figures_of_statsmodels():
    values = mauna_loa()[0].values
    np.testing.assert_array_equal(
        values[:8], [316.1, 317.3, 317.6, 317.5, 316.4, 316.9, np.nan, 317.5]
    )
    # Of statsmodels.datasets.co2.load_pandas().data; the sum of tenths is exact to rounding.
    assert abs(np.nansum(values) - 756816.5) < 1e-6
    assert (np.nanmin(values), np.nanmax(values), values[-1]) == (313.0, 373.9, 371.5)
