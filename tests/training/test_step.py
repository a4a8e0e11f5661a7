"""One device's step: exact reduction, accumulation, steps left out, and what the optimizer sees."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.cells import GRU
from seqnets.dropout import dropout
from seqnets.recurrence import unroll
from seqnets.reduction import Weighted, weighted
from seqnets.training import (
    Clock,
    Given,
    LossOutput,
    StepKeys,
    make_evaluation_step,
    make_train_step,
)
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
    size = Weighted(jnp.sum(jnp.abs(ys)), jnp.float32(ys.size))
    return LossOutput(weighted(errors, batch["mask"]), carry, {"size": size})


@pytest.fixture
def batch(rng):
    xs, targets = (rng.normal(size=(B, T, n)).astype("float32") for n in (D, H))
    return {"xs": xs, "targets": targets, "mask": np.arange(T) < LENGTHS[:, None]}


SGD = optax.sgd(1.0)  # the parameters then move by the gradient itself
STEP = make_train_step(loss_fn, SGD)


@pytest.fixture
def state(rng):
    like = jax.eval_shape(lambda key: CELL.init(key, D), jax.random.key(0))
    draw = functools.partial(jax.tree.map, lambda a: jnp.asarray(rng.normal(size=a.shape), "f4"))
    params, carry = draw(like), draw(CELL.initial_carry(None, B, "float32"))
    return STEP.init(params, jax.random.key(1), carry=carry)


def gradient_of(before, after):
    return jax.tree.map(jnp.subtract, before.params, after.params)


def close(got, want, tolerance):
    chex.assert_trees_all_close(got, want, rtol=tolerance, atol=tolerance)


def test_step_is_the_gradient_of_the_mean(state, batch):
    state = state._replace(step=jnp.int32(6))
    given = Given(state.carry, step_keys(state.key, 6, B), (), 0.0)

    @jax.jit
    def mean(params):
        output = loss_fn(params, batch, given)
        return output.loss.total / LENGTHS.sum(), output

    grads, want = jax.jit(jax.grad(mean, has_aux=True))(state.params)
    new, info = jax.jit(STEP)(state, batch)
    close(gradient_of(state, new), grads, 1e-5)  # SGD at 1: parameters of size 1 in float32
    close((info.loss, info.metrics, new.carry), (want.loss, want.metrics, want.carry), 1e-6)
    np.testing.assert_allclose(info.gradient_norm, optax.tree.norm(grads), rtol=1e-5)
    assert int(new.step) == 7
    assert new.key == state.key
    assert bool(info.finite)
    assert float(info.loss.weight) == LENGTHS.sum()


def test_every_step_has_its_own_noise(state, batch):
    step = jax.jit(STEP)
    losses = [float(step(state._replace(step=jnp.int32(n)), batch)[1].loss.total) for n in range(3)]
    assert len({round(loss, 4) for loss in losses}) == 3
    again = step(state._replace(step=jnp.int32(1)), batch)[1].loss.total
    assert float(again) == losses[1]


def test_a_compiled_step_is_not_traced_again(state, batch):
    chex.clear_trace_counter()
    step = jax.jit(make_train_step(chex.assert_max_traces(loss_fn, n=1), SGD))
    for _ in range(50):
        state, _ = step(state, batch)
    assert int(state.step) == 50


# --- accumulation ----------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulation_equals_the_plain_step(parts, state, batch):
    want, want_info = jax.jit(STEP)(state, batch)
    got, info = jax.jit(make_train_step(loss_fn, SGD, accumulate=parts))(state, batch)
    chex.assert_trees_all_equal_structs((got, info), (want, want_info))
    close((got.params, got.carry), (want.params, want.carry), 1e-5)
    close(info, want_info, 1e-5)
    assert len(set(LENGTHS.reshape(parts, -1).sum(1))) > 1  # a mean of means would be wrong


def test_accumulation_computes_one_part_at_a_time(state, batch):
    seen = []

    def watched(params, batch, given):
        rows = batch["xs"], given.carry.h, given.keys.rows
        seen.append(tuple(x.shape[0] for x in rows))
        return loss_fn(params, batch, given)

    jax.eval_shape(make_train_step(watched, SGD, accumulate=4), state, batch)
    assert set(seen) == {(2, 2, 2)}


def test_accumulation_adds_low_precision_gradients_in_float32():
    """64 equal gradients of 1/3: added up in bfloat16 they would stop growing evenly."""

    def linear(params, batch):
        return weighted(params.astype("float32") * batch)

    step = make_train_step(linear, SGD, accumulate=64)
    state = step.init(jnp.zeros((), "bfloat16"), jax.random.key(0))
    new, info = jax.jit(step)(state, np.full(64, 1 / 3, "float32"))
    assert new.params.dtype == "bfloat16"
    np.testing.assert_allclose(float(new.params), -1 / 3, rtol=2**-8)  # one rounding
    np.testing.assert_allclose(info.gradient_norm, 1 / 3, rtol=2**-8)


def test_accumulate_must_divide_the_rows(state, batch):
    step = jax.jit(make_train_step(loss_fn, SGD, accumulate=3))
    with pytest.raises(ValueError, match=r"accumulate: expected a divisor of the 8 rows .* got 3"):
        step(state, batch)


# --- steps that are not finite ---------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(bad, parts, state, batch):
    def spoiled(params, batch, given):
        output = loss_fn(params, batch, given)
        poison = jnp.sum(batch["poison"])
        # √ has an infinite derivative at 0, where its value is 0.
        one = jnp.where(jnp.isnan(poison), 0.0, 1.0)
        extra = poison if bad == "loss" else jnp.sqrt(one + 0 * jnp.sum(params.b)) - one
        loss = output.loss._replace(total=output.loss.total + extra)
        carry = jax.tree.map(lambda a: a + poison, output.carry)
        return output._replace(loss=loss, carry=carry)

    step = make_train_step(spoiled, optax.adam(0.1), accumulate=parts)
    state = step.init(state.params, state.key, carry=state.carry)
    step = jax.jit(step)
    poison = np.zeros((2, B, 1), "float32")
    poison[1, 3] = np.nan
    state, info = step(state, {**batch, "poison": poison[0]})
    assert bool(info.finite)
    after, info = step(state, {**batch, "poison": poison[1]})
    assert not bool(info.finite)
    assert bool(jnp.isfinite(info.loss.total)) == (bad == "gradient")
    assert bool(jnp.isfinite(info.gradient_norm)) == (bad == "loss")
    chex.assert_trees_all_equal(after[1:5], state[1:5], strict=True)
    assert int(after.step) == int(state.step) + 1
    recovered, info = step(after, {**batch, "poison": poison[0]})
    assert bool(info.finite)
    assert abs(recovered.params.w_h - after.params.w_h).max() > 1e-3


def test_a_batch_without_weight_has_loss_and_gradient_zero(state, batch):
    empty = {**batch, "mask": np.zeros((B, T), bool)}
    new, info = jax.jit(STEP)(state, empty)
    assert bool(info.finite)
    assert float(info.loss.mean()) == float(info.gradient_norm) == 0
    chex.assert_trees_all_equal(new.params, state.params, strict=True)


# --- what the optimizer is told --------------------------------------------------------------


def spy():
    """A transformation that keeps what it was told, and moves nothing."""
    told = {name: jnp.float32(-1) for name in ("progress", "value", "stale")}

    def update(updates, state, params=None, *, progress, value, stale, **extra):
        seen = {"progress": progress, "value": value, "stale": stale}
        return jax.tree.map(jnp.zeros_like, updates), jax.tree.map(jnp.float32, seen)

    return optax.GradientTransformationExtraArgs(lambda params: told, update)


@pytest.mark.parametrize(
    ("steps", "clock", "progress", "stale"),
    [
        (None, Clock(np.float32(0.25), np.int32(3)), 0.25, 3),
        (None, Clock(0.25), 0.25, 0),
        (20, Clock(0.25), 0.25, 0),  # a clock is believed
        (20, None, 0.3, 0),
        (6, None, 1.0, 0),
        (4, None, 1.0, 0),  # it does not go beyond the end
        (None, None, 0.0, 0),
    ],
)
def test_progress_value_and_staleness_reach_the_optimizer(
    steps, clock, progress, stale, state, batch
):
    given = []

    def watched(params, batch, given_now):
        given.append(given_now.progress)
        return loss_fn(params, batch, given_now)

    step = make_train_step(watched, spy(), steps=steps)
    state = step.init(state.params, state.key, carry=state.carry)._replace(step=jnp.int32(6))
    new, info = jax.jit(step)(state, batch, clock)
    seen = new.opt_state["loss"]
    assert float(seen["progress"]) == np.float32(progress)
    assert float(seen["stale"]) == stale
    np.testing.assert_allclose(seen["value"], info.loss.mean(), rtol=1e-6)
    assert len(given) == 1


def test_the_loss_function_is_told_the_progress(state, batch):
    def by_progress(params, batch, given):
        return Weighted(jnp.float32(given.progress) + 0 * jnp.sum(params.b), jnp.float32(1))

    step = make_train_step(by_progress, SGD, steps=8)
    _, info = jax.jit(step)(state._replace(step=jnp.int32(2)), batch)
    assert float(info.loss.total) == 0.25


def test_the_norm_is_before_clipping(state, batch):
    optimizer = optax.chain(optax.clip_by_global_norm(1e-3), SGD)
    step = make_train_step(loss_fn, optimizer)
    new, info = jax.jit(step)(step.init(state.params, state.key, carry=state.carry), batch)
    assert float(info.gradient_norm) > 0.1
    np.testing.assert_allclose(optax.tree.norm(gradient_of(state, new)), 1e-3, rtol=1e-3)


# --- evaluation ------------------------------------------------------------------------------


def test_evaluation_step_has_no_noise_and_sums(state, batch):
    step = jax.jit(make_evaluation_step(loss_fn))
    carry, sums = step(state.params, (), state.carry, batch)
    given = Given(state.carry, None, (), 1.0)
    want = jax.jit(functools.partial(loss_fn, given=given))(state.params, batch)
    assert set(sums) == {"loss", "size"}
    close((carry, sums["loss"], sums["size"]), (want.carry, want.loss, want.metrics["size"]), 1e-6)


def test_evaluation_step_gives_variables_and_the_end_of_the_run():
    def loss(params, batch, given):
        assert given.keys is None
        return weighted(batch * params * given.variables["scale"] * given.progress)

    step = make_evaluation_step(loss)
    carry, sums = step(jnp.float32(2), {"scale": jnp.float32(3)}, (), np.ones(4, "f4"))
    assert float(sums["loss"].mean()) == 6
    assert carry == ()


# --- mistakes --------------------------------------------------------------------------------


def test_a_raw_key_is_taken_and_what_is_no_key_is_not(state, batch):
    raw = STEP.init(state.params, jax.random.PRNGKey(1), carry=state.carry)
    assert raw.key == state.key
    chex.assert_trees_all_equal(
        jax.jit(STEP)(raw, batch)[1].loss, jax.jit(STEP)(state, batch)[1].loss
    )
    with pytest.raises(TypeError, match=r"key: expected a random key from jax.random.key, got 1"):
        STEP.init(state.params, 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: {"scale": 2.0, **b}, r"batch\['scale'\]: expected an array with rows first"),
        (lambda b: {**b, "a": np.float32(2)}, r"batch\['a'\]: expected an array with rows first"),
        (lambda b: {**b, "xs": b["xs"][:3]}, r"batch\['xs'\]: expected 8 rows, as in .* got 3"),
        (lambda b: {**b, "key": jax.random.PRNGKey(0)}, r"batch\['mask'\]: expected 2 rows"),
        (lambda b: {}, "batch: expected arrays with rows first"),
        (lambda b: jax.tree.map(lambda x: x[:4], b), r"carry\.h: expected 4 rows, as in the batch"),
    ],
)
@pytest.mark.parametrize("parts", [1, 2])
def test_what_is_no_batch(spoil, message, parts, state, batch):
    step = make_train_step(loss_fn, SGD, accumulate=parts)
    with pytest.raises(ValueError, match=message):
        jax.jit(step)(state, spoil(batch))


@pytest.mark.parametrize(
    "change",
    [
        lambda carry: carry.h,
        lambda carry: carry._replace(h=carry.h.astype("bfloat16")),
        lambda carry: carry._replace(h=carry.h[:, :2]),
        lambda carry: tuple(carry),
    ],
)
def test_a_new_carry_must_be_like_the_old_one(change, state, batch):
    def changed(params, batch, given):
        output = loss_fn(params, batch, given)
        return output._replace(carry=change(output.carry))

    with pytest.raises(ValueError, match=r"loss_fn: carry: expected .*, as before the step, got"):
        jax.jit(make_train_step(changed, SGD))(state, batch)


def test_a_carry_that_the_state_has_no_place_for(state, batch):
    def carrying(params, batch, given):
        return LossOutput(weighted(batch["targets"] * params.b[0]), carry={"h": batch["targets"]})

    with pytest.raises(ValueError, match=r"loss_fn: carry: expected \(\), as before the step, got"):
        jax.jit(make_train_step(carrying, SGD))(state._replace(carry=()), batch)


def test_row_keys_may_be_in_the_batch(state, batch):
    """They are rows like all others, here those of the step itself."""

    def keyed(params, batch, given):
        rows, batch = batch
        return loss_fn(params, batch, given._replace(keys=StepKeys(rows, given.keys.shared)))

    rows = step_keys(state.key, 0, B).rows
    got = jax.jit(make_train_step(keyed, SGD, accumulate=2))(state, (rows, batch))
    close(got[1].loss, jax.jit(STEP)(state, batch)[1].loss, 1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_updates_that_are_not_finite_change_nothing(bad, state, batch):
    """Loss and gradient are finite; what the optimizer makes of them is not, in one element."""

    def update(grads, count, params=None):
        spoiled = jax.tree.map(lambda g: g.at[(0,) * g.ndim].set(bad), grads)
        return jax.tree.map(lambda a, b: jnp.where(count == 1, a, b), spoiled, grads), count + 1

    optimizer = optax.GradientTransformation(lambda params: jnp.int32(0), update)
    step = make_train_step(loss_fn, optimizer)
    fine, info = jax.jit(step)(step.init(state.params, state.key, carry=state.carry), batch)
    assert bool(info.finite)
    after, info = jax.jit(step)(fine, batch)
    assert not bool(info.finite)
    assert bool(jnp.isfinite(info.loss.total) & jnp.isfinite(info.gradient_norm))
    chex.assert_trees_all_equal(after[1:5], fine[1:5], strict=True)
    assert int(after.step) == 2


# --- low precision ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize(
    "optimizer",
    [optax.adam, optax.adamw, optax.adamax, optax.rmsprop, optax.adagrad, optax.lion, optax.sgd],
)
def test_parameters_that_are_not_finite_are_never_kept(optimizer, dtype):
    """In float16 an epsilon of 1e-8 is 0, and where a gradient is 0 an update is 0 / 0."""

    def loss(params, batch):
        return weighted(batch * params["used"].astype("float32"))

    step = make_train_step(loss, optimizer(1e-2))
    params = {name: jnp.ones((), dtype) for name in ("used", "unused")}
    state = step.init(params, jax.random.key(0))
    new, info = jax.jit(step)(state, np.ones(4, "f4"))
    chex.assert_tree_all_finite(new.params)
    if bool(info.finite):
        assert float(new.params["used"]) < 1
    else:
        assert dtype == "float16"
        chex.assert_trees_all_equal(new[1:5], state[1:5], strict=True)
