"""No file of the project can turn data into code: read from the sources, tests included."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    file
    for folder in ("seqnets", "scripts", "tests", "benchmarks")
    for file in (ROOT / folder).rglob("*.py")
)
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "__import__", "torch.load", "yaml.load", "pandas.read_pickle"}
CALLS |= {"pd.read_pickle"}


def dangers(tree):
    """What in a file loads code from data, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            named = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS or any(word.arg == "allow_pickle" for word in node.keywords):
                yield node.lineno, called
            continue
        else:
            continue
        yield from ((node.lineno, name) for name in named if MODULES & set(name.split(".")))
        yield from ((node.lineno, name) for name in named if name in CALLS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_loads_code_from_data(file):
    assert list(dangers(ast.parse(file.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            "import pickle",
            "import a, dill as b",
            "from joblib import load",
            "from torch import load",
        ),
        *("import numpy.pickle", "eval(x)", "np.load(f, allow_pickle=True)", "torch.load(f)"),
        *("f(exec(x))", "pd.read_pickle(f)", "from six.moves import cPickle"),
    ],
)
def test_dangers_are_seen(text):
    assert list(dangers(ast.parse(text)))


def test_methods_of_these_names_are_none():
    assert not list(dangers(ast.parse("model.eval(); np.load(f); json.load(f)")))
