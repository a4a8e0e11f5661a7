"""Built-in series: atmospheric CO2 at the Mauna Loa Observatory, weekly.

``mauna_loa_co2_weekly.csv`` holds mole fractions of CO2 in dry air, in parts per million by
volume, for the weeks ending on the Saturdays from 1958-03-29 to 2001-12-29: 2284 weeks, of which
59 have no measurement and stay missing. The figures are in the public domain; they are those that
the statsmodels package carries as ``statsmodels.datasets.co2``, obtained from the Carbon Dioxide
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
    """The weekly record as a list of one series, ``"mauna_loa_co2"``, in ppm by volume."""
    file = resources.files("seqnets.data.builtin") / "mauna_loa_co2_weekly.csv"
    with resources.as_file(file) as path:
        return read_series(path)
