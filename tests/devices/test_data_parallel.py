"""N devices against one: gradients, losses, steps left out; and moving rows to devices and back."""

import functools
import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.cells import LSTM
from seqnets.devices import DataParallel, cores, data_parallel, memory_of
from seqnets.dropout import dropout
from seqnets.optimizers import Plateau, adam, make_optimizer
from seqnets.recurrence import unroll
from seqnets.reduction import Weighted, weighted
from seqnets.training import (
    Clock,
    Given,
    LossOutput,
    TrainState,
    make_train_step,
    sums_to_host,
)
from seqnets.training.state import step_keys

B, T, D, H = 8, 5, 3, 4
CELL = LSTM(H)
OPTIMIZER = make_optimizer(
    adam(1.0), learning_rate=0.02, clip_norm=0.5, weight_decay=0.01, plateau=Plateau()
)
LENGTHS = np.array([5, 5, 4, 5, 1, 0, 2, 1])  # 19 real steps on the first half, 4 on the second


def loss_fn(params, batch, given):
    """A recurrent regression with a carried state, noise by rows, and ragged rows."""
    carry, ys = unroll(CELL, params, given.carry, batch["xs"], mask=batch["mask"])
    keys = given.keys
    rows, shared = keys or (None, None)
    errors = jnp.sum((dropout(ys, rows, 0.4) - batch["targets"]) ** 2, -1)
    if keys is not None:
        errors *= 0.5 + jax.random.uniform(shared)
    loss = weighted(errors, batch["mask"])
    metrics = {"squares": loss, "rows": Weighted(jnp.float32(0), jnp.sum(errors * 0 + 1))}
    return LossOutput(loss, carry, metrics)


def draw_batch(rng):
    xs, targets = (rng.normal(size=(B, T, n)).astype("float32") for n in (D, H))
    return {"xs": xs, "targets": targets, "mask": np.arange(T) < LENGTHS[:, None]}


def draw_state(rng, optimizer):
    like = jax.eval_shape(lambda key: CELL.init(key, D), jax.random.key(0))
    draw = functools.partial(jax.tree.map, lambda a: jnp.asarray(rng.normal(size=a.shape), "f4"))
    params, carry = draw(like), draw(CELL.initial_carry(None, B, "float32"))
    return make_train_step(loss_fn, optimizer).init(params, jax.random.key(1), carry=carry)


def layout(size, shard_optimizer=False):
    return DataParallel(jax.devices()[:size], shard_optimizer)


def compiled(devices, optimizer, state, batch, accumulate=1):
    """``step(state, batch, progress) -> (state, info)`` for a placed state and a split batch."""
    program = devices.compile(
        make_train_step(loss_fn, optimizer, accumulate=accumulate), state, batch
    )

    def step(state, batch, progress):
        state, info, reply = program(state, batch, Clock(np.float32(progress), np.int32(0)), ())
        assert reply == ()
        return state, info

    step.program = program
    return step


def close(got, want, tolerance):
    chex.assert_trees_all_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("size", "shard"), [(1, False), (2, False), (4, False), (4, True)])
def test_gradient_is_that_of_the_global_mean(size, shard, rng):
    batch, state = draw_batch(rng), draw_state(rng, optax.sgd(1.0))
    keys = step_keys(state.key, 0, B)

    @jax.jit
    def mean(params, rows):
        carry, given, own = jax.tree.map(
            lambda a: jnp.asarray(a)[rows], (state.carry, batch, keys.rows)
        )
        return loss_fn(params, given, Given(carry, keys._replace(rows=own), (), 0.0)).loss.mean()

    grad = jax.jit(jax.grad(mean))
    want = grad(state.params, np.arange(B))
    devices = layout(size, shard)
    placed, rows = devices.place(state), devices.split(batch)
    new, info = compiled(devices, optax.sgd(1.0), placed, rows)(placed, rows, 0)
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
        placed, losses = devices.place(state), []
        step = compiled(devices, optimizer, placed, devices.split(batches[0]), accumulate)
        for number in range(30):
            batch = devices.split(batches[number % 3])
            placed, info = step(placed, batch, number / 30)
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
    step = compiled(devices, optimizer, placed, batch)
    for _ in range(2):
        placed, _ = step(placed, batch, 0)
        adam_state = placed.opt_state["loss"][1][0]
        for moments in (adam_state.mu, adam_state.nu):  # D is not a multiple of 4
            assert {x.data.shape for x in moments.w_x.addressable_shards} == {(D, H)}
            assert {x.data.shape for x in moments.w_h.addressable_shards} == {(H // 4, 4 * H)}
        assert all(x.is_fully_replicated for x in jax.tree.leaves(placed.params))
    whole = layout(4).place(devices.gather(placed))
    run = step.program.run
    moments = memory_of(whole, run).optimizer - memory_of(placed, run).optimizer
    assert moments == 2 * 4 * (D * 4 * H + H * 4 * H + 4 * H) * 3 // 4


def test_accumulation_cuts_the_rows_of_one_device(rng):
    devices, optimizer = layout(2), optax.sgd(1.0)
    placed, batch = devices.place(draw_state(rng, optimizer)), devices.split(draw_batch(rng))
    with pytest.raises(ValueError, match=r"accumulate: expected a divisor of the 4 rows .* got 8"):
        compiled(devices, optimizer, placed, batch, accumulate=8)


@pytest.mark.parametrize("shard", [False, True])
def test_a_bad_row_on_one_device_holds_all_devices_back(shard, rng):
    optimizer, devices = optax.adam(0.1), layout(4, shard)
    state, batch = draw_state(rng, optimizer), draw_batch(rng)
    batch["targets"][2, 0] = np.nan
    placed, rows = devices.place(state), devices.split(batch)
    placed, info = compiled(devices, optimizer, placed, rows)(placed, rows, 0)
    assert not bool(info.finite)
    after = devices.gather(placed)
    for name in ("params", "opt_state", "carry"):
        chex.assert_trees_all_equal(getattr(after, name), getattr(state, name), strict=True)
    assert int(after.step) == 1


@pytest.mark.parametrize(("size", "shard"), [(1, False), (2, False), (2, True)])
def test_the_placed_state_is_donated_and_the_callers_is_not(size, shard, rng):
    optimizer, devices = optax.adam(0.1), layout(size, shard)
    state, batch = draw_state(rng, optimizer), draw_batch(rng)
    before = jax.tree.map(np.array, state._replace(key=()))
    placed = devices.place(state)
    rows = devices.split(batch)
    compiled(devices, optimizer, placed, rows)(placed, rows, 0)
    assert placed.params.w_h.is_deleted()
    assert placed.carry.h.is_deleted()
    assert placed.opt_state["loss"][0].mu.w_h.is_deleted()
    chex.assert_trees_all_equal(state._replace(key=()), before, strict=True)
    assert jax.random.uniform(state.key) == jax.random.uniform(jax.random.key(1))
    devices.place(state)


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_place_and_gather(size, shard, rng):
    devices = layout(size, shard)
    state = TrainState(
        step=np.int32(7),
        params={"w": jnp.asarray(rng.normal(size=(3, 2)), "bfloat16")},
        opt_state={
            "first": (np.arange(3, dtype="int32"), jax.random.split(jax.random.key(4), 4)),
            "second": jnp.asarray(rng.normal(size=(5, 8)), "bfloat16"),
        },
        variables={"mean": rng.normal(size=3).astype("float32")},
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
    with pytest.raises(
        ValueError, match=r"batch\['b'\]: expected an array with rows first.* a scalar"
    ):
        devices.split({"a": np.arange(8), "b": 2.0})
    with pytest.raises(ValueError, match=r"batch\['b'\]: expected 8 rows.* got 4"):
        devices.split({"a": np.arange(8), "b": np.arange(4)})
    tree = {"a": np.arange(24.0).reshape(8, 3), "b": np.arange(8)}
    parts = devices.split(tree)
    assert parts["a"].shape == (4, 2, 3)
    np.testing.assert_array_equal(parts["b"], [[0, 1], [2, 3], [4, 5], [6, 7]])
    with pytest.raises(ValueError, match="expected a multiple of the 4 devices, got 6"):
        devices.split(np.arange(6))


@pytest.mark.parametrize(
    ("size", "rows", "used"), [(1, 3, 1), (4, 3, 3), (4, 5, 1), (4, 6, 3), (4, 8, 4)]
)
def test_evaluation_takes_as_many_devices_as_divide_the_rows(size, rows, used, rng):
    devices = layout(size).apart(rows)
    assert devices.size == used
    state, batch = draw_state(rng, optax.sgd(1.0)), draw_batch(rng)
    few = jax.tree.map(lambda a: np.asarray(a)[-rows:], (state.carry, batch))
    want = jax.jit(loss_fn)(state.params, few[1], Given(few[0], None, (), 1.0))
    step = devices.evaluation_step(loss_fn)
    params = devices.place(state._replace(carry=())).params
    carry, sums = step(params, (), *map(devices.split, few))
    assert sums["loss"].total.shape == (used,)
    sums = sums_to_host([sums])
    close((sums["loss"], sums["squares"]), (want.loss, want.loss), 1e-6)
    close(jax.tree.map(lambda a: np.array(a).reshape(-1, H), carry), want.carry, 1e-6)
    again, _ = step(params, (), carry, devices.split(few[1]))
    assert again.h.shape == carry.h.shape


@pytest.mark.parametrize(
    ("sizes", "used"), [([8], 4), ([6], 3), ([7], 1), ([8, 6], 2), ([4, 12], 4)]
)
def test_the_most_devices_that_divide_every_batch_size(sizes, used):
    assert data_parallel(sizes, devices=jax.devices()[:4]).size == used


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
    cores.use_all_cores()
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert calls == ([("jax_num_cpu_devices", number)] if asked else [])


def test_use_all_cores_comes_too_late_once_jax_is_in_use(monkeypatch):
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    monkeypatch.setattr(cores, "usable_cores", lambda: 3)
    assert jax.devices()
    with pytest.raises(RuntimeError, match="before backends are initialized"):
        cores.use_all_cores()
