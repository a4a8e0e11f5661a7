"""What every cell must satisfy when `unroll` runs it, over a table of cells, dtypes and directions.

The oracle is a loop over rows and steps in float64 NumPy, written from the equations in the
docstrings of the cells. The table ends with cells that exist only here: they hold the contract
open for what it must be able to carry (peepholes, projections, images, a learned first carry).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GRU, LSTM, Elman, GatedCell, GRUResetBefore, LSTMCarry
from seqnets.recurrence import Strategy, unroll

B, T, D, H = 5, 6, 3, 4
MASK = np.array(
    [
        [1, 1, 1, 1, 1, 1],  # full
        [0, 0, 0, 0, 0, 0],  # length 0
        [1, 1, 1, 0, 0, 0],  # padded on the right
        [0, 1, 1, 0, 1, 1],  # padded on the left, with a hole
        [1, 0, 0, 1, 0, 1],  # holes
    ],
    bool,
)
RESET = np.array(
    [
        [0, 0, 1, 0, 1, 0],
        [1, 0, 0, 1, 0, 0],
        [1, 0, 0, 1, 0, 0],  # at the first step, and in the padding
        [1, 0, 1, 1, 0, 1],  # in the padding on the left and in the hole
        [0, 1, 0, 1, 0, 1],
    ],
    bool,
)

ALL = np.ones((B, T), bool)


# --- cells that exist only here -------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Projected(LSTM):
    """LSTM with peepholes to two gates and an output narrower than its gates."""

    hidden: int = H

    def init(self, key, in_features):
        params = LSTM(self.hidden).init(key, in_features)
        peepholes = jnp.zeros(self.hidden), jnp.zeros(self.hidden)
        projection = jnp.zeros((self.hidden, self.features))
        return params._replace(w_h=params.w_h[: self.features], extra=(*peepholes, projection))

    def initial_carry(self, params, batch, dtype):
        return LSTMCarry(
            c=jnp.zeros((batch, self.hidden), dtype), h=jnp.zeros((batch, self.features), dtype)
        )

    def pointwise(self, extra, z_x, z_h, carry):
        i, f, g, o = jnp.split(z_x + z_h, 4, axis=-1)
        p_f, p_o = (jnp.broadcast_to(p, i.shape) for p in extra[:2])
        c = jax.nn.sigmoid(f + p_f * carry.c) * carry.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = (jax.nn.sigmoid(o + p_o * c) * jnp.tanh(c)) @ extra[2]
        return LSTMCarry(c, h), h


class LearnedCarry(NamedTuple):
    h: Any


@dataclasses.dataclass(frozen=True)
class LearnedStart(GatedCell):
    """Normalised products, added apart, and a first carry that is a parameter."""

    gates: ClassVar[int] = 1

    def init(self, key, in_features):
        return super().init(key, in_features)._replace(b=None, extra=jnp.zeros(self.features))

    def initial_carry(self, params, batch, dtype):
        start = jnp.asarray(params.extra, dtype)
        return LearnedCarry(h=jnp.broadcast_to(start, (batch, self.features)))

    def pointwise(self, extra, z_x, z_h, carry):
        z_x, z_h = (z / (1 + jnp.max(jnp.abs(z), -1, keepdims=True)) for z in (z_x, z_h))
        h = jnp.tanh(z_x + z_h)
        return LearnedCarry(h=h), h


class Image(NamedTuple):
    sum: Any


@dataclasses.dataclass(frozen=True)
class Images:
    """Not a gated cell: its carry leaves are [B, 2, 2, C], its inputs [B, T, 2, 2, D]."""

    features: int

    def init(self, key, in_features):
        return jax.random.normal(key, (in_features, self.features))

    def initial_carry(self, params, batch, dtype):
        return Image(sum=jnp.zeros((batch, 2, 2, self.features), dtype))

    def step(self, params, carry, x):
        new = jnp.tanh(x @ params + carry.sum[:, ::-1])
        return Image(sum=new), 2 * new


# --- the equations once more, one row and one step, in NumPy ---------------------------------


def sigmoid(x):
    return 0.5 * (1 + np.tanh(x / 2))


def blocks(w, gates):
    return np.split(w, gates, axis=-1)


def elman(p, carry, x):
    (h,) = carry
    h = np.tanh(x @ p.w_x + h @ p.w_h + p.b)
    return (h,), h


def lstm(p, carry, x, peep_f=0.0, peep_o=0.0):
    c, h = carry
    z = [
        x @ w_x + h @ w_h + b
        for w_x, w_h, b in zip(*(blocks(w, 4) for w in (p.w_x, p.w_h, p.b)), strict=True)
    ]
    c_new = sigmoid(z[1] + peep_f * c) * c + sigmoid(z[0]) * np.tanh(z[2])
    h_new = sigmoid(z[3] + peep_o * c_new) * np.tanh(c_new)
    return (c_new, h_new), h_new


def projected(p, carry, x):
    (c, h), _ = lstm(p, carry, x, *p.extra[:2])
    return (c, h @ p.extra[2]), h @ p.extra[2]


def gru_after(p, carry, x):
    (h,) = carry
    x_r, x_z, x_n = (x @ w + b for w, b in zip(blocks(p.w_x, 3), blocks(p.b, 3), strict=True))
    h_r, h_z, h_n = (h @ w + b for w, b in zip(blocks(p.w_h, 3), blocks(p.b_h, 3), strict=True))
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    new = (1 - z) * np.tanh(x_n + r * h_n) + z * h
    return (new,), new


def gru_before(p, carry, x):
    (h,) = carry
    (x_r, x_z, x_n), (b_r, b_z, b_n) = (x @ w for w in blocks(p.w_x, 3)), blocks(p.b, 3)
    w_r, w_z, w_n = blocks(p.w_h, 3)
    r, z = sigmoid(x_r + h @ w_r + b_r), sigmoid(x_z + h @ w_z + b_z)
    new = (1 - z) * np.tanh(x_n + (r * h) @ w_n + b_n) + z * h
    return (new,), new


def learned_start(p, carry, x):
    z_x, z_h = x @ p.w_x, carry[0] @ p.w_h
    h = np.tanh(z_x / (1 + np.abs(z_x).max()) + z_h / (1 + np.abs(z_h).max()))
    return (h,), h


def images(p, carry, x):
    new = np.tanh(np.einsum("xyd,dc->xyc", x, p) + np.flip(carry[0], 0))
    return (new,), 2 * new


# --- the table -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    cell: Any
    oracle: Callable
    x_shape: tuple = (D,)

    def params(self, rng):
        """Random float64 parameters with the tree and shapes of `init` (zeros would hide bugs)."""
        shapes = jax.eval_shape(lambda key: self.cell.init(key, D), jax.random.key(0))
        return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)


CASES = {
    "elman": Case(Elman(H), elman),
    "lstm": Case(LSTM(H), lstm),
    "gru": Case(GRU(H), gru_after),
    "gru-reset-before": Case(GRUResetBefore(H), gru_before),
    "projected": Case(Projected(2), projected),
    "learned-start": Case(LearnedStart(H), learned_start),
    "images": Case(Images(H), images, x_shape=(2, 2, D)),
}

case_table = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])

run = jax.jit(unroll, static_argnums=0, static_argnames="reverse")


@functools.partial(jax.jit, static_argnums=0, static_argnames="reverse")
def gradients(cell, params, carry, xs, *, mask, reset, reverse=False):
    """Derivatives by parameters, carry and inputs of a sum that uses every output, and outputs."""

    def value(*arguments):
        out = unroll(cell, *arguments, mask=mask, reset=reset, reverse=reverse)
        return sum(jnp.sum(jnp.sin(3 * leaf)) for leaf in jax.tree.leaves(out)), out

    return jax.grad(value, (0, 1, 2), has_aux=True)(params, carry, xs)


def loop(case, params, carry, xs, mask, reset, *, reverse):
    """`unroll` as loops over rows, segments and steps; a row is cut at its resets first."""
    initial = [np.asarray(leaf[0], float) for leaf in initial_carry(case, params)]
    ys, finals = None, []
    for row in range(xs.shape[0]):
        real = [t for t in range(xs.shape[1]) if mask[row, t]]
        segments = [[]]
        for t in real:
            if reset[row, t]:
                segments.append([])
            segments[-1].append(t)
        state, first = [leaf[row] for leaf in carry], True
        if reverse:
            segments = [segment[::-1] for segment in reversed(segments) if segment]
        for segment in segments:  # forwards, the first is empty where a reset comes first
            state, first = (state if first or not segment else initial), False
            for t in segment:
                state, y = case.oracle(params, state, xs[row, t])
                ys = np.zeros((*xs.shape[:2], *y.shape)) if ys is None else ys
                ys[row, t] = y
        finals.append(state)
    return [np.stack(leaves) for leaves in zip(*finals, strict=True)], ys


def initial_carry(case, params, batch=1):
    with jax.enable_x64(True):
        return case.cell.initial_carry(params, batch, np.float64)


def draw(case, rng, batch=B, steps=T):
    """Float64 parameters, a given carry, and inputs."""
    params = case.params(rng)
    carry = jax.tree.map(lambda a: rng.normal(size=a.shape), initial_carry(case, params, batch))
    return params, carry, rng.normal(size=(batch, steps, *case.x_shape))


def cast(dtype, *trees):
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), trees)


def close(got, want, tolerance):
    got = [np.asarray(a, float) for a in jax.tree.leaves(got)]
    for a, b in zip(got, jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# Rounding of six steps and one product of up to four terms; bfloat16 has 8 bits.
TOLERANCE = {"float64": 1e-13, "float32": 3e-6, "bfloat16": 6e-2}


# --- the contract ----------------------------------------------------------------------------
# Programs are compiled once a cell: the tests share `run` and `gradients`, and the shapes.


@case_table
@pytest.mark.parametrize(
    ("dtype", "reverse"),
    [
        ("float64", False),
        ("float64", True),
        ("float32", False),
        ("float32", True),
        ("bfloat16", False),
    ],
)
def test_equals_the_loop_and_keeps_the_dtype(case, dtype, reverse, rng):
    params, carry, xs = draw(case, rng)
    with jax.enable_x64(dtype == "float64"):
        given = cast(dtype, params, carry, xs)
        rounded = jax.tree.map(lambda a: np.asarray(a, np.float64), given)
        filled = given[2].at[~MASK].set(jnp.nan)
        final, ys = run(case.cell, *given[:2], filled, mask=MASK, reset=RESET, reverse=reverse)
        want_final, want_ys = loop(case, *rounded, MASK, RESET, reverse=reverse)
        assert {a.dtype.name for a in jax.tree.leaves((final, ys))} == {dtype}
        close(ys, want_ys, TOLERANCE[dtype])
        close(final, want_final, TOLERANCE[dtype])
    assert type(final) is type(carry)
    np.testing.assert_array_equal(ys[~MASK], 0)
    # Length 0: exactly the carry given.
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b[1]), final, given[1])


@case_table
@directions
def test_starts_from_the_initial_carry_of_the_cell(case, reverse, rng):
    params, _, xs = draw(case, rng)
    params, xs = cast("float32", params, xs)
    start = case.cell.initial_carry(params, B, "float32")
    want = run(case.cell, params, start, xs, mask=ALL, reset=~ALL, reverse=reverse)
    close(run(case.cell, params, None, xs, reverse=reverse), want, 1e-6)


@case_table
@directions
def test_numerical_gradients_in_both_modes(case, reverse, rng):
    with jax.enable_x64(True):
        point, along = (cast(np.float64, *draw(case, rng)) for _ in range(2))

        def value(*arguments, strategy=Strategy.AUTO):
            flags = {"mask": MASK, "reset": RESET, "reverse": reverse}
            out = unroll(case.cell, *arguments, **flags, strategy=strategy)
            return sum(jnp.sum(jnp.sin(3 * leaf)) for leaf in jax.tree.leaves(out))

        @jax.jit
        def derivatives(point, along):
            eps = 1e-5
            above, below = (
                value(*jax.tree.map(lambda p, v, e=e: p + e * v, point, along)) for e in (eps, -eps)
            )
            grads = jax.grad(value, (0, 1, 2))(*point)
            products = jax.tree.map(jnp.vdot, grads, along)
            forward = jax.jvp(functools.partial(value, strategy=Strategy.SCAN), point, along)[1]
            return (above - below) / (2 * eps), forward, sum(jax.tree.leaves(products))

        numerical, forward, backward = derivatives(point, along)
    # Central differences in float64: error about eps² = 1e-10 and 1e-16 / eps = 1e-11.
    np.testing.assert_allclose([forward, backward], [numerical, numerical], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(forward, backward, rtol=1e-12, atol=1e-12)


@case_table
@directions
def test_padded_values_never_matter(case, reverse, rng):
    params, carry, xs = cast("float32", *draw(case, rng))

    def everything(filling, reset):
        filled = xs.at[~MASK].set(filling)
        return gradients(case.cell, params, carry, filled, mask=MASK, reset=reset, reverse=reverse)

    want = everything(0.0, RESET & MASK)
    for filling in (np.nan, np.inf, -1e30):
        jax.tree.map(np.testing.assert_array_equal, everything(filling, RESET | ~MASK), want)
    by_xs = np.abs(want[0][2]).reshape(B, T, -1).max(-1)
    np.testing.assert_array_equal(by_xs > 0, MASK)


@case_table
@directions
def test_resets_equal_segments_run_separately(case, reverse, rng):
    params, _, xs = cast("float32", *draw(case, rng))
    start = case.cell.initial_carry(params, B, "float32")
    second = np.broadcast_to(np.arange(T) >= 2, (B, T))
    read = functools.partial(run, case.cell, params, start, xs, reverse=reverse)
    parts = [read(mask=part, reset=~ALL) for part in (~second, second)]
    for first in (False, True):  # a flag at the very first step changes nothing here
        flags = np.zeros((B, T), bool)
        flags[:, 2], flags[:, 0] = True, first
        final, ys = read(mask=ALL, reset=flags)
        close(ys, parts[0][1] + parts[1][1], 1e-6)
        close(final, parts[0 if reverse else 1][0], 1e-6)


@case_table
def test_reversing_twice_is_reading_forwards(case, rng):
    params, carry, xs = cast("float32", *draw(case, rng))

    def flip_rows(a):
        """Each row's real steps in opposite order; the padded ones stay."""
        a = np.array(a)
        for row, real in zip(a, MASK, strict=True):
            row[real] = row[real][::-1]
        return a

    final, ys = run(case.cell, params, carry, xs, mask=MASK, reset=~ALL)
    flipped = flip_rows(xs)
    back, zs = run(case.cell, params, carry, flipped, mask=MASK, reset=~ALL, reverse=True)
    close((back, flip_rows(zs)), (final, ys), 1e-6)


@case_table
@directions
def test_causality(case, reverse, rng):
    params, carry, xs = cast("float32", *draw(case, rng))
    read = functools.partial(run, case.cell, params, carry, mask=ALL, reset=~ALL, reverse=reverse)
    changed = xs.at[:, 3].add(0.5)
    differs = np.asarray(read(xs)[1] != read(changed)[1]).reshape(B, T, -1).any(-1)
    seen_from = np.arange(T) <= 3 if reverse else np.arange(T) >= 3
    np.testing.assert_array_equal(differs, np.broadcast_to(seen_from, (B, T)))


@case_table
def test_step_by_step_and_in_chunks_equal_the_whole(case, rng):
    params, carry, xs = cast("float32", *draw(case, rng))
    want = run(case.cell, params, carry, xs, mask=MASK, reset=RESET)
    state, parts = carry, []
    for at in (slice(0, 2), slice(2, 4), slice(4, 6)):
        flags = {"mask": MASK[:, at], "reset": RESET[:, at]}
        state, part = run(case.cell, params, state, xs[:, at], **flags)
        parts.append(part)
    close((state, jnp.concatenate(parts, 1)), want, 1e-6)

    state, outputs, step = carry, [], jax.jit(case.cell.step)
    for t in range(T):
        state, y = step(params, state, xs[:, t])
        outputs.append(y)
    want = run(case.cell, params, carry, xs, mask=ALL, reset=~ALL)
    close((state, jnp.stack(outputs, 1)), want, 1e-6)


@case_table
def test_vmap_and_checkpoint(case, rng):
    models = [cast("float32", *draw(case, rng)) for _ in range(2)]

    def value(*arguments):
        out = unroll(case.cell, *arguments, mask=MASK, reset=RESET)
        return sum(jnp.sum(jnp.sin(3 * leaf)) for leaf in jax.tree.leaves(out)), out

    many = jax.jit(jax.vmap(jax.grad(jax.checkpoint(value), (0, 1, 2), has_aux=True)))
    got = many(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *models))
    for number, model in enumerate(models):
        one = gradients(case.cell, *model, mask=MASK, reset=RESET)
        # Gradients are sums of some hundred terms of either sign.
        close(jax.tree.map(lambda a, number=number: a[number], got), one, 1e-4)


@case_table
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_finite_at_extremes(case, dtype, rng):
    params, carry, xs = draw(case, rng)
    given = cast(dtype, params, carry, 1e4 * np.sign(xs))
    for leaf in jax.tree.leaves(gradients(case.cell, *given, mask=MASK, reset=RESET)):
        assert leaf.dtype == dtype
        assert jnp.isfinite(leaf).all()


@case_table
def test_a_cell_is_a_value(case):
    """Strategies and compiled functions keep cells as static arguments."""
    assert hash(case.cell) == hash(dataclasses.replace(case.cell))
    assert case.cell == dataclasses.replace(case.cell)
    assert case.cell != dataclasses.replace(case.cell, features=7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        case.cell.features = 7
