"""Forecasts of many time series, as quantiles."""

from seqnets.applications.forecasting.estimator import Forecaster as Forecaster
from seqnets.applications.forecasting.network import ForecastNetwork as ForecastNetwork
