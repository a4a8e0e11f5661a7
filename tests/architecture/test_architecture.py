"""The order of the rooms, what may not be imported, and what is public: read from the sources."""

import ast
import functools
import graphlib

import jaxtyping
from sources import (
    EVERY_FILE,
    EVERY_MODULE,
    FILES,
    MODULES,
    PACKAGE,
    SHAPED,
    label,
    name_of,
    room_of,
    tree_of,
)

# A file imports only from its own room and from rooms above it. A new room is one added line.
ROOMS = (
    "typing",
    "checks",
    "extras",
    "files",
    "config",
    "presets",
    "varying",
    "parser",
    "precision",
    "activations",
    "initializers",
    "dropout",
    "reduction",
    "losses",
    "metrics",
    "baselines",
    "cells",
    "optimizers",
    "recurrence",
    "modules",
    "heads",
    "decoding",
    "data",
    "plots",
    "training",
    "devices",
    "runs",
    "applications",
    "interop",
    "cli",
    "launch",
    "__main__",
)


@functools.cache
def imports_of(file):
    """Absolute names of everything imported, wherever in the file, as ``module.name``."""
    found = []
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{label(file)}:{node.lineno}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def names_and_attributes(file):
    """All dotted names used, ``jax.pmap`` say, and keyword arguments as ``name=``."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.keyword) and node.arg:
            yield f"{node.arg}="


def modules_imported(file):
    """Those of this package, as module names."""
    known = {name_of(f) for f in FILES}
    for name in imports_of(file):
        if name.split(".")[0] == "seqnets":
            yield name if name in known else name.rsplit(".", 1)[0]


def test_the_sources_are_found():
    assert {"typing.py", "losses/regression.py"} <= {label(file) for file in FILES}


def test_every_room_is_in_the_order():
    assert {room_of(name_of(file)) for file in FILES} - {""} <= set(ROOMS)


def test_applications_do_not_import_one_another():
    folders = {file.parent for file in PACKAGE.glob("applications/*/*.py")}
    assert len(folders) > 1
    for folder in folders:
        others = {f"seqnets.applications.{other.name}" for other in folders - {folder}}
        for file in folder.glob("*.py"):
            met = {m for m in modules_imported(file) for o in others if m.startswith(o)}
            assert not met, f"{label(file)} imports {met}"


@EVERY_FILE
def test_imports_come_from_rooms_above(file):
    if file == PACKAGE / "__init__.py":
        return  # the table of contents
    own = ROOMS.index(room_of(name_of(file)))
    for module in modules_imported(file):
        if module == "seqnets":
            assert "seqnets.__version__" in imports_of(file), f"imports the package: {label(file)}"
        else:
            assert ROOMS.index(room_of(module)) <= own, f"{label(file)} imports {module}"


def test_no_circles_within_a_room():
    graph = {
        name_of(file): {m for m in modules_imported(file) if m != name_of(file)} for file in MODULES
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


@EVERY_FILE
def test_nothing_private_of_jax_and_no_pickle(file):
    used = [*imports_of(file), *names_and_attributes(file)]
    assert not [name for name in used if name.startswith("jax._src")]
    banned = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    assert not {name.split(".")[0] for name in imports_of(file)} & banned
    assert "allow_pickle=" not in used


@EVERY_FILE
def test_names_say_what_is_inside(file):
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not set(file.relative_to(PACKAGE).with_suffix("").parts) & vague


@EVERY_FILE
def test_shapes_in_annotations_are_strings(file):
    """``Float[Array, "B *D"]`` may lose its quotes to an automatic fix; ``" B *D"`` may not."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in SHAPED:
            shape = node.slice.elts[1]
            assert isinstance(shape, ast.Constant), f"{label(file)}:{node.lineno}"
            getattr(jaxtyping, ast.unparse(node.value))[jaxtyping.Array, shape.value]


def test_one_file_knows_pmap():
    knowing = [
        label(file)
        for file in FILES
        if {"jax.pmap"} & {*imports_of(file), *names_and_attributes(file)}
    ]
    assert knowing == ["devices/data_parallel.py"]


def declared(file):
    """``__all__``, as written."""
    for node in tree_of(file).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{label(file)} has no __all__")


def definitions(file):
    """Functions and classes at the top of a file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name: node for node in tree_of(file).body if isinstance(node, kinds)}


def bound_names(file):
    """Everything that the top of a file gives a name: definitions, assignments, imports."""
    names = set(definitions(file))
    for node in tree_of(file).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign):
            names.add(ast.unparse(node.target))
    return names


@EVERY_MODULE
def test_all_is_what_is_public(file):
    """Functions and classes without an underscore are listed, and what is listed exists."""
    listed = declared(file)
    assert len(set(listed)) == len(listed)
    assert {name for name in definitions(file) if not name.startswith("_")} <= set(listed)
    assert set(listed) <= bound_names(file)
    assert not [name for name in listed if name.startswith("_")]


@EVERY_MODULE
def test_what_is_public_is_documented(file):
    assert ast.get_docstring(tree_of(file))
    for name, node in definitions(file).items():
        if name in declared(file):
            assert ast.get_docstring(node), f"{label(file)}: {name} has no docstring"


@EVERY_FILE
def test_packages_only_list_their_contents(file):
    """An ``__init__`` holds imports under their own names, a docstring and the version."""
    if file.name != "__init__.py" or file.parent == PACKAGE:
        return  # the package itself imports some of its names when they are first used
    for node in tree_of(file).body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname in (None, alias.name) for alias in node.names)
        elif isinstance(node, ast.Assign):
            assert ast.unparse(node.targets[0]) in ("__version__", "__all__")
        else:
            assert isinstance(node, ast.Expr)
            assert isinstance(node.value, ast.Constant)
