"""Train a recurrent language model on text."""

from argparse import Namespace

from seqnets import cli
from seqnets.config import TextConfig, load
from seqnets.jobs.text import train_text


def main(arguments: Namespace) -> int:
    files = cli.absolute(arguments.data)
    config = load(TextConfig, arguments.config, cli.settings(arguments, **{"data.files": files}))
    out = cli.run_directory(arguments)
    trained = train_text(config, out, resume=arguments.resume, tensorboard=arguments.tensorboard)
    return cli.finish(trained, out)


if __name__ == "__main__":
    parser = cli.training_parser(__doc__, "text")
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="FILE",
        help="UTF-8 text, plain or gzip (default: the source of Python's standard library)",
    )
    cli.run_script(parser, main)
