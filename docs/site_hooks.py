"""What the site takes from the library itself: a page for every room, the help of
commands, and the keys of configurations.

A page asks for the help of a command by a comment, alone in its line:

    <!-- help of seqnets text train -->

and for the keys of a configuration, or of one of its sections, by one like these:

    <!-- keys of seqnets.applications.language.config.TextConfig -->
    <!-- section of seqnets.modules.config.LayerConfig -->
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import itertools
import os
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from configuration_tables import keys_of, section_of
from public_names import ROOMS, Public, public_names, summary

HELP = re.compile(r"^<!-- help of seqnets ([\w ]+) -->$", re.MULTILINE)
KEYS = re.compile(r"^<!-- keys of (seqnets[\w.]+) -->$", re.MULTILINE)
SECTION = re.compile(r"^<!-- section of (seqnets[\w.]+) -->$", re.MULTILINE)
FROM_NETWORK = re.compile(r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=\"?https?://[^>]*>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of every room."""
    for room in ROOMS:
        page = f"# seqnets.{room}\n\n{text_of(room)}\n"
        files.append(File.generated(config, f"reference/{room}.md", content=page))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what a page asks for."""
    markdown = KEYS.sub(lambda found: keys_of(found[1]), markdown)
    markdown = SECTION.sub(lambda found: section_of(found[1]), markdown)
    return HELP.sub(lambda found: help_of(found[1].split()), markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:
    """Fail if a page would load anything from the network."""
    for found in FROM_NETWORK.finditer(output):
        raise PluginError(f"{page.file.src_uri} loads from the network: {found[0]}")


def text_of(room: str) -> str:
    """What a room is, a table of its names, then the entry of each, by the file it comes from."""
    names = public_names(room)
    about = inspect.getdoc(importlib.import_module(f"seqnets.{room}")) or ""
    table = ["| Name | Summary |", "|---|---|"]
    table += [f"| [`{one.name}`](#{one.path}) | {cell(summary(one))} |" for one in names]
    parts = [about, "\n".join(table)]
    for module, members in itertools.groupby(names, key=lambda one: one.module):
        if module != f"seqnets.{room}":
            parts.append(
                f"## {title_of(module) if module.startswith('seqnets') else 'From ' + module}"
            )
        parts += [entry(one) for one in members]
    return "\n\n".join(parts)


def title_of(module: str) -> str:
    """The first line of a module's docstring, as a heading."""
    doc = (importlib.import_module(module).__doc__ or module).strip()
    return re.split(r"[.:;](?:\s|$)|\n\n", doc)[0].replace("\n", " ")


def entry(public: Public) -> str:
    """What mkdocstrings replaces by the documentation of a name; a link for another library's."""
    if public.path == public.module:  # the name is that of its module, which would be shown
        return f"[](){{ #{public.path} }}\n\n::: {public.path}.{public.name}"
    if public.module.startswith("seqnets"):
        return f"::: {public.path}"
    about = f"{cell(summary(public))} This is `{public.module}.{public.name}`, unchanged."
    return f"### {public.name} {{ #{public.path} }}\n\n{about}"


def cell(text: str) -> str:
    """Text as the cell of a table; within code, a bar does not end a cell."""
    parts = text.replace("``", "`").split("`")
    parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
    return "`".join(parts)


def help_of(arguments: list[str]) -> str:
    """What ``seqnets ... --help`` prints."""
    from seqnets import launch

    os.environ["COLUMNS"] = "80"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        launch.main([*arguments, "--help"])
    return f"```text\n{printed.getvalue().strip()}\n```"
