"""One device's step: exact reduction, accumulation, steps left out, and what the optimizer sees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.cells import GRU
from seqnets.dropout import dropout
from seqnets.recurrence import unroll
from seqnets.reduction import Weighted, weighted
from seqnets.training import Clock, Given, LossOutput, make_evaluation_step, make_train_step
from seqnets.training.state import step_keys

B, T, D, H = 8, 5, 3, 4
CELL = GRU(H)
LENGTHS = np.array([5, 1, 2, 5, 0, 0, 3, 4])  # with accumulate=4, the third part has no weight


def loss_fn(params, batch, given):
    """A recurrent regression with a carried state, noise by rows, and ragged rows."""
    carry, ys = unroll(CELL, params, given.carry, batch["xs"], mask=batch["mask"])
    rows, shared = given.keys or (None, None)
    errors = jnp.sum((dropout(ys, rows, 0.4) - batch["targets"]) ** 2, -1)
    if given.keys is not None:
        errors *= 0.5 + jax.random.uniform(shared)
    longest = Weighted(jnp.sum(jnp.abs(ys)), jnp.float32(ys.size))
    return LossOutput(weighted(errors, batch["mask"]), carry, {"size": longest})


@pytest.fixture
def batch(rng):
    xs, targets = (rng.normal(size=(B, T, n)).astype("float32") for n in (D, H))
    return {"xs": xs, "targets": targets, "mask": np.arange(T) < LENGTHS[:, None]}


@pytest.fixture
def state(rng):
    like = jax.eval_shape(lambda key: CELL.init(key, D), jax.random.key(0))
    draw = functools.partial(jax.tree.map, lambda a: jnp.asarray(rng.normal(size=a.shape), "f4"))
    params, carry = draw(like), draw(CELL.initial_carry(None, B, "float32"))
    return make_train_step(loss_fn, SGD).init(params, jax.random.key(1), carry=carry)


SGD = optax.sgd(1.0)  # the parameters then move by the gradient itself


def gradient_of(before, after):
    return jax.tree.map(lambda a, b: np.asarray(a - b), before.params, after.params)


def close(got, want, tolerance):
    check = functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    jax.tree.map(check, got, want)


def test_step_is_the_gradient_of_the_mean(state, batch):
    state = state._replace(step=jnp.int32(6))
    keys = step_keys(state.key, 6, B)

    @jax.jit
    def mean(params):
        loss, carry, metrics, _ = loss_fn(params, batch, Given(state.carry, keys, (), Clock(0.0)))
        return loss.total / LENGTHS.sum(), (loss, carry, metrics)

    grads, (loss, carry, metrics) = jax.jit(jax.grad(mean, has_aux=True))(state.params)
    new, info = jax.jit(make_train_step(loss_fn, SGD))(state, batch, Clock(0.0))
    close(gradient_of(state, new), grads, 1e-5)  # SGD at 1: parameters of size 1 in float32
    close((info.loss, info.metrics, new.carry), (loss, metrics, carry), 1e-6)
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(info.gradient_norm, norm, rtol=1e-5)
    assert int(new.step) == 7
    assert new.key == state.key
    assert bool(info.finite)
    assert float(info.loss.weight) == LENGTHS.sum()


def test_every_step_has_its_own_noise(state, batch):
    step = jax.jit(make_train_step(loss_fn, SGD))
    losses = [
        float(step(state._replace(step=jnp.int32(n)), batch, Clock(0.0))[1].loss.total)
        for n in range(3)
    ]
    assert len({round(loss, 4) for loss in losses}) == 3
    again = step(state._replace(step=jnp.int32(1)), batch, Clock(0.0))[1].loss.total
    assert float(again) == losses[1]


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulation_equals_the_plain_step(parts, state, batch):
    want, want_info = jax.jit(make_train_step(loss_fn, SGD))(state, batch, Clock(0.0))
    step = jax.jit(make_train_step(loss_fn, SGD, accumulate=parts))
    got, info = step(state, batch, Clock(0.0))
    assert jax.tree.structure((got, info)) == jax.tree.structure((want, want_info))
    close((got.params, got.carry), (want.params, want.carry), 1e-5)
    close(info, want_info, 1e-5)
    assert len(set(LENGTHS.reshape(parts, -1).sum(1))) > 1  # a mean of means would be wrong


def test_accumulation_computes_one_part_at_a_time(state, batch):
    seen = []

    def watched(params, batch, given):
        seen.append((batch["xs"].shape[0], given.carry.h.shape[0], given.keys.rows.shape[0]))
        return loss_fn(params, batch, given)

    jax.eval_shape(make_train_step(watched, SGD, accumulate=4), state, batch, Clock(0.0))
    assert set(seen) == {(2, 2, 2)}


def test_accumulation_adds_low_precision_gradients_in_float32():
    """64 equal gradients of 1/3: added up in bfloat16 they would stop growing evenly."""

    def linear(params, batch):
        return weighted(params.astype("float32") * batch)

    step = make_train_step(linear, SGD, accumulate=64)
    state = step.init(jnp.zeros((), "bfloat16"), jax.random.key(0))
    new, info = jax.jit(step)(state, np.full(64, 1 / 3, "float32"), Clock(0.0))
    assert new.params.dtype == "bfloat16"
    np.testing.assert_allclose(float(new.params), -1 / 3, rtol=2**-8)  # one rounding
    np.testing.assert_allclose(info.gradient_norm, 1 / 3, rtol=2**-8)


def test_accumulate_must_divide_the_rows(state, batch):
    step = jax.jit(make_train_step(loss_fn, SGD, accumulate=3))
    with pytest.raises(ValueError, match=r"accumulate: expected a divisor of the 8 rows .* got 3"):
        step(state, batch, Clock(0.0))
    with pytest.raises(ValueError, match=r"accumulate: expected a value in \[1, inf\], got 0"):
        make_train_step(loss_fn, SGD, accumulate=0)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(bad, parts, state, batch):
    def spoiled(params, batch, given):
        loss, carry, metrics, _ = loss_fn(params, batch, given)
        poison = jnp.sum(batch["poison"])
        # √ has an infinite derivative at 0, where its value is 0.
        one = jnp.where(jnp.isnan(poison), 0.0, 1.0)
        extra = poison if bad == "loss" else jnp.sqrt(one + 0 * jnp.sum(params.b)) - one
        carry = jax.tree.map(lambda a: a + poison, carry)
        return LossOutput(loss._replace(total=loss.total + extra), carry, metrics)

    optimizer = optax.adam(0.1)
    state = state._replace(opt_state={"loss": optimizer.init(state.params)})
    step = jax.jit(make_train_step(spoiled, optimizer, accumulate=parts))
    poison = np.zeros((2, B, 1), "float32")
    poison[1, 3] = np.nan
    state, info = step(state, {**batch, "poison": poison[0]}, Clock(0.0))
    assert bool(info.finite)
    after, info = step(state, {**batch, "poison": poison[1]}, Clock(0.5))
    assert not bool(info.finite)
    assert bool(jnp.isfinite(info.loss.total)) == (bad == "gradient")
    assert bool(jnp.isfinite(info.gradient_norm)) == (bad == "loss")
    for name in ("params", "opt_state", "carry"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(state, name))
    assert int(after.step) == int(state.step) + 1
    recovered, info = step(after, {**batch, "poison": poison[0]}, Clock(0.5))
    assert bool(info.finite)
    assert abs(recovered.params.w_h - after.params.w_h).max() > 1e-3


def test_a_batch_without_weight_has_loss_and_gradient_zero(state, batch):
    empty = {**batch, "mask": np.zeros((B, T), bool)}
    new, info = jax.jit(make_train_step(loss_fn, SGD))(state, empty, Clock(0.0))
    assert bool(info.finite)
    assert float(info.loss.mean()) == float(info.gradient_norm) == 0
    jax.tree.map(np.testing.assert_array_equal, new.params, state.params)


def test_the_optimizer_is_given_progress_and_loss_and_the_norm_is_before_clipping(state, batch):
    def update(updates, state, params=None, *, progress, value, **extra):
        return jax.tree.map(jnp.zeros_like, updates), {"progress": progress, "value": value}

    start = {"progress": jnp.float32(0), "value": jnp.float32(0)}
    spy = optax.GradientTransformationExtraArgs(lambda params: start, update)
    clipped = optax.chain(optax.clip_by_global_norm(1e-3), SGD)
    optimizer = optax.chain(clipped, spy)
    state = state._replace(opt_state={"loss": optimizer.init(state.params)})
    new, info = jax.jit(make_train_step(loss_fn, optimizer))(state, batch, Clock(np.float32(0.25)))
    seen = new.opt_state["loss"][1]
    assert float(seen["progress"]) == 0.25
    np.testing.assert_allclose(seen["value"], info.loss.mean(), rtol=1e-6)
    assert float(info.gradient_norm) > 0.1


def test_evaluation_step_has_no_noise_and_sums(state, batch):
    step = jax.jit(make_evaluation_step(loss_fn))
    carry, sums = step(state.params, (), state.carry, batch)
    want = jax.jit(loss_fn)(state.params, batch, Given(state.carry, None, (), 1.0))
    assert set(sums) == {"loss", "size"}
    close((carry, sums["loss"], sums["size"]), (want.carry, want.loss, want.metrics["size"]), 1e-6)
