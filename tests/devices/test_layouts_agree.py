"""One step, wherever it is computed: each kind of step on each layout, against plain `jax.jit`."""

import functools
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl.testing import parameterized

from seqnets.cells import GRU
from seqnets.devices import DataParallel
from seqnets.devices.data_parallel import _add_up
from seqnets.devices.processes import SIGNALS, Message, Processes
from seqnets.dropout import dropout
from seqnets.recurrence import unroll
from seqnets.reduction import Weighted, weighted
from seqnets.training import (
    ONE,
    After,
    Clock,
    LossOutput,
    Objective,
    chain,
    ema,
    every,
    make_train_step,
)
from seqnets.training.state import to_host

B, T, D, H, STEPS = 8, 5, 3, 4, 6
CELL = GRU(H)
LENGTHS = np.array([5, 5, 4, 5, 1, 0, 2, 1])  # of the four devices, the third has one real step


def adam():
    """With clipping and a schedule: both look at more than one array."""
    decay = optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(),
        lambda grads, state, params=None, *, progress, **extra: (
            jax.tree.map(lambda g: g * (1 - 0.5 * progress), grads),
            state,
        ),
    )
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.02), decay)


def regression(part, params, batch, given):
    """A ragged recurrent regression with a carry, and noise for each row and for all."""
    carry, ys = unroll(CELL, params[part], given.carry, batch["xs"], mask=batch["mask"])
    errors = jnp.sum((dropout(ys, given.keys.rows, 0.4) - batch["targets"]) ** 2, -1)
    errors *= 0.5 + jax.random.uniform(given.keys.shared)
    metrics = {f"{part}_size": weighted(jnp.abs(ys), batch["mask"])}
    statistics = {
        f"{part}_inputs": jnp.sum(batch["xs"], (0, 1)),
        f"{part}_rows": jnp.asarray(len(batch["xs"]), jnp.int32),
    }
    return LossOutput(weighted(errors, batch["mask"]), carry, metrics, statistics)


def one(params, batch, given):
    return regression("one", params, batch, given)


def adversary(params, batch, given):
    """Against the first part; it leaves the carry alone."""
    _, ys = unroll(CELL, params["two"], given.carry, batch["xs"], mask=batch["mask"])
    pull = jnp.sum(params["one"].b) + jnp.sum(given.variables["ema_one"].b)
    return weighted((ys[..., 0] - pull) ** 2, batch["mask"])


RUNNING = After(
    lambda variables, params, statistics, clock: {
        **variables,
        "inputs": variables["inputs"] + statistics["one_inputs"],
        "rows": variables["rows"] + statistics["one_rows"],
    },
    lambda params: {"inputs": jnp.zeros(D), "rows": jnp.zeros((), jnp.int32)},
)
RULES = chain(ema("one", 0.9), RUNNING)


def gan(first, second, when):
    named = {
        "first": Objective(one, first, ("one",), when[0]),
        "second": Objective(adversary, second, ("two",), when[1]),
    }
    return {"objectives": named, "after": RULES}


# What make_train_step is given, but for the axis and the nominal length.
KINDS = {
    "one loss": {"objectives": one, "optimizer": adam(), "after": RUNNING},
    "accumulated": {"objectives": one, "optimizer": adam(), "after": RUNNING, "accumulate": 2},
    "part of the parameters": {"objectives": Objective(one, adam(), ("one",)), "after": RULES},
    "two objectives": gan(adam(), optax.sgd(0.1, 0.9), (None, None)),
    "two objectives, now and then": gan(adam(), adam(), (None, every(3))),
    "two objectives, first now and then": {
        **gan(adam(), adam(), (every(2), None)), "after": ema("one", 0.9), "accumulate": 2,
    },
}  # fmt: skip


def new_state(step):
    rng = np.random.default_rng(41)
    like = jax.eval_shape(lambda key: CELL.init(key, D), jax.random.key(0))
    draw = functools.partial(jax.tree.map, lambda a: jnp.asarray(rng.normal(size=a.shape), "f4"))
    params = {"one": draw(like), "two": draw(like)}
    carry = draw(CELL.initial_carry(None, B, "float32"))
    return step.init(params, jax.random.key(1), carry=carry)


def batch_of(k):
    rng = np.random.default_rng([42, k])
    xs, targets = (rng.normal(size=(B, T, n)).astype("f4") for n in (D, H))
    return {"xs": xs, "targets": targets, "mask": np.arange(T) < np.roll(LENGTHS, k)[:, None]}


def by_jit(settings, jit=jax.jit):
    step = make_train_step(**settings, steps=STEPS)
    state, jitted, infos = new_state(step), jit(step), []
    for k in range(STEPS):
        state, info = jitted(state, batch_of(k))
        infos.append(info)
    return to_host(state), jax.device_get(infos)


def by_plain_pmap(settings, pmap=None):
    """No layout: the caller replicates the state and cuts the rows, as JAX's own examples do."""
    n, step = 4, make_train_step(**settings, axis_name="batch", steps=STEPS)
    cut = lambda tree: jax.tree.map(lambda x: x.reshape(n, -1, *x.shape[1:]), tree)  # noqa: E731
    state = new_state(step)
    replicated = jax.tree.map(lambda x: jnp.stack([x] * n), state)
    replicated = replicated._replace(carry=cut(state.carry))
    mapped, infos = (pmap or jax.pmap)(step, axis_name="batch", devices=jax.devices()[:n]), []
    for k in range(STEPS):
        replicated, info = mapped(replicated, cut(batch_of(k)))
        infos.append(jax.tree.map(lambda x: x[0], info))
    host = to_host(replicated)
    one_of = jax.tree.map(lambda x: x[0], host)
    for n_th in range(n):  # the devices agree, bit for bit
        one = jax.tree.map(lambda x, n_th=n_th: x[n_th], host)
        chex.assert_trees_all_equal(one[1:4], one_of[1:4])
    joined = jax.tree.map(lambda x: x.reshape(B, *x.shape[2:]), host.carry)
    return one_of._replace(carry=joined), jax.device_get(infos)


def by_layout(layout, settings):
    step = make_train_step(**settings)
    state = layout.place(new_state(step))
    program = layout.compile(step, state, layout.split(batch_of(0)))
    infos = []
    for k in range(STEPS):
        clock = Clock(np.float32(k / STEPS), np.int32(0))
        state, info, reply = program(state, layout.split(batch_of(k)), clock, ())
        assert reply == ()
        infos.append(info)
    return layout.gather(state), jax.device_get(infos)


def devices(count, shard=False):
    return DataParallel(jax.devices()[:count], shard)


WAYS = {
    "jit": by_jit,
    "one": functools.partial(by_layout, ONE),
    "1 device": functools.partial(by_layout, devices(1)),
    "2 devices": functools.partial(by_layout, devices(2)),
    "4 devices": functools.partial(by_layout, devices(4)),
    "4 devices, sharded": functools.partial(by_layout, devices(4, shard=True)),
}


FEW = ("1 device", "2 devices")  # between one and four devices: enough for one kind


@functools.cache
def result(kind, way):
    return WAYS[way](KINDS[kind])


CASES = [
    pytest.param(kind, way, id=f"{kind} - {way}")
    for kind in KINDS
    for way in WAYS
    if way != "jit" and (way not in FEW or kind == "two objectives, now and then")
]


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_every_way_gives_the_same_steps(kind, way):
    assert_same_steps(result(kind, way), result(kind, "jit"))


def assert_same_steps(results, wanted):
    (got, infos), (want, want_infos) = results, wanted
    chex.assert_trees_all_equal_structs(got, want)
    chex.assert_trees_all_equal_shapes_and_dtypes(got, want)
    assert (got.key, int(got.step)) == (want.key, STEPS)
    got, want = (state._replace(key=()) for state in (got, want))
    # Sums over up to four devices in another order, then six steps of Adam, whose first ones
    # divide a gradient by its own size: small gradients keep their relative error.
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-5)
    for info, want_info in zip(infos, want_infos, strict=True):
        assert list(info.losses) == list(want_info.losses)
        chex.assert_trees_all_close(info, want_info, rtol=1e-4, atol=1e-5)
        assert bool(info.finite)


class WholeSteps(chex.TestCase):
    """Without a layout: as JAX's own transformations compute a step, and without any."""

    @chex.variants(with_pmap=True)
    @parameterized.named_parameters((kind.replace(" ", "_"), kind) for kind in KINDS)
    def test_devices_mapped_by_pmap(self, kind):
        rows_as_given = {"broadcast_args_to_devices": False, "reduce_fn": "identity"}
        got = by_plain_pmap(KINDS[kind], functools.partial(self.variant, **rows_as_given))
        assert_same_steps(got, result(kind, "jit"))

    @chex.variants(without_jit=True)
    def test_without_compilation(self):
        kind = "two objectives, first now and then"
        assert_same_steps(by_jit(KINDS[kind], self.variant), result(kind, "jit"))

    @pytest.mark.slow
    def test_a_pmapped_step_can_be_debugged(self):
        """On one device and without compilation, where each value can be printed."""
        with chex.fake_pmap():
            got = by_plain_pmap(KINDS["one loss"])
        assert_same_steps(got, result("one loss", "jit"))


def test_the_steps_above_go_somewhere():
    """All parts of the state move, and noise, order, and schedules matter."""
    for kind, settings in KINDS.items():
        state, infos = result(kind, "jit")
        before = to_host(new_state(make_train_step(**settings)))
        assert abs(state.params["one"].w_h - before.params["one"].w_h).max() > 0.01
        assert abs(state.carry.h - before.carry.h).max() > 0.01
        if "two" in kind:
            assert abs(state.params["two"].w_h - before.params["two"].w_h).max() > 0.01
        weights = {float(info.loss.weight) for info in infos}
        assert weights == ({0.0, 23.0} if "first now and then" in kind else {23.0})
    running = result("one loss", "jit")[0].variables
    inputs = sum(batch_of(k)["xs"].sum((0, 1)) for k in range(STEPS))
    np.testing.assert_allclose(running["inputs"], inputs, rtol=1e-4)  # 240 rows in float32
    assert int(running["rows"]) == STEPS * B


@pytest.mark.parametrize("layout", [ONE, devices(4), devices(4, shard=True)])
def test_a_row_that_is_not_finite_restores_all_devices(layout):
    step = make_train_step(**KINDS["two objectives"])
    start = new_state(step)
    state, batch = layout.place(start), batch_of(0)
    program = layout.compile(step, state, layout.split(batch))
    batch["targets"][2, 0] = np.nan
    state, info, _ = program(state, layout.split(batch), Clock(np.float32(0), np.int32(0)), ())
    assert not bool(info.finite)
    after = layout.gather(state)
    chex.assert_trees_all_equal(after[1:5], to_host(start)[1:5], strict=True)
    assert int(after.step) == 1


# --- messages between processes --------------------------------------------------------------


class Talking(DataParallel):
    """As among several processes: messages travel with the steps."""

    @property
    def peers(self):
        return Processes()


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("kind", ["one loss", "two objectives"])
def test_a_message_is_added_once_and_changes_nothing_else(kind, shard):
    layout = Talking(jax.devices()[:4], shard)
    step = make_train_step(**KINDS[kind])
    state, batch = layout.place(new_state(step)), layout.split(batch_of(0))
    program = layout.compile(step, state, batch)
    consensus = Processes().consensus(0.0)
    message = consensus.message(B, 12.5, signal.SIGTERM)
    clock = Clock(np.float32(0), np.int32(0))
    state, info, reply = program(state, batch, clock, message)
    assert isinstance(reply, Message)
    assert (float(reply.seconds), float(reply.signals)) == (12.5, SIGNALS[signal.SIGTERM])
    consensus.receive(reply)
    assert (consensus.seconds(0.0), consensus.signal(None)) == (12.5, signal.SIGTERM)
    # The very program without a message, but for what the compiler makes of it.
    want = result(kind, "4 devices, sharded" if shard else "4 devices")[1][0]
    chex.assert_trees_all_close(jax.device_get(info), want, rtol=1e-6, atol=1e-6)


def test_sums_of_several_processes_are_added_as_one_message(monkeypatch):
    """Leaves of several dtypes and shapes, in the widest dtype and back."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    rng = np.random.default_rng(43)
    sums = {
        "a": rng.normal(size=(4, 3, 2)).astype("f4"),
        "n": rng.integers(0, 9, (4,)).astype("i4"),
        "loss": Weighted(rng.normal(size=4).astype("f4"), np.ones(4, "f4")),
        "none": np.zeros((4, 0), "f4"),
    }
    added = jax.vmap(_add_up, axis_name="devices")(sums)
    want = jax.tree.map(lambda x: np.broadcast_to(x.sum(0), x.shape), sums)
    chex.assert_trees_all_equal_shapes_and_dtypes(added, sums)
    chex.assert_trees_all_close(added, want, rtol=1e-6)
