"""What the scripts share: arguments, one line for a mistake, and exit statuses.

0  done      1  training broke down (not finite)      2  a mistake of the user
128 + n  stopped by signal n (130 Ctrl-C, 143 SIGTERM), after saving
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from seqnets.config import parse_setting
from seqnets.jobs.running import Trained
from seqnets.runs import strict_json
from seqnets.training.loop import NonFiniteError
from seqnets.training.parallel import use_all_cores

__all__ = [
    "Parser",
    "absolute",
    "finish",
    "levels",
    "print_json",
    "run_directory",
    "run_script",
    "settings",
    "training_parser",
]

MISTAKES = (ValueError, TypeError, OSError, ImportError)


class Parser(argparse.ArgumentParser):
    """An argument parser that says a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message}; --help shows the usage\n")


def training_parser(description: str, kind: str) -> Parser:
    """The arguments that both trainers take."""
    parser = Parser(description=description)
    parser.add_argument("config", metavar="CONFIG.toml", help=f"see configs/{kind}/")
    parser.add_argument(
        "--out", metavar="DIR", help="run directory (default: runs/ and the name of the config)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --out from its last checkpoint"
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        metavar="S",
        help="train for S seconds, compilation not counted; the learning rate's schedule is "
        "stretched over them",
    )
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="stop at step N; the schedule is unchanged"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override a key of the configuration; may be repeated",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="also write DIR/tensorboard for TensorBoard"
    )
    return parser


def settings(arguments: argparse.Namespace, **keys: Any) -> dict[str, Any]:
    """What ``--set`` gives, then the values of other options by dotted keys, which win.

    ``--max-steps`` without ``--max-seconds`` lifts a bound in seconds that the configuration
    has: a run bounded by steps alone is the same every time.
    """
    bounds = {"train.max_steps": arguments.max_steps, "train.max_seconds": arguments.max_seconds}
    given = {key: value for key, value in {**bounds, **keys}.items() if value is not None}
    if "train.max_steps" in given:
        given.setdefault("train.max_seconds", None)
    return {**dict(map(parse_setting, arguments.set)), **given}


def run_directory(arguments: argparse.Namespace) -> Path:
    """Where the run goes."""
    return Path(arguments.out or Path("runs") / Path(arguments.config).stem)


def finish(trained: Trained, out: Path) -> int:
    """Say where the run is, on standard error, and return the exit status."""
    steps = trained.result["steps"]
    if trained.signal is None:
        print(f"trained {steps} steps; the run is in {out}", file=sys.stderr)
        return 0
    name = signal.Signals(trained.signal).name
    print(f"stopped by {name} after step {steps}, saved; go on with --resume", file=sys.stderr)
    return 128 + trained.signal


def print_json(values: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    print(strict_json(values))


def run_script(parser: Parser, main: Callable[[argparse.Namespace], int]) -> NoReturn:
    """Parse the arguments, run, and exit: mistakes are said in one line, without a traceback.

    With ``SEQNETS_TRACEBACK`` set in the environment they keep their traceback.
    """
    arguments = parser.parse_args()
    use_all_cores()
    try:
        status = main(arguments)
    except NonFiniteError as error:
        _say(parser, error)
        status = 1
    except MISTAKES as error:
        if os.environ.get("SEQNETS_TRACEBACK"):
            raise
        _say(parser, error)
        status = 2
    except KeyboardInterrupt:
        _say(parser, "interrupted")
        status = 130
    sys.exit(status)


def levels(text: str) -> tuple[float, ...]:
    """Parse ``0.1,0.5,0.9``."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers like 0.1,0.5,0.9, got {text!r}"
        ) from None


def _say(parser: Parser, error: object) -> None:
    message = " ".join(str(error).split()) or type(error).__name__
    print(f"{parser.prog}: error: {message}", file=sys.stderr)


def absolute(paths: Any) -> Any:
    """Absolute paths of a path, a list of them or None: a run finds its files from anywhere."""
    if paths is None:
        return None
    return str(Path(paths).resolve()) if isinstance(paths, str) else [absolute(p) for p in paths]
