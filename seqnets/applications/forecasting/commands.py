"""The commands ``seqnets forecast ...``."""

from __future__ import annotations

import argparse
import sys

from seqnets.applications.application import load_run
from seqnets.applications.command import Command, absolute, levels, print_json, train_command
from seqnets.applications.forecasting.forecasting import FORECASTING, forecast_frame
from seqnets.data.files import check_output
from seqnets.data.forecasts import write_forecasts
from seqnets.data.series import read_series
from seqnets.plots import BANDS, check_picture, plot_forecasts

__all__ = ["COMMANDS"]


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        metavar="FILE.csv",
        help="CSV file of series, plain or gzip; - for standard input (default: weekly CO2 at "
        "Mauna Loa)",
    )
    parser.add_argument(
        "--horizon",
        type=int,
        metavar="H",
        help="number of time steps to forecast (default: one season, or 12 without one)",
    )
    parser.add_argument(
        "--season",
        type=int,
        metavar="M",
        help="number of time steps in a season, 1 for none (default: from the dates)",
    )


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run directory of a trained forecaster")
    parser.add_argument("--data", required=True, metavar="FILE.csv", help="the series so far")
    parser.add_argument(
        "--quantiles",
        type=levels,
        default=(0.1, 0.5, 0.9),
        metavar="Q,...",
        help="increasing levels of the quantiles (default: 0.1,0.5,0.9)",
    )
    parser.add_argument(
        "--output", metavar="FILE.csv", help="file of the forecasts (default: standard output)"
    )
    parser.add_argument(
        "--plot", metavar="FILE.png", help="also plot the series, the median, and quantile bands"
    )


def _predict(arguments: argparse.Namespace) -> int:
    if arguments.output is not None:
        check_output("--output", arguments.output)
    if arguments.plot is not None:
        check_picture("--plot", arguments.plot)
    series = read_series(arguments.data)
    fitted = load_run(FORECASTING, arguments.run).fitted
    names = [f"q{level:g}" for level in arguments.quantiles]
    table = forecast_frame(series, fitted.predict(series, arguments.quantiles), names)
    if arguments.plot:
        try:
            plot_forecasts(arguments.plot, series, fitted.predict(series, BANDS))
        except ImportError as error:
            print(f"no plot: {error}", file=sys.stderr)
    if arguments.output:
        write_forecasts(arguments.output, table)
    else:
        print(table.to_csv(index=False), end="")
    return 0


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run directory of a trained forecaster")
    parser.add_argument("--data", required=True, metavar="TRAIN.csv", help="the series so far")
    parser.add_argument(
        "--actual", required=True, metavar="FUTURE.csv", help="the values that followed"
    )


def _evaluate(arguments: argparse.Namespace) -> int:
    histories = read_series(arguments.data)
    futures = read_series(arguments.actual, shortest=1)
    print_json(load_run(FORECASTING, arguments.run).fitted.evaluate(histories, futures))
    return 0


COMMANDS = (
    train_command(
        FORECASTING,
        "forecast",
        "Train a recurrent forecaster on a file of series.",
        _add_data,
        lambda arguments: {
            "data.file": absolute(arguments.data),
            "data.horizon": arguments.horizon,
            "data.season": arguments.season,
        },
    ),
    Command("predict", "Forecast the next values of each series.", _add_predict, _predict),
    Command(
        "evaluate",
        "Compare forecasts with the values that followed; prints one JSON object.",
        _add_evaluate,
        _evaluate,
    ),
)
