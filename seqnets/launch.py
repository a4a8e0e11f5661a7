"""The command ``seqnets``: its groups of commands, and the start of the process.

Importing JAX and packages that use it takes seconds. These imports wait until the command is known,
so that Ctrl-C ends the process with one line at any time, and help and version appear at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from seqnets import __version__
from seqnets.parser import Parser

__all__ = ["GROUPS", "answer_interrupts", "main", "script"]

GROUPS: Mapping[str, tuple[str, str]] = {
    "text": ("language models", "seqnets.applications.language.commands"),
    "forecast": ("time series forecasting", "seqnets.applications.forecasting.commands"),
}
"""Topic of each group of commands, and the module of its ``COMMANDS``. A new application needs one
line here."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run ``seqnets GROUP COMMAND ...`` and exit.

    Args:
      argv: arguments; None for those of the process.
    """
    answer_interrupts()
    given = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="seqnets", description="Train and use recurrent sequence models.")
    parser.add_argument("--version", action="version", version=f"seqnets {__version__}")
    groups = parser.add_subparsers(metavar="GROUP", required=True)
    for name, (about, _) in GROUPS.items():
        group = groups.add_parser(name, help=about, description=f"Commands for {about}.")
        if given[:1] == [name]:
            _add_commands(group, name)
    arguments = parser.parse_args(given)
    _run(arguments.parser, arguments, arguments.command)


def script(group: str, name: str) -> NoReturn:
    """Run one command as a separate script, and exit.

    Args:
      group: group of the command, such as ``"text"``.
      name: name of the command, such as ``"train"``.
    """
    answer_interrupts()
    command = next(one for one in _commands(group) if one.name == name)
    parser = Parser(description=command.help)
    command.add_arguments(parser)
    _run(parser, parser.parse_args(), command)


def answer_interrupts() -> None:
    """Make Ctrl-C end the process at once, with one line and status 130, unless SIGINT is ignored.

    There is nothing to save yet, and an exception during an import might be caught or changed. For
    a running command, see `seqnets.cli.run_command`.
    """
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    program = os.path.basename(sys.argv[0])
    program = "seqnets" if program == "__main__.py" else program
    os.write(2, f"{program}: error: interrupted\n".encode())
    os._exit(128 + number)


def _commands(group: str) -> Sequence[Any]:
    return importlib.import_module(GROUPS[group][1]).COMMANDS


def _add_commands(group: argparse.ArgumentParser, name: str) -> None:
    sub = group.add_subparsers(metavar="COMMAND", required=True)
    for command in (*_commands(name), _configs(name)):
        own = sub.add_parser(command.name, help=command.help, description=command.help)
        command.add_arguments(own)
        own.set_defaults(command=command, parser=own)


def _configs(group: str) -> Any:
    """The command that lists the presets of a group."""
    from seqnets.applications.command import Command
    from seqnets.presets import preset_names

    def run(arguments: argparse.Namespace) -> int:
        print("\n".join(preset_names(group)))
        return 0

    return Command("configs", "List the presets of `train`.", lambda parser: None, run)


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace, command: Any) -> NoReturn:
    from seqnets.cli import run_command

    run_command(parser, arguments, command.run)
