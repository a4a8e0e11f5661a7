"""Recurrent dropout, zoneout and weight drop: what is drawn, and what the run makes of it."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GRU, LSTM, SRU, ConvLSTM, IndRNN, LearnedCarry, PeepholeLSTM
from seqnets.cells.prepared import PreparedCell
from seqnets.recurrence import Execution, Noise, Regularization, unroll

B, T, D, H = 3, 7, 2, 4
STRATEGIES = pytest.mark.parametrize("strategy", ["fused", "scan"])


def keys(seed=0, rows=B):
    return jax.random.split(jax.random.key(seed), rows)


def draw(cell, rng):
    params = cell.init(jax.random.key(0), D)
    tree = (params, cell.initial_carry(params, B, "float32"), jnp.zeros((B, T, D)))
    return jax.tree.map(lambda x: jnp.asarray(x + 0.5 * rng.normal(size=x.shape)), tree)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_loop(params, carry, xs, mask, hidden, updates):
    """The equations of the three papers in NumPy, one row and one step at a time."""
    w_x, w_h, b = (np.asarray(w, "f8") for w in params[:3])
    ys = np.zeros((B, T, H))
    c, h = (np.array(part, "f8") for part in carry)
    for row in range(B):
        for t in range(T):
            if not mask[row, t]:
                continue
            z = xs[row, t] @ w_x + (hidden[row] * h[row]) @ w_h + b
            i, f, g, o = np.split(z, 4)
            new_c = sigmoid(f) * c[row] + sigmoid(i) * np.tanh(g)
            new_h = sigmoid(o) * np.tanh(new_c)  # of the new c, before it is zoned out
            for old, new, update in ((c, new_c, updates.c), (h, new_h, updates.h)):
                share = update[row, t] if update.dtype == bool else update[0, t]
                old[row] = old[row] + share * (new - old[row])
            ys[row, t] = h[row]
    return (c, h), ys


@STRATEGIES
@pytest.mark.parametrize("training", [True, False])
def test_the_run_is_that_of_the_equations(strategy, training, rng):
    with jax.enable_x64(True):
        cell = LSTM(H)
        params, carry, xs = draw(cell, rng)
        mask = rng.random((B, T)) < 0.8
        chosen = Regularization(recurrent_dropout=0.4, zoneout=(("c", 0.5), ("h", 0.2)))
        noise = chosen.noise(cell, params, B, T, keys() if training else None)
        got = unroll(
            cell,
            params,
            carry,
            xs,
            mask=jnp.asarray(mask),
            noise=noise,
            execution=Execution(strategy),
        )
        hidden = np.ones((B, H)) if noise.hidden is None else np.asarray(noise.hidden, "f8")
        updates = jax.tree.map(np.asarray, noise.updates)
        want = lstm_loop(params, carry, np.asarray(xs), mask, hidden, updates)
        # The weight 1 - rate is a float32.
        chex.assert_trees_all_close(*map(jax.tree.leaves, (got, want)), atol=1e-6)


def test_the_draws_have_their_rates_and_follow_the_row():
    cell, rows, steps = LSTM(50), 40, 60
    params = cell.init(jax.random.key(0), D)
    chosen = Regularization(recurrent_dropout=0.3, zoneout=(("c", 0.6), ("h", 0.1)))
    noise = chosen.noise(cell, params, rows, steps, keys(rows=rows))
    assert set(np.unique(noise.hidden)) == {np.float32(0), np.float32(1 / 0.7)}
    # 2000 draws of the factor and 120,000 of each flag: about four standard deviations.
    assert abs(float((noise.hidden > 0).mean()) - 0.7) < 0.04
    assert abs(float(noise.updates.c.mean()) - 0.4) < 0.006
    assert abs(float(noise.updates.h.mean()) - 0.9) < 0.004
    both = Regularization(zoneout=0.5).noise(cell, params, rows, steps, keys(rows=rows)).updates
    assert abs(float((both.c == both.h).mean()) - 0.5) < 0.006  # drawn apart
    half = chosen.noise(cell, params, 20, steps, keys(rows=rows)[20:])
    jax.tree.map(lambda all_, part: np.testing.assert_array_equal(all_[20:], part), noise, half)


def test_evaluation_moves_by_the_expectation():
    cell = LSTM(H)
    params = cell.init(jax.random.key(0), D)
    noise = Regularization(0.5, (("c", 0.25),)).noise(cell, params, B, T, None)
    assert noise.hidden is None
    np.testing.assert_array_equal(noise.updates.c, np.full((1, T), 0.75, "f4"))
    np.testing.assert_array_equal(noise.updates.h, np.ones((1, T), "f4"))
    one = Regularization(zoneout=0.1).noise(GRU(H), GRU(H).init(jax.random.key(0), D), B, T, None)
    np.testing.assert_array_equal(one.updates.h, np.full((1, T), 0.9, "f4"))


def test_nothing_asked_for_is_nothing_done():
    cell = LSTM(H)
    params = cell.init(jax.random.key(0), D)
    assert Regularization().noise(cell, params, B, T, keys()) == Noise()
    assert Regularization().drop_weights(params, jax.random.key(0)) is params
    assert Regularization(weight_drop=0.5).drop_weights(params, None) is params


def test_weight_drop_is_of_recurrent_weights_alone(rng):
    cell = LearnedCarry(PeepholeLSTM(50))
    params = cell.init(jax.random.key(0), D)
    dropped = Regularization(weight_drop=0.4).drop_weights(params, jax.random.key(1))
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), params, dropped)
    assert [name for name, leaf in changed.cell._asdict().items() if leaf is True] == ["w_h"]
    kept = dropped.cell.w_h != 0
    np.testing.assert_allclose(dropped.cell.w_h[kept], params.cell.w_h[kept] / 0.6, rtol=1e-6)
    assert abs(float(kept.mean()) - 0.6) < 0.02  # 10,000 draws
    other = Regularization(weight_drop=0.4).drop_weights(params, jax.random.key(2))
    assert (other.cell.w_h != dropped.cell.w_h).any()


@pytest.mark.parametrize("cell", [SRU(H), IndRNN(H)], ids=["sru", "ind_rnn"])
def test_other_cells_keep_parts_of_their_carry(cell, rng):
    """Flags that never let anything change leave the carry, and the output where it is h."""
    params, carry, xs = draw(cell, rng)
    never = jax.tree.map(lambda part: jnp.zeros((B, T, *part.shape[1:]), bool), carry)
    final, ys = unroll(cell, params, carry, xs, noise=Noise(updates=never))
    chex.assert_trees_all_equal(final, carry, strict=True)
    if hasattr(carry, "h"):
        np.testing.assert_array_equal(ys, np.broadcast_to(carry.h[:, None], ys.shape))


def test_other_cells_read_the_dropped_state(rng):
    cell = IndRNN(H)
    params, carry, xs = draw(cell, rng)
    blind = unroll(cell, params, carry, xs, noise=Noise(hidden=jnp.zeros((B, H))))[1]
    np.testing.assert_allclose(
        blind, unroll(cell, params._replace(u=jnp.zeros(H)), carry, xs)[1], rtol=1e-6
    )


class CountingCarry(NamedTuple):
    h: Any
    count: Any
    odd: Any


class Counting(PreparedCell):
    """Half of the state before and the input; the number of steps, and whether it is odd."""

    def init(self, key, in_features):
        return ()

    def initial_carry(self, params, batch, dtype):
        zeros = jnp.zeros(batch, jnp.int32)
        return CountingCarry(jnp.zeros((batch, D), dtype), zeros, zeros > 0)

    def prepare(self, params, xs):
        return xs

    def advance(self, params, carry, x):
        h = carry.h / 2 + x
        return CountingCarry(h, carry.count + 1, ~carry.odd), h


@pytest.mark.parametrize("zoneout", [0.25, (("h", 0.25),)])
@pytest.mark.parametrize("training", [True, False])
def test_parts_that_are_not_of_floats_take_their_new_values(zoneout, training, rng):
    """The count is that of the real steps, drawn or not; h moves as it would alone."""
    cell, xs = Counting(D), rng.normal(size=(B, T, D)).astype("f4")
    mask = np.arange(T) < np.array([[T], [3], [0]])
    chosen = Regularization(zoneout=zoneout)
    noise = chosen.noise(cell, (), B, T, keys() if training else None)
    carry, ys = unroll(cell, (), None, xs, mask=mask, noise=noise)
    np.testing.assert_array_equal(carry.count, mask.sum(1))
    np.testing.assert_array_equal(carry.odd, mask.sum(1) % 2 == 1)
    assert carry.count.dtype == jnp.int32
    h = np.zeros((B, D))
    for t in range(T):
        share = noise.updates.h[:, t] if training else 0.75
        h = np.where(mask[:, t, None], h + share * (h / 2 + xs[:, t] - h), h)
        real = mask[:, t]
        np.testing.assert_allclose(ys[real, t], h[real], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(carry.h, h, rtol=1e-5, atol=1e-6)  # T steps of float32


def test_a_part_that_is_not_of_floats_has_no_rate():
    with pytest.raises(TypeError, match=r"zoneout: part 'count' of the carry: .* of floats"):
        Regularization(zoneout=(("count", 0.5),)).noise(Counting(D), (), B, T, None)


def test_zoneout_of_images(rng):
    cell = ConvLSTM(H, image=(5,), kernel=(3,))
    params = cell.init(jax.random.key(0), D)
    noise = Regularization(zoneout=0.5, recurrent_dropout=0.5).noise(cell, params, B, T, keys())
    assert noise.updates.c.shape == (B, T, 5, H)
    assert noise.hidden.shape == (B, 5, H)
    _, ys = unroll(cell, params, None, jnp.ones((B, T, 5, D)), noise=noise)
    assert np.isfinite(ys).all()


def test_errors(rng):
    cell = LSTM(H)
    params, carry, xs = draw(cell, rng)
    for wrong in ({"recurrent_dropout": 1.0}, {"weight_drop": -0.1}, {"zoneout": (("c", 2.0),)}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*expected a value in"):
            Regularization(**wrong)
    with pytest.raises(ValueError, match="zoneout: the carry has no part 'x'"):
        Regularization(zoneout=(("x", 0.5),)).noise(cell, params, B, T, None)
    with pytest.raises(ValueError, match="dropout_keys: expected shape"):
        Regularization(zoneout=0.5).noise(cell, params, B, T, keys(rows=2))
    sru = SRU(H).init(jax.random.key(0), D)
    with pytest.raises(TypeError, match=r"recurrent_dropout: .* part h"):
        Regularization(recurrent_dropout=0.5).noise(SRU(H), sru, B, T, keys())
    with pytest.raises(TypeError, match=r"weight_drop: .* recurrent weights, got SRUParams"):
        Regularization(weight_drop=0.5).drop_weights(sru, jax.random.key(0))
    for noise, message in (
        (Noise(hidden=jnp.ones((B, H + 1))), "noise.hidden: expected shape"),
        (Noise(updates=carry.c), "noise.updates: expected the structure"),
        (Noise(updates=jax.tree.map(lambda p: p > 0, carry)), "noise.updates: expected shape"),
        (Noise(updates=carry), "noise.updates: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            unroll(cell, params, carry, xs, noise=noise)
    with pytest.raises(TypeError, match=r"noise\.hidden: expected a carry with a part h"):
        unroll(SRU(H), sru, None, xs, noise=Noise(hidden=jnp.ones((B, H))))
