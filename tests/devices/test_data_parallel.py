"""N devices against one: gradients, losses, steps left out; and moving rows to devices and back."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from seqnets.training.memory import memory_of
from seqnets.training.parallel import DataParallel

from seqnets.cells import LSTM
from seqnets.dropout import dropout
from seqnets.optimizers import Plateau, adam, make_optimizer
from seqnets.recurrence import unroll
from seqnets.reduction import Weighted, weighted
from seqnets.training import parallel
from seqnets.training.loop import sums_to_host
from seqnets.training.state import TrainState, create_state, step_keys

B, T, D, H = 8, 5, 3, 4
CELL = LSTM(H)
OPTIMIZER = make_optimizer(
    adam(1.0), learning_rate=0.02, clip_norm=0.5, weight_decay=0.01, plateau=Plateau()
)
LENGTHS = np.array([5, 5, 4, 5, 1, 0, 2, 1])  # 19 real steps on the first half, 4 on the second


def loss_fn(params, carry, batch, keys):
    """A recurrent regression with a carried state, noise by rows, and ragged rows."""
    carry, ys = unroll(CELL, params, carry, batch["xs"], mask=batch["mask"])
    rows, shared = keys or (None, None)
    errors = jnp.sum((dropout(ys, rows, 0.4) - batch["targets"]) ** 2, -1)
    if keys is not None:
        errors *= 0.5 + jax.random.uniform(shared)
    loss = weighted(errors, batch["mask"])
    return loss, (
        carry,
        {"squares": loss, "rows": Weighted(jnp.float32(0), jnp.sum(errors * 0 + 1))},
    )


def draw_batch(rng):
    xs, targets = (rng.normal(size=(B, T, n)).astype("float32") for n in (D, H))
    return {"xs": xs, "targets": targets, "mask": np.arange(T) < LENGTHS[:, None]}


def draw_state(rng, optimizer):
    like = jax.eval_shape(lambda key: CELL.init(key, D), jax.random.key(0))
    draw = functools.partial(jax.tree.map, lambda a: jnp.asarray(rng.normal(size=a.shape), "f4"))
    params, carry = draw(like), draw(CELL.initial_carry(None, B, "float32"))
    return create_state(params, optimizer, jax.random.key(1), carry)


def layout(size, shard_optimizer=False):
    return DataParallel(jax.devices()[:size], shard_optimizer)


def close(got, want, tolerance):
    check = functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    jax.tree.map(check, got, want)


@pytest.mark.parametrize(("size", "shard"), [(1, False), (2, False), (4, False), (4, True)])
def test_gradient_is_that_of_the_global_mean(size, shard, rng):
    batch, state = draw_batch(rng), draw_state(rng, optax.sgd(1.0))
    keys = step_keys(state.key, 0, B, None)

    @jax.jit
    def mean(params, rows):
        carry, given, own = jax.tree.map(
            lambda a: jnp.asarray(a)[rows], (state.carry, batch, keys.rows)
        )
        return loss_fn(params, carry, given, keys._replace(rows=own))[0].mean()

    grad = jax.jit(jax.grad(mean))
    want = grad(state.params, np.arange(B))
    devices = layout(size, shard)
    step = devices.train_step(loss_fn, optax.sgd(1.0))
    new, info = step(devices.place(state), devices.split(batch), np.float32(0))
    got = jax.tree.map(lambda a, b: a - np.asarray(b), state.params, devices.gather(new).params)
    close(got, want, 2e-6)  # parameters of size 1 in float32
    assert float(info.loss.weight) == LENGTHS.sum()
    assert float(info.metrics["rows"].weight) == B * T
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(want)))
    np.testing.assert_allclose(info.gradient_norm, norm, rtol=1e-5)
    # A mean over the devices of each one's own mean is something else on these rows.
    first, second = (grad(state.params, rows).w_h for rows in np.arange(B).reshape(2, -1))
    assert abs((first + second) / 2 - want.w_h).max() > 0.02


def test_one_two_and_four_devices_give_the_same_losses(rng):
    optimizer = OPTIMIZER
    batches, state = [draw_batch(rng) for _ in range(3)], draw_state(rng, optimizer)

    def train(size, accumulate, shard=False):
        devices = layout(size, shard)
        step = devices.train_step(loss_fn, optimizer, accumulate)
        placed, losses = devices.place(state), []
        for number in range(30):
            batch = devices.split(batches[number % 3])
            placed, info = step(placed, batch, np.float32(number / 30))
            losses.append(info.loss.mean())
        return np.array(jax.device_get(losses)), devices.gather(placed)

    losses, final = train(1, 1)
    assert losses[-3:].mean() < 0.9 * losses[:3].mean()  # it learns, so it has gone somewhere
    for given in ((2, 1), (4, 1), (2, 4), (2, 1, True), (4, 2, True)):
        got, end = train(*given)
        np.testing.assert_allclose(got, losses, rtol=1e-5)
        # Of 30 steps of Adam.
        close(end._replace(step=0, key=0), final._replace(step=0, key=0), 1e-4)
        assert int(end.step) == 30


def test_each_device_holds_its_part_of_the_optimizers_state(rng):
    devices, optimizer = layout(4, shard_optimizer=True), OPTIMIZER
    placed, batch = devices.place(draw_state(rng, optimizer)), devices.split(draw_batch(rng))
    step = devices.train_step(loss_fn, optimizer).lower(placed, batch, np.float32(0)).compile()
    for _ in range(2):
        placed, _ = step(placed, batch, np.float32(0))
        adam_state = placed.opt_state[1][0]
        for moments in (adam_state.mu, adam_state.nu):  # D is not a multiple of 4
            assert {x.data.shape for x in moments.w_x.addressable_shards} == {(D, H)}
            assert {x.data.shape for x in moments.w_h.addressable_shards} == {(H // 4, 4 * H)}
        assert all(x.is_fully_replicated for x in jax.tree.leaves(placed.params))
    whole = layout(4).place(devices.gather(placed))
    moments = memory_of(whole, step).optimizer - memory_of(placed, step).optimizer
    assert moments == 2 * 4 * (D * 4 * H + H * 4 * H + 4 * H) * 3 // 4


def test_accumulation_cuts_the_rows_of_one_device(rng):
    devices, optimizer = layout(2), optax.sgd(1.0)
    placed, batch = devices.place(draw_state(rng, optimizer)), devices.split(draw_batch(rng))
    step = devices.train_step(loss_fn, optimizer, accumulate=8)
    with pytest.raises(ValueError, match=r"accumulate: expected a divisor of the 4 rows .* got 8"):
        step(placed, batch, np.float32(0))


@pytest.mark.parametrize("shard", [False, True])
def test_a_bad_row_on_one_device_holds_all_devices_back(shard, rng):
    optimizer, devices = optax.adam(0.1), layout(4, shard)
    state, batch = draw_state(rng, optimizer), draw_batch(rng)
    batch["targets"][2, 0] = np.nan
    step = devices.train_step(loss_fn, optimizer)
    placed, info = step(devices.place(state), devices.split(batch), np.float32(0))
    assert not bool(info.finite)
    after = devices.gather(placed)
    for name in ("params", "opt_state", "carry"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(state, name))
    assert int(after.step) == 1


@pytest.mark.parametrize(("size", "shard"), [(1, False), (2, False), (2, True)])
def test_the_placed_state_is_donated_and_the_callers_is_not(size, shard, rng):
    optimizer, devices = optax.adam(0.1), layout(size, shard)
    state, batch = draw_state(rng, optimizer), draw_batch(rng)
    before = jax.tree.map(np.array, state._replace(key=()))
    placed = devices.place(state)
    devices.train_step(loss_fn, optimizer)(placed, devices.split(batch), np.float32(0))
    assert placed.params.w_h.is_deleted()
    assert placed.carry.h.is_deleted()
    assert placed.opt_state[0].mu.w_h.is_deleted()
    jax.tree.map(np.testing.assert_array_equal, state._replace(key=()), before)
    assert jax.random.uniform(state.key) == jax.random.uniform(jax.random.key(1))
    devices.place(state)


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_place_and_gather(size, shard, rng):
    devices = layout(size, shard)
    state = TrainState(
        step=np.int32(7),
        params={"w": jnp.asarray(rng.normal(size=(3, 2)), "bfloat16")},
        opt_state=(
            np.arange(3, dtype="int32"),
            jax.random.split(jax.random.key(4), 4),
            jnp.asarray(rng.normal(size=(5, 8)), "bfloat16"),
        ),
        carry=(rng.normal(size=(8, 3)).astype("float32"), np.arange(8, dtype="int32")),
        key=jax.random.key(3, impl="rbg"),
    )
    placed = devices.place(state)
    assert placed.carry[0].shape == (size, 8 // size, 3)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(placed)} == {size}
    back = devices.gather(placed)
    for got, want in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        if jnp.issubdtype(want.dtype, jax.dtypes.prng_key):
            assert (got == want).all()
        else:
            assert type(got) is np.ndarray
            np.testing.assert_array_equal(got, want)
    assert devices.gather(devices.place(state._replace(carry=()))).carry == ()
    with pytest.raises(ValueError, match="multiple of the 3 devices, got 8"):
        layout(3).place(state)


def test_split():
    devices = layout(4)
    with pytest.raises(ValueError, match=r"batch: expected arrays with rows first.* got a scalar"):
        devices.split({"a": np.arange(8), "b": 2.0})
    tree = {"a": np.arange(24.0).reshape(8, 3), "b": np.arange(8)}
    parts = devices.split(tree)
    assert parts["a"].shape == (4, 2, 3)
    np.testing.assert_array_equal(parts["b"], [[0, 1], [2, 3], [4, 5], [6, 7]])
    with pytest.raises(ValueError, match="expected a multiple of the 4 devices, got 6"):
        devices.split(np.arange(6))
    np.testing.assert_array_equal(
        devices.split(np.arange(1, 7), pad=True), [[1, 2], [3, 4], [5, 6], [0, 0]]
    )
    np.testing.assert_array_equal(devices.split(np.arange(8), pad=True), parts["b"])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_evaluation_over_rows_that_do_not_divide(size, rng):
    """Three rows of seven steps in all, filled up with rows of zeros."""
    devices = layout(size)
    state, batch = draw_state(rng, optax.sgd(1.0)), draw_batch(rng)
    few = jax.tree.map(lambda a: np.asarray(a)[[0, 4, 7]], (state.carry, batch))
    loss, (want_carry, _) = jax.jit(loss_fn)(state.params, *few, None)
    step = devices.evaluation_step(loss_fn)
    params = devices.place(state).params
    carry, sums = step(params, *(devices.split(part, pad=True) for part in few))
    assert sums["loss"].total.shape == (size,)
    sums = sums_to_host([sums])
    close((sums["loss"], sums["squares"]), (loss, loss), 1e-6)
    got = jax.tree.map(lambda a: np.array(a).reshape(-1, H)[:3], carry)
    close(got, want_carry, 1e-6)
    again, _ = step(params, carry, devices.split(few[1], pad=True))
    assert again.h.shape == carry.h.shape


def test_a_layout_needs_devices():
    assert layout(3).size == 3
    with pytest.raises(ValueError, match="devices: expected at least one device, got none"):
        DataParallel([])


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, True),
        ({"JAX_NUM_CPU_DEVICES": "2"}, False),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, False),
        ({"XLA_FLAGS": "--xla_dump_to=x"}, True),
    ],
)
def test_use_all_cores(environment, asked, monkeypatch):
    for name in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(jax.config, "update", lambda *arguments: calls.append(arguments))
    parallel.use_all_cores()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert calls == ([("jax_num_cpu_devices", cores)] if asked else [])


def test_use_all_cores_comes_too_late_once_jax_is_in_use(monkeypatch):
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    monkeypatch.setattr(parallel, "_usable_cores", lambda: 3)
    assert jax.devices()
    with pytest.raises(RuntimeError, match="before backends are initialized"):
        parallel.use_all_cores()
