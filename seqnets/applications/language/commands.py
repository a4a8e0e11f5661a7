"""The commands ``seqnets text ...``."""

from __future__ import annotations

import argparse

from seqnets.applications.application import load_run
from seqnets.applications.command import Command, absolute, print_json, train_command
from seqnets.applications.language.language import LANGUAGE
from seqnets.data.text import read_texts
from seqnets.decoding import Sampling

__all__ = ["COMMANDS"]


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="FILE",
        help="UTF-8 text files, plain or gzip; - for standard input (default: the source code of "
        "Python's standard library)",
    )


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run directory of a trained model")
    parser.add_argument(
        "--prompt",
        required=True,
        metavar="TEXT",
        help='text to continue; "" starts a new text',
    )
    parser.add_argument(
        "--tokens",
        type=int,
        default=500,
        metavar="N",
        help="number of tokens to generate (default: 500)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="divides the logits; 0 always chooses the most probable token (default: 1)",
    )
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="sample only from the K most probable tokens"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="sample only from the most probable tokens with total probability P",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the same seed gives the same text (default: 0)",
    )


def _generate(arguments: argparse.Namespace) -> int:
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p)
    fitted = load_run(LANGUAGE, arguments.run).fitted
    written = fitted.generate(arguments.prompt, arguments.tokens, sampling, arguments.seed)
    print(arguments.prompt + written)
    return 0


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run directory of a trained model")
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="FILE", help="UTF-8 text files, plain or gzip"
    )


def _evaluate(arguments: argparse.Namespace) -> int:
    text = read_texts(arguments.data)
    print_json(load_run(LANGUAGE, arguments.run).fitted.evaluate(text))
    return 0


COMMANDS = (
    train_command(
        LANGUAGE,
        "text",
        "Train a recurrent language model on text.",
        _add_data,
        lambda arguments: {"data.files": absolute(arguments.data)},
    ),
    Command("generate", "Continue a text with a trained model.", _add_generate, _generate),
    Command(
        "evaluate",
        "Evaluate a trained model on text; prints one JSON object.",
        _add_evaluate,
        _evaluate,
    ),
)
