"""Forecast what comes after the end of each series."""

from argparse import Namespace

from seqnets import cli
from seqnets.data import read_series, write_forecasts
from seqnets.jobs.forecasting import forecast, forecast_table, load_forecast_run


def main(arguments: Namespace) -> int:
    series = read_series(arguments.data)
    run = load_forecast_run(arguments.run)
    table = forecast_table(series, forecast(run, series, arguments.quantiles), arguments.quantiles)
    if arguments.plot:
        from seqnets.plots import BANDS, plot_forecasts

        plot_forecasts(arguments.plot, series, forecast(run, series, BANDS))
    if arguments.output:
        write_forecasts(arguments.output, table)
    else:
        print(table.to_csv(index=False), end="")
    return 0


if __name__ == "__main__":
    parser = cli.Parser(description=__doc__)
    parser.add_argument("run", metavar="RUN_DIR", help="a run of train_forecast.py")
    parser.add_argument("--data", required=True, metavar="FILE.csv", help="histories")
    parser.add_argument(
        "--quantiles", type=cli.levels, default=(0.1, 0.5, 0.9), help="default 0.1,0.5,0.9"
    )
    parser.add_argument(
        "--output", metavar="FILE.csv", help="where to write (default: standard output)"
    )
    parser.add_argument("--plot", metavar="FILE.png", help="also draw history, median and bands")
    cli.run_script(parser, main)
