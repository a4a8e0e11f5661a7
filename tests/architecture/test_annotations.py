"""Arrays in public signatures say their shapes: read from the sources.

An argument, result, or field that is annotated as a bare array (``Array``, ``jax.Array``,
``np.ndarray``, ``NDArray``) or a bare key fails; ``Float[Array, "B T D"]`` and the like pass.
``ArrayLike`` is for arguments that NumPy converts, whose shape the docstring tells.
"""

import ast
import importlib
import inspect
import typing

import pytest
from sources import EVERY_MODULE, MODULES, SHAPED, label, name_of, tree_of

BARE = {"Array", "jax.Array", "np.ndarray", "NDArray"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def public(body):
    """Public functions and classes of a body; ``__call__`` is public too."""
    for node in body:
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            continue
        if not node.name.startswith("_") or node.name == "__call__":
            yield node


def annotations(body):
    """``(line, name, annotation)`` of all that is public."""
    for node in public(body):
        if isinstance(node, ast.ClassDef):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and not ast.unparse(field.target).startswith(
                    "_"
                ):
                    yield field.lineno, ast.unparse(field.target), field.annotation
            yield from annotations(node.body)
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for one in arguments:
            if one.annotation is not None:
                yield one.lineno, f"{node.name}({one.arg})", one.annotation
        if node.returns is not None:
            yield node.lineno, f"{node.name} ->", node.returns


def bare_arrays(annotation):
    """Array types in an annotation that are not inside the brackets of a shape."""
    if isinstance(annotation, ast.Subscript):
        head = ast.unparse(annotation.value)
        if head in SHAPED:
            return
        if head == "NDArray":
            yield head
            return
    elif ast.unparse(annotation) in BARE:
        yield ast.unparse(annotation)
        return
    elif isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        yield from bare_arrays(ast.parse(annotation.value, mode="eval").body)
        return
    for child in ast.iter_child_nodes(annotation):
        yield from bare_arrays(child)


@EVERY_MODULE
def test_public_arrays_say_their_shapes(file):
    missing = [
        f"{label(file)}:{line} {name}"
        for line, name, annotation in annotations(tree_of(file).body)
        if list(bare_arrays(annotation))
    ]
    assert not missing, "\n".join(["bare arrays:", *missing])


def shaped(annotation):
    return any(
        isinstance(node, ast.Subscript) and ast.unparse(node.value) in SHAPED
        for node in ast.walk(annotation)
    )


def test_there_are_many():
    found = [a for file in MODULES for *_, a in annotations(tree_of(file).body) if shaped(a)]
    assert len(found) > 300


@pytest.mark.parametrize("file", MODULES, ids=label)
def test_shapes_can_be_read(file):
    """Every annotation evaluates: no shape is misspelled, no name is missing."""
    module = importlib.import_module(name_of(file))
    for name, member in inspect.getmembers(module):
        if getattr(member, "__module__", None) != module.__name__ or name.startswith("_"):
            continue
        if inspect.isfunction(member):
            typing.get_type_hints(member)
        elif inspect.isclass(member):
            for part in vars(member).values():
                written = inspect.isfunction(part) and part.__code__.co_filename != "<string>"
                if written:  # not by a dataclass, whose fields may be those of another file
                    typing.get_type_hints(part)
