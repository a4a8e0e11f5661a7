"""What a process begins with: Ctrl-C is one line at any moment, help and version come at once."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import seqnets
from seqnets import launch

ROOT = Path(__file__).parents[1]
HEAVY = ("jax", "numpy", "pandas", "orbax", "flax", "optax", "msgspec")

# Runs a program that is interrupted when it comes to import a module.
INTERRUPTED = """
import importlib.abc, os, runpy, signal, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = {argv!r}
{run}
"""
PACKAGE = "runpy.run_module('seqnets', run_name='__main__', alter_sys=True)"
SCRIPT = "runpy.run_path(sys.argv[0], run_name='__main__')"
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


def run(program, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip


def check_interrupted(done, program):
    assert done.returncode == 130, done
    assert done.stdout == ""
    assert done.stderr == f"{program}: error: interrupted\n"


@pytest.mark.parametrize(
    "module", ["seqnets.applications", "jax", "jax.numpy", "flax.linen", "seqnets.cli"]
)
def test_ctrl_c_while_modules_are_imported_is_one_line(module):
    argv = ["seqnets", "text", "generate", "nowhere", "--prompt", "a"]
    done = run(INTERRUPTED.format(module=module, argv=argv, run=PACKAGE))
    check_interrupted(done, "seqnets")


@pytest.mark.parametrize("name", SCRIPTS)
def test_so_it_is_in_every_script(name):
    argv = [str(ROOT / "scripts" / name)]
    check_interrupted(run(INTERRUPTED.format(module="jax", argv=argv, run=SCRIPT)), name)


def test_ctrl_c_from_outside():
    """A real one, when Python itself is up; where it comes to, it ends in a line."""
    command = [
        sys.executable,
        "-m",
        "seqnets",
        "text",
        "generate",
        "nowhere",
        "--prompt",
        "a",
    ]
    for seconds in (0.3, 1.0):
        process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert out == ""
        assert len(err.splitlines()) == 1
        # 2 if the command was faster; killed by the signal if Python itself was about to end.
        assert process.returncode in (130, 2, -signal.SIGINT)


def test_ignored_it_stays_ignored():
    """As in a script of a shell that starts the command in the background."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from seqnets.launch import answer_interrupts; answer_interrupts()\n"
        "import os; os.kill(os.getpid(), signal.SIGINT); print('here')"
    )
    assert run(program).stdout == "here\n"


LIGHT = f"""
import sys
from seqnets.launch import main
try:
    main(sys.argv[1:])
finally:
    loaded = sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r}))
    print(*loaded, file=sys.stderr, end="")
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--version"], f"seqnets {seqnets.__version__}\n"), (["--help"], "usage: seqnets [-h]")],
)
def test_help_and_version_import_nothing_heavy(arguments, words):
    done = run(LIGHT, *arguments)
    assert done.returncode == 0
    assert done.stdout.startswith(words)
    assert done.stderr == ""


def test_every_group_is_there():
    for _, module in launch.GROUPS.values():
        assert {one.name for one in importlib.import_module(module).COMMANDS} >= {"train"}


def test_every_name_of_the_package_is_found():
    for name in dir(seqnets):
        assert getattr(seqnets, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = seqnets.nothing
