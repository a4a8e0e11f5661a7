"""Measure a trained language model on text; prints one JSON object."""

from argparse import Namespace

from seqnets import cli
from seqnets.data.text import read_texts
from seqnets.jobs.text import evaluate_text, load_text_run


def main(arguments: Namespace) -> int:
    text = read_texts(arguments.data)
    cli.print_json(evaluate_text(load_text_run(arguments.run), text))
    return 0


if __name__ == "__main__":
    parser = cli.Parser(description=__doc__)
    parser.add_argument("run", metavar="RUN_DIR", help="a run of train_text.py")
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="FILE", help="UTF-8 text, plain or gzip"
    )
    cli.run_script(parser, main)
