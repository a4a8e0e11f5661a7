"""Measure a trained forecaster on what came after; prints one JSON object."""

from argparse import Namespace

from seqnets import cli
from seqnets.data.series import read_series
from seqnets.jobs.forecasting import evaluate_forecast, load_forecast_run


def main(arguments: Namespace) -> int:
    histories = read_series(arguments.data)
    futures = read_series(arguments.actual, shortest=1)
    cli.print_json(evaluate_forecast(load_forecast_run(arguments.run), histories, futures))
    return 0


if __name__ == "__main__":
    parser = cli.Parser(description=__doc__)
    parser.add_argument("run", metavar="RUN_DIR", help="a run of train_forecast.py")
    parser.add_argument("--data", required=True, metavar="TRAIN.csv", help="histories")
    parser.add_argument("--actual", required=True, metavar="FUTURE.csv", help="what came then")
    cli.run_script(parser, main)
