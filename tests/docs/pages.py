"""Runs the code blocks of a page in order, and compares their output with what the page shows.

Blocks of ``python`` share one namespace, and blocks of ``sh`` run in bash, all in one empty folder,
as a reader would run them. A block of ``text`` without a title is the output of the block before:
the words must be those printed, the numbers may differ. Blocks of other languages are only shown.

    python tests/docs/pages.py docs/getting_started.md
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-+]?(\d+([.,]\d+)*(e[-+]?\d+)?|inf|nan)")
RUN = ("python", "sh")

# Runs the blocks it is given, each followed by a line that separates their outputs.
RUNNER = """
def run_blocks(blocks, names):
    import subprocess, sys
    for language, line, code in blocks:
        if language == "sh":
            command = ["bash", "-euo", "pipefail", "-c", code]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        else:
            exec(compile("\\n" * line + code, PAGE, "exec"), names)
        print(MARK, flush=True)

import json, sys
run_blocks(json.load(sys.stdin), globals())
"""
MARK = "=== end of a block ==="


class Block(NamedTuple):
    language: str
    info: str
    """What follows the language on the fence's line: a title, say."""
    line: int
    """How many lines of the page come before its first one."""
    code: str


def pages():
    """All pages of the site that are written by hand, and the README."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks_of(page):
    """The code blocks of a page, in its order."""
    text = page.read_text("utf-8")
    for found in FENCE.finditer(text):
        indent, language, info, code = found.groups()
        code = re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
        yield Block(language, info.strip(), text[: found.start(4)].count("\n"), code)


def run(page, folder, *, timeout=600):
    """Run the blocks of a page in a folder; return (block, printed, shown) for each.

    Raises:
      AssertionError: if a block fails, with what it printed.
    """
    blocks = list(blocks_of(page))
    ran = [block for block in blocks if block.language in RUN]
    environment = {
        **{name: value for name, value in os.environ.items() if name[:4] not in ("JAX_", "XLA_")},
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "JAX_PLATFORMS": "cpu",
    }
    program = f"PAGE, MARK = {str(page)!r}, {MARK!r}\n{RUNNER}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([(one.language, one.line, one.code) for one in ran]),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stdout}\n{done.stderr}"
    printed = done.stdout.split(MARK + "\n")[:-1]
    pairs = zip(ran, printed, strict=True)
    return [(block, output, shown_after(blocks, block)) for block, output in pairs]


def shown_after(blocks, block):
    """The output that the page shows for a block; None if it shows none."""
    after = blocks[blocks.index(block) + 1 :][:1]
    return after[0].code if after and after[0].language == "text" and not after[0].info else None


def words(text):
    """A text without its numbers and its spaces, which vary from machine to machine."""
    return NUMBER.sub("#", text).split()


def main():
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            for block, printed, shown in run(Path(name).resolve(), folder):
                same = shown is None or words(printed) == words(shown)
                print(f"--- line {block.line}: {'shown as it is' if same else 'SHOWN OTHERWISE'}")
                print(printed, end="")


if __name__ == "__main__":
    main()
