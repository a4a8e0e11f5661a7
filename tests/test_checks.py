import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.checks import (
    check_dtype,
    check_like,
    check_range,
    check_rank,
    check_rows,
    check_same_shape,
    check_shape,
    did_you_mean,
)


def message(error, function, *arguments, **options):
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    return str(caught.value)


def test_rank():
    check_rank("xs", np.ones((2, 3)), 2, "B T")
    check_rank("x", 1.0, 0, "")
    check_rank("x", [1.0, 2.0], 1, "T")
    text = message(ValueError, check_rank, "xs", np.ones((2, 3)), 3, "B T D")
    assert text == "xs: expected shape [B, T, D] (3 axes), got (2, 3) (2 axes)"


def test_shape():
    check_shape("mask", np.ones((2, 3)), (2, 3))
    check_shape("keys", jax.random.split(jax.random.key(0), 4), (4,))
    text = message(ValueError, check_shape, "mask", np.ones((2, 1)), (2, 3), "that of xs")
    assert text == "mask: expected shape (2, 3) (that of xs), got (2, 1)"
    assert message(ValueError, check_shape, "y", 1.0, (1,)) == "y: expected shape (1,), got ()"


def test_same_shape():
    check_same_shape()
    check_same_shape(a=np.ones(3), b=jnp.zeros(3), c=[1, 2, 3])
    text = message(ValueError, check_same_shape, a=np.ones((2, 1)), b=np.ones(2))
    assert text == "expected equal shapes, got a (2, 1), b (2,); reshape or broadcast explicitly"


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("float", [1.0, np.float16(1), jnp.ones(2, jnp.bfloat16)], [1, True, jnp.arange(2)]),
        ("int", [1, np.uint8(1), jnp.arange(2)], [1.0, True, jnp.ones(2), jnp.ones(2, bool)]),
        ("bool", [True, np.ones(2, bool)], [1, 1.0, np.ones(2)]),
    ],
)
def test_dtype(kind, right, wrong):
    for x in right:
        check_dtype("x", x, kind)
    for x in wrong:
        text = message(TypeError, check_dtype, "x", x, kind)
        dtype = getattr(x, "dtype", jnp.asarray(x).dtype)
        assert text == f"x: expected an array of {kind}s, got dtype {dtype}"


@pytest.mark.parametrize(
    ("closed", "low", "high"),
    [
        ("both", True, True),
        ("left", True, False),
        ("right", False, True),
        ("neither", False, False),
    ],
)
def test_ends_of_the_range(closed, low, high):
    for value, inside in [(0, low), (1, high), (0.5, True), (-0.1, False), (np.nan, False)]:
        if inside:
            check_range("rate", value, 0, 1, closed=closed)
        else:
            text = message(ValueError, check_range, "rate", value, 0, 1, closed=closed)
            left, right = "[" if low else "(", "]" if high else ")"
            assert text == f"rate: expected a value in {left}0, 1{right}, got {value}"


def test_open_ended_ranges():
    check_range("x", -1e300)
    check_range("x", np.inf)
    check_range("x", 5, 1)
    with pytest.raises(ValueError, match=r"x: expected a value in \[1, inf\], got 0"):
        check_range("x", 0, 1)
    with pytest.raises(ValueError, match="nan"):
        check_range("x", np.nan)


def test_did_you_mean():
    assert (
        did_you_mean("lsmt", ["gru", "lstm"]) == "did you mean 'lstm'? expected one of: gru, lstm"
    )
    assert did_you_mean("xyz", ["gru", "lstm"]) == "expected one of: gru, lstm"


def test_checks_cost_nothing_under_jit():
    """They see shapes and dtypes only, so that tracers pass and errors come at trace time."""

    @jax.jit
    def f(x, y):
        check_rank("x", x, 1, "T")
        check_dtype("x", x, "float")
        check_same_shape(x=x, y=y)
        return x + y

    f(jnp.ones(2), jnp.ones(2))
    with pytest.raises(ValueError, match="equal shapes"):
        f(jnp.ones(2), jnp.ones(3))


def test_rows():
    assert check_rows("batch", {"x": np.ones((4, 2)), "y": jnp.ones(4)}) == 4
    assert check_rows("carry", (), 4) == 4
    assert check_rows("batch", np.ones((0, 3))) == 0
    text = message(ValueError, check_rows, "batch", {"x": np.ones(4), "y": np.ones(3)})
    assert text.startswith(
        "batch['y']: expected 4 rows, as in batch['x'], got 3; arrays without rows"
    )
    text = message(ValueError, check_rows, "carry", (np.ones((3, 1)),), 4, "the batch")
    assert text == "carry[0]: expected 4 rows, as in the batch, got 3"
    for rows in (None, 1, 4):
        text = message(ValueError, check_rows, "batch", {"y": 1.0}, rows, rows and "xs")
        assert text == "batch['y']: expected an array with rows first, [B, ...], got a scalar"
    text = message(ValueError, check_rows, "batch", ())
    assert text == "batch: expected arrays with rows first, [B, ...], got none"


def test_like():
    state = {"a": np.ones(3, np.float32), "b": ()}
    check_like("state", {"a": jnp.zeros(3), "b": ()}, state)
    for wrong in (
        {"a": np.ones(3, np.float16)},
        {"a": np.ones(2, np.float32)},
        {"a": np.ones(3, np.int32)},
    ):
        text = message(ValueError, check_like, "state", {**state, **wrong}, state)
        assert text.startswith(
            "state: expected {'a': 'float32[3]', 'b': ()}, as before the step, got"
        )
    assert "'b': 'int32[]'" in message(ValueError, check_like, "state", {**state, "b": 1}, state)
