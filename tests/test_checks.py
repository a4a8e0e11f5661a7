import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets import activations, cells, initializers, losses, metrics, optimizers, training
from seqnets import dropout as dropout_room
from seqnets.checks import (
    check_dtype,
    check_levels,
    check_like,
    check_number,
    check_range,
    check_rank,
    check_rows,
    check_same_shape,
    check_shape,
    did_you_mean,
)
from seqnets.decoding import Sampling
from seqnets.dropout import dropout
from seqnets.recurrence import Execution, Regularization


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


@pytest.mark.parametrize(
    "value",
    [1, 0.5, np.float16(0.5), np.int8(1), np.array(0.5), jnp.bfloat16(0.5), jnp.int32(1)],
)
def test_numbers(value):
    check_number("rate", value)
    check_range("rate", value, 0, 1)


@pytest.mark.parametrize(
    "value",
    [
        True,
        "0.5",
        b"1",
        None,
        1j,
        [0.5],
        (),
        np.bool_(True),
        np.ones(1),
        jnp.ones(2),
        jnp.array(True),
    ],
)
def test_what_is_not_a_number(value):
    assert message(TypeError, check_number, "rate", value) == message(
        TypeError, check_range, "rate", value, 0, 1
    )
    text = message(TypeError, check_number, "rate", value)
    assert text == f"rate: expected a number, got {value!r}"


def test_traced_numbers_have_no_range():
    """A range cannot be known; a dtype and a shape can."""

    def f(x):
        check_range("rate", x, 0, 1)
        return x

    np.testing.assert_array_equal(jax.jit(f)(2.0), 2)
    np.testing.assert_array_equal(jax.vmap(f)(jnp.array([-1.0, 2.0])), [-1, 2])
    np.testing.assert_array_equal(jax.grad(f)(5.0), 1)
    for wrong in (True, jnp.ones(2)):
        with pytest.raises(TypeError, match="rate: expected a number"):
            jax.jit(f)(wrong)


def test_levels():
    np.testing.assert_array_equal(check_levels("q", [0.1, np.float32(0.5)]), [0.1, 0.5])
    for wrong in (["0.1", "0.5"], [False, 0.5], np.array([True])):
        with pytest.raises(TypeError, match=r"q\[0\]: expected a number"):
            check_levels("q", wrong)
    for wrong in (0.5, [], [0.5, 0.5], [0, 0.5], [[0.5]]):
        with pytest.raises(ValueError, match="q: expected increasing numbers"):
            check_levels("q", wrong)


X, P = np.linspace(-1, 1, 4, dtype="f4"), np.full((2, 2), 0.5, "f4")
LABELS = np.array([0, 1])
RATE = {"learning_rate": 0.1}
# Of each function, a call that is right. Every one of these arguments is then made wrong in turn.
CALLS = [
    (activations.elu, {"alpha": 1.0}, (X,)),
    (activations.celu, {"alpha": 1.0}, (X,)),
    (activations.leaky_relu, {"negative_slope": 0.1}, (X,)),
    (activations.prelu, {"slope": 0.1}, (X,)),
    (dropout, {"rate": 0.0}, (X, None)),
    (initializers.forget_bias, {"value": 1.0, "gate": 1, "gates": 4}, ()),
    (initializers.chrono, {"longest": 9, "forget_gate": 1, "gates": 4, "input_gate": 0}, ()),
    (initializers.per_gate, {"gates": 4}, (jax.nn.initializers.zeros,)),
    (losses.cross_entropy, {"label_smoothing": 0.1}, (P, LABELS)),
    (losses.categorical_cross_entropy, {"label_smoothing": 0.1}, (P, P)),
    (losses.binary_cross_entropy, {"label_smoothing": 0.1}, (P, P)),
    (losses.focal, {"gamma": 2.0}, (P, LABELS)),
    (losses.binary_focal, {"gamma": 2.0, "alpha": 0.5}, (P, P)),
    (losses.huber, {"delta": 1.0}, (X, X)),
    (losses.dice, {"smooth": 1.0}, (P, P)),
    (metrics.bits_per_character, {"nats_total": 1.0, "characters": 2}, ()),
    (metrics.perplexity, {"nats_per_token": 1.0}, ()),
    (cells.LSTM, {"features": 2, "forget_bias": 1.0}, ()),
    (cells.SRU, {"features": 2, "highway_bias": 1.0}, ()),
    (cells.GRU, {"features": 2}, ()),
    (optimizers.sgd, RATE, ()),
    (optimizers.momentum, RATE | {"momentum": 0.9}, ()),
    (optimizers.nesterov, RATE | {"momentum": 0.9}, ()),
    (optimizers.adam, RATE | {"beta1": 0.9, "beta2": 0.9, "epsilon": 0.1}, ()),
    (optimizers.adamw, RATE | {"beta1": 0.9, "epsilon": 0.1, "weight_decay": 0.1}, ()),
    (optimizers.adamax, RATE | {"beta1": 0.9, "beta2": 0.9, "epsilon": 0.1}, ()),
    (optimizers.nadam, RATE | {"beta2": 0.9, "epsilon": 0.1, "momentum_decay": 0.1}, ()),
    (optimizers.rmsprop, RATE | {"decay": 0.9, "momentum": 0.9, "epsilon": 0.1}, ()),
    (optimizers.adagrad, RATE | {"initial_accumulator": 0.1, "epsilon": 0.1}, ()),
    (optimizers.adadelta, RATE | {"decay": 0.9, "epsilon": 0.1}, ()),
    (optimizers.decoupled_decay, {"weight_decay": 0.1}, ()),
    (optimizers.Plateau, {"factor": 0.1, "patience": 1, "steps": 2, "threshold": 0.1}, ()),
    (optimizers.warmup, {"fraction": 0.1, "initial": 0.1}, (optimizers.linear(),)),
    (optimizers.one_cycle, {"peak_at": 0.1, "initial": 0.1, "final": 0.1}, ()),
    (optimizers.linear, {"final": 0.1}, ()),
    (optimizers.cosine, {"final": 0.1}, ()),
    (optimizers.exponential, {"final": 0.1}, ()),
    (
        optimizers.make_optimizer,
        RATE | {"clip_norm": 1.0, "clip_value": 1.0, "weight_decay": 0.1},
        (optimizers.sgd(1.0),),
    ),
    (Execution, {"remat": 2}, ()),
    (Regularization, {"recurrent_dropout": 0.1, "zoneout": 0.1, "weight_drop": 0.1}, ()),
    (Sampling, {"temperature": 1.0, "top_k": 2, "top_p": 0.5}, ()),
    (training.every, {"n": 2}, ()),
    (training.between, {"start": 0.1, "stop": 0.5}, ()),
    (training.ema, {"decay": 0.9}, ()),
    (training.Limits, {"steps": 2, "max_steps": 2, "max_seconds": 2, "patience": 2}, ()),
    (training.Recovery, {"max_skips": 2, "max_rollbacks": 2, "spike": 2.0}, ()),
]


@pytest.mark.parametrize("wrong", [True, "1"])
@pytest.mark.parametrize(
    ("function", "numbers", "others"), CALLS, ids=lambda x: getattr(x, "__name__", "")
)
def test_booleans_and_strings_are_not_numbers(function, numbers, others, wrong):
    function(*others, **numbers)
    for name in numbers:
        with pytest.raises(TypeError, match=rf"^{name}: expected a number, got {wrong!r}"):
            function(*others, **{**numbers, name: wrong})


@pytest.mark.parametrize("room", [activations, dropout_room, initializers, losses, optimizers])
def test_every_number_is_in_the_table(room):
    """Of the rooms of pure functions; `axis` is an index, which JAX checks, `rows` of a shape."""
    tested = {(function, name) for function, numbers, _ in CALLS for name in numbers}
    # `adam` and `nadam`, `warmup` and `Plateau` check their other numbers in the same lines.
    shared = {"axis", "beta1", "beta2", "cooldown", "steps", "number", "rows"}
    for function in map(vars(room).get, getattr(room, "__all__", dir(room))):
        if not callable(function) or not getattr(function, "__module__", "").startswith("seqnets"):
            continue
        for parameter in inspect.signature(function).parameters.values():
            kind = str(parameter.annotation).removesuffix(" | None")
            if kind in ("float", "int", "LearningRate") and parameter.name not in shared:
                assert (function, parameter.name) in tested, f"{function.__name__} {parameter.name}"


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
