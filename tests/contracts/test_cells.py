"""What every cell must satisfy when `unroll` runs it, over a table of cells, dtypes and directions.

The oracle is a loop over rows and steps in float64 NumPy, written from the equations in the
docstrings of the cells. `KINDS` has one cell of every kind that the engine can tell apart, and
one that exists only here; all of the contract is tested on them. `FURTHER` has the cells that
bring nothing but other equations: their values, gradients and extremes are tested.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from seqnets import cells
from seqnets.cells import (
    GRU,
    LSTM,
    MGU,
    SRU,
    ConvLSTM,
    CoupledLSTM,
    Elman,
    GatedCell,
    GRUResetBefore,
    IndRNN,
    LayerNormGRU,
    LayerNormLSTM,
    LearnedCarry,
    MGUResetAfter,
    PeepholeLSTM,
    ProjectedLSTM,
)
from seqnets.recurrence import Execution, unroll

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


# --- a cell that exists only here ------------------------------------------------------------


class Start(NamedTuple):
    h: Any


@dataclasses.dataclass(frozen=True)
class LearnedStart(GatedCell):
    """Normalized products, added apart, and a first carry that is a parameter."""

    gates: ClassVar[int] = 1

    def init(self, key, in_features):
        return super().init(key, in_features)._replace(b=None, extra=jnp.zeros(self.features))

    def initial_carry(self, params, batch, dtype):
        start = jnp.asarray(params.extra, dtype)
        return Start(h=jnp.broadcast_to(start, (batch, self.features)))

    def pointwise(self, extra, z_x, z_h, carry):
        z_x, z_h = (z / (1 + jnp.max(jnp.abs(z), -1, keepdims=True)) for z in (z_x, z_h))
        return Start(h=jnp.tanh(z_x + z_h))


# --- the equations once more, one row and one step, in NumPy ---------------------------------


def sigmoid(x):
    return 0.5 * (1 + np.tanh(x / 2))


def blocks(w, gates):
    return np.split(w, gates, axis=-1)


def elman(p, carry, x):
    (h,) = carry
    h = np.tanh(x @ p.w_x + h @ p.w_h + p.b)
    return (h,), h


def products(p, h, x, gates):
    """``x W_x + b + h W_h``, gate by gate."""
    return blocks(x @ p.w_x + p.b + h @ p.w_h, gates)


def lstm(p, carry, x):
    c, h = carry
    i, f, g, o = products(p, h, x, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (c, h), h


def lstm_peephole(p, carry, x):
    c, h = carry
    i, f, g, o = products(p, h, x, 4)
    forgotten = sigmoid(f + p.extra.p_f * c) * c
    c = forgotten + sigmoid(i + p.extra.p_i * c) * np.tanh(g)
    h = sigmoid(o + p.extra.p_o * c) * np.tanh(c)
    return (c, h), h


def lstm_projected(p, carry, x):
    (c, h), _ = lstm(p, carry, x)
    return (c, h @ p.w_p), h @ p.w_p


def lstm_coupled(p, carry, x):
    c, h = carry
    f, g, o = products(p, h, x, 3)
    c = sigmoid(f) * c + (1 - sigmoid(f)) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (c, h), h


def norm(z):
    return (z - np.mean(z)) / np.sqrt(np.var(z) + 1e-5)


def lstm_layer_norm(p, carry, x):
    (c, h), e = carry, p.extra
    i, f, g, o = blocks(e.scale_x * norm(x @ p.w_x) + e.scale_h * norm(h @ p.w_h) + e.b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(e.scale_c * norm(c) + e.b_c)
    return (c, h), h


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


def gru_layer_norm(p, carry, x):
    ((h,), e), G = (carry, p.extra), 2 * carry[0].size
    gates, n_x, n_h = 0, x @ p.w_x[:, G:], h @ p.w_h[:, G:]
    for scale, z in ((e.scale_x, x @ p.w_x[:, :G]), (e.scale_h, h @ p.w_h[:, :G])):
        gates = gates + scale[:G] * norm(z)
    r, z = blocks(sigmoid(gates + e.b[:G]), 2)
    n = e.scale_x[G:] * norm(n_x) + e.b[G:] + r * (e.scale_h[G:] * norm(n_h) + e.b_hn)
    new = (1 - z) * np.tanh(n) + z * h
    return (new,), new


def mgu_before(p, carry, x):
    (h,) = carry
    (x_f, x_n), (w_f, w_n) = blocks(x @ p.w_x + p.b, 2), blocks(p.w_h, 2)
    f = sigmoid(x_f + h @ w_f)
    new = (1 - f) * h + f * np.tanh(x_n + (f * h) @ w_n)
    return (new,), new


def mgu_after(p, carry, x):
    (h,) = carry
    (x_f, x_n), (h_f, h_n) = blocks(x @ p.w_x + p.b, 2), blocks(h @ p.w_h + p.b_h, 2)
    f = sigmoid(x_f + h_f)
    new = (1 - f) * np.tanh(x_n + f * h_n) + f * h
    return (new,), new


def indrnn(p, carry, x):
    h = np.tanh(x @ p.w_x + p.u * carry[0] + p.b)
    return (h,), h


def sru(p, carry, x):
    (c,), H = carry, carry[0].size
    z = x @ p.w_x
    s = z[3 * H :] if z.size == 4 * H else np.sqrt(3) * x
    f = sigmoid(z[H : 2 * H] + p.v[:H] * c + p.b[:H])
    r = sigmoid(z[2 * H : 3 * H] + p.v[H:] * c + p.b[H:])
    c = f * c + (1 - f) * z[:H]
    return (c,), r * c + (1 - r) * s


def convolve(x, w):
    """Zeros around the image: one fewer than the kernel, the odd one at the end."""
    sizes, image = w.shape[:-2], x.shape[:-1]
    x = np.pad(x, [((k - 1) // 2, k // 2) for k in sizes] + [(0, 0)])
    return sum(
        x[tuple(slice(o, o + n) for o, n in zip(at, image, strict=True))] @ w[at]
        for at in np.ndindex(*sizes)
    )


def conv_lstm(p, carry, x):
    c, h = carry
    i, f, g, o = blocks(convolve(x, p.w_x) + convolve(h, p.w_h) + p.b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (c, h), h


def learned_carry(p, carry, x):
    return lstm(p.cell, carry, x)


def learned_start(p, carry, x):
    z_x, z_h = x @ p.w_x, carry[0] @ p.w_h
    h = np.tanh(z_x / (1 + np.abs(z_x).max()) + z_h / (1 + np.abs(z_h).max()))
    return (h,), h


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


KINDS = {
    "lstm": Case(LSTM(H), lstm),
    "lstm-projected": Case(ProjectedLSTM(2, hidden=H), lstm_projected),
    "gru": Case(GRU(H), gru_after),
    "conv-lstm-1d": Case(ConvLSTM(2, image=(3,), kernel=(2,)), conv_lstm, x_shape=(3, D)),
    "learned-carry": Case(LearnedCarry(LSTM(H)), learned_carry),
    "learned-start": Case(LearnedStart(H), learned_start),
}
FURTHER = {
    "elman": Case(Elman(H), elman),
    "gru-reset-before": Case(GRUResetBefore(H), gru_before),
    "lstm-peephole": Case(PeepholeLSTM(H), lstm_peephole),
    "lstm-coupled": Case(CoupledLSTM(H), lstm_coupled),
    "lstm-layer-norm": Case(LayerNormLSTM(H), lstm_layer_norm),
    "gru-layer-norm": Case(LayerNormGRU(H), gru_layer_norm),
    "mgu": Case(MGU(H), mgu_before),
    "mgu-reset-after": Case(MGUResetAfter(H), mgu_after),
    "indrnn": Case(IndRNN(H, activation=jnp.tanh), indrnn),
    "sru": Case(SRU(D), sru),
    "sru-projected": Case(SRU(H), sru),
    "conv-lstm-2d": Case(ConvLSTM(2, (2, 3), (3, 2)), conv_lstm, x_shape=(2, 3, D)),
}
EVERY = KINDS | FURTHER


def table(every, *more):
    """Cases with further arguments: all of ``more`` for the kinds, ``every`` for the rest too."""
    return [
        pytest.param(case, *arguments, id="-".join(map(str, (name, *arguments))))
        for name, case in EVERY.items()
        for arguments in ((*every, *more) if name in KINDS else every)
    ]


every_cell = pytest.mark.parametrize("case", table([()]))
kinds = pytest.mark.parametrize("case", KINDS.values(), ids=KINDS.keys())
directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])

run = jax.jit(unroll, static_argnums=0, static_argnames=("reverse", "execution"))


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
    """Whatever holds the leaves: the oracles have lists for carries."""
    leaves = map(jax.tree.leaves, (got, want))
    chex.assert_trees_all_close(*leaves, rtol=tolerance, atol=tolerance)


# Rounding of six steps and one product of up to four terms; bfloat16 has 8 bits.
TOLERANCE = {"float64": 1e-13, "float32": 3e-6, "bfloat16": 6e-2}


# --- the contract ----------------------------------------------------------------------------
# Programs are compiled once a cell: the tests share `run` and `gradients`, and the shapes.


@pytest.mark.parametrize(
    ("case", "dtype", "reverse"),
    table(
        [("float64", False), ("float32", False), ("bfloat16", False)],
        ("float64", True),
        ("float32", True),
    ),
)
def test_equals_the_loop_and_keeps_the_dtype(case, dtype, reverse, rng):
    check_against_the_loop(case, dtype, reverse, "auto", rng)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", [n for n, c in EVERY.items() if isinstance(c.cell, GatedCell)])
def test_the_plain_scan_of_gated_cells_equals_the_loop(name, dtype, rng):
    check_against_the_loop(EVERY[name], dtype, False, "scan", rng)


def check_against_the_loop(case, dtype, reverse, strategy, rng):
    params, carry, xs = draw(case, rng)
    with jax.enable_x64(dtype == "float64"):
        given = cast(dtype, params, carry, xs)
        rounded = jax.tree.map(lambda a: np.asarray(a, np.float64), given)
        filled = given[2].at[~MASK].set(jnp.nan)
        flags = {"mask": MASK, "reset": RESET, "reverse": reverse, "execution": Execution(strategy)}
        final, ys = run(case.cell, *given[:2], filled, **flags)
        want_final, want_ys = loop(case, *rounded, MASK, RESET, reverse=reverse)
        assert {a.dtype.name for a in jax.tree.leaves((final, ys))} == {dtype}
        close(ys, want_ys, TOLERANCE[dtype])
        close(final, want_final, TOLERANCE[dtype])
    assert type(final) is type(carry)
    np.testing.assert_array_equal(ys[~MASK], 0)
    # Length 0: exactly the carry given.
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b[1]), final, given[1])


@kinds
@directions
def test_starts_from_the_initial_carry_of_the_cell(case, reverse, rng):
    params, _, xs = draw(case, rng)
    params, xs = cast("float32", params, xs)
    start = case.cell.initial_carry(params, B, "float32")
    want = run(case.cell, params, start, xs, mask=ALL, reset=~ALL, reverse=reverse)
    close(run(case.cell, params, None, xs, reverse=reverse), want, 1e-6)


@pytest.mark.parametrize(("case", "reverse"), table([(False,)], (True,)))
def test_numerical_gradients_in_both_modes(case, reverse, rng):
    with jax.enable_x64(True):
        point, along = (cast(np.float64, *draw(case, rng)) for _ in range(2))

        def value(*arguments, execution=Execution()):
            flags = {"mask": MASK, "reset": RESET, "reverse": reverse}
            out = unroll(case.cell, *arguments, **flags, execution=execution)
            return sum(jnp.sum(jnp.sin(3 * leaf)) for leaf in jax.tree.leaves(out))

        @jax.jit
        def derivatives(point, along):
            eps = 1e-5
            above, below = (
                value(*jax.tree.map(lambda p, v, e=e: p + e * v, point, along)) for e in (eps, -eps)
            )
            grads = jax.grad(value, (0, 1, 2))(*point)
            products = jax.tree.map(jnp.vdot, grads, along)
            forward = jax.jvp(functools.partial(value, execution=Execution("scan")), point, along)[
                1
            ]
            return (above - below) / (2 * eps), forward, sum(jax.tree.leaves(products))

        numerical, forward, backward = derivatives(point, along)
    # Central differences in float64: error about eps² = 1e-10 and 1e-16 / eps = 1e-11.
    np.testing.assert_allclose([forward, backward], [numerical, numerical], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(forward, backward, rtol=1e-12, atol=1e-12)


@kinds
@directions
def test_padded_values_never_matter(case, reverse, rng):
    params, carry, xs = cast("float32", *draw(case, rng))

    def everything(filling, reset):
        filled = xs.at[~MASK].set(filling)
        return gradients(case.cell, params, carry, filled, mask=MASK, reset=reset, reverse=reverse)

    want = everything(0.0, RESET & MASK)
    for filling in (np.nan, np.inf, -1e30):
        chex.assert_trees_all_equal(everything(filling, RESET | ~MASK), want, strict=True)
    by_xs = np.abs(want[0][2]).reshape(B, T, -1).max(-1)
    np.testing.assert_array_equal(by_xs > 0, MASK)


@kinds
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


@kinds
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


@kinds
@directions
def test_causality(case, reverse, rng):
    params, carry, xs = cast("float32", *draw(case, rng))
    read = functools.partial(run, case.cell, params, carry, mask=ALL, reset=~ALL, reverse=reverse)
    changed = xs.at[:, 3].add(0.5)
    differs = np.asarray(read(xs)[1] != read(changed)[1]).reshape(B, T, -1).any(-1)
    seen_from = np.arange(T) <= 3 if reverse else np.arange(T) >= 3
    np.testing.assert_array_equal(differs, np.broadcast_to(seen_from, (B, T)))


@kinds
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


@kinds
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


@pytest.mark.parametrize(("case", "dtype"), table([("bfloat16",)], ("float32",)))
def test_finite_at_extremes(case, dtype, rng):
    params, carry, xs = draw(case, rng)
    given = cast(dtype, params, carry, 1e4 * np.sign(xs))
    got = gradients(case.cell, *given, mask=MASK, reset=RESET)
    chex.assert_type(jax.tree.leaves(got), jnp.dtype(dtype))
    chex.assert_tree_all_finite(got)


class Steps(chex.TestCase):
    """One step by itself, without the engine."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(*EVERY.items())
    def test_a_step_is_its_equations_with_and_without_jit(self, case):
        params, carry, xs = draw(case, np.random.default_rng(5), steps=1)
        rows = [case.oracle(params, [leaf[b] for leaf in carry], xs[b, 0]) for b in range(B)]
        want, y = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        with jax.enable_x64(True):
            got = self.variant(case.cell.step)(*cast("float64", params, carry, xs[:, 0]))
        want = type(carry)(*want), y
        chex.assert_trees_all_equal_shapes_and_dtypes(got, want)
        chex.assert_trees_all_close(got, want, rtol=TOLERANCE["float64"], atol=TOLERANCE["float64"])

    @parameterized.named_parameters(*EVERY.items())
    def test_numerical_gradients_of_a_step(self, case):
        with jax.enable_x64(True):
            params, carry, xs = cast("float64", *draw(case, np.random.default_rng(5), steps=1))
            leaves, structure = jax.tree.flatten((params, carry, xs[:, 0]))
            step = jax.jit(lambda *leaves: case.cell.step(*jax.tree.unflatten(structure, leaves)))
            # Central differences with ε = 1e-4 are right to ε²; chex multiplies by the size.
            tolerance = {"atol": 1e-6 / leaves[0].size, "rtol": 1e-6}
            chex.assert_numerical_grads(step, leaves, 1, modes=["rev"], eps=1e-4, **tolerance)


def test_every_public_cell_is_in_the_table():
    """Composites are made of them; they have tests of their own."""
    public = {c for c in vars(cells).values() if isinstance(c, type) and hasattr(c, "step")}
    concrete = {c for c in public if not inspect.isabstract(c)}
    concrete -= {cells.CellStack, cells.WithCarries}
    assert concrete <= {type(case.cell) for case in EVERY.values()}
    assert set(cells.CELLS.values()) <= concrete


def of_other_size(cell):
    if isinstance(cell, LearnedCarry):
        return dataclasses.replace(cell, cell=of_other_size(cell.cell))
    return dataclasses.replace(cell, features=7)


@every_cell
def test_a_cell_is_a_value(case):
    """Strategies and compiled functions keep cells as static arguments."""
    assert hash(case.cell) == hash(dataclasses.replace(case.cell))
    assert case.cell == dataclasses.replace(case.cell)
    assert case.cell != of_other_size(case.cell)
    for field in dataclasses.fields(case.cell):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(case.cell, field.name, 7)
