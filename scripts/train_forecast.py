"""Train a recurrent forecaster on a file of series."""

from argparse import Namespace

from seqnets import cli
from seqnets.config import ForecastConfig, load
from seqnets.jobs.forecasting import train_forecast


def main(arguments: Namespace) -> int:
    given = {
        "data.file": cli.absolute(arguments.data),
        "data.horizon": arguments.horizon,
        "data.season": arguments.season,
    }
    config = load(ForecastConfig, arguments.config, cli.settings(arguments, **given))
    out = cli.run_directory(arguments)
    trained = train_forecast(
        config, out, resume=arguments.resume, tensorboard=arguments.tensorboard
    )
    return cli.finish(trained, out)


if __name__ == "__main__":
    parser = cli.training_parser(__doc__, "forecast")
    parser.add_argument(
        "--data",
        metavar="FILE.csv",
        help="series, plain or gzip (default: the weekly CO2 record of Mauna Loa)",
    )
    parser.add_argument("--horizon", type=int, metavar="H", help="steps to forecast")
    parser.add_argument(
        "--season", type=int, metavar="M", help="steps in a season, 1 for none (default: by dates)"
    )
    cli.run_script(parser, main)
