"""Built-in series: atmospheric CO2 at the Mauna Loa Observatory, weekly.

``mauna_loa_co2_weekly.csv`` holds mole fractions of CO2 in dry air, in parts per million by
volume, for the weeks ending on the Saturdays from 1958-03-29 to 2001-12-29: 2284 weeks, of which
59 have no measurement and are missing. The data are in the public domain. They equal
``statsmodels.datasets.co2`` of the statsmodels package, obtained from the Carbon Dioxide
Information Analysis Center (Oak Ridge National Laboratory, U.S. Department of Energy).

References:
  Keeling, Whorf, Atmospheric CO2 concentrations derived from flask air samples at sites in the
  SIO network, in: Trends: A Compendium of Data on Global Change, CDIAC, 2004.
"""

from __future__ import annotations

from importlib import resources

from seqnets.data.series import Series, read_series

__all__ = ["mauna_loa"]


def mauna_loa() -> list[Series]:
    """Weekly atmospheric CO2 at Mauna Loa, 1958 to 2001, in parts per million by volume.

    Returns:
      A list of one series, ``"mauna_loa_co2"``, of 2284 weeks, of which 59 are missing.

    References:
      Keeling, Whorf, Atmospheric CO2 concentrations derived from flask air samples at sites in the
      SIO network, in: Trends: A Compendium of Data on Global Change, CDIAC, 2004.
    """
    file = resources.files("seqnets.data.builtin") / "mauna_loa_co2_weekly.csv"
    with resources.as_file(file) as path:
        return read_series(path)
