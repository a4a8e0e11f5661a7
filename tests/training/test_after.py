"""Variables: moving averages and running statistics, kept beside what is trained."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.reduction import Weighted, weighted
from seqnets.training import (
    After,
    LossEvaluation,
    LossOutput,
    Weights,
    chain,
    ema,
    make_train_step,
)

B, D = 6, 3


def loss_fn(params, batch):
    """The error of a part of the parameters; the batch's mean is a statistic."""
    x = batch["x"]
    loss = weighted((x @ params["critic"]["w"] - 1) ** 2, batch["weight"])
    sums = {"inputs": jnp.sum(x * batch["weight"][:, None], 0), "count": jnp.sum(batch["weight"])}
    return LossOutput(loss, statistics=sums)


def batch_of(k):
    rng = np.random.default_rng([31, k])
    x, weight = rng.normal(k, size=(B, D)), rng.integers(0, 3, B)
    return {"x": x.astype("f4"), "weight": weight.astype("f4")}


def new_params(dtype="float32"):
    rng = np.random.default_rng(32)
    draw = lambda: {"w": jnp.asarray(rng.normal(size=D), dtype)}  # noqa: E731
    return {"critic": draw(), "generator": draw()}


def norm_update(variables, params, statistics, clock):
    """Running sums of all inputs seen so far."""
    norm = variables["norm"]
    total = Weighted(statistics["inputs"], statistics["count"])
    return {**variables, "norm": Weighted(norm.total + total.total, norm.weight + total.weight)}


RUNNING_MEAN = After(
    norm_update, lambda params: {"norm": Weighted(jnp.zeros(D), jnp.zeros(()))}
)  # after any number of steps the mean is that of all rows


def trained(after, steps=5, optimizer=None, **settings):
    step = make_train_step(loss_fn, optimizer or optax.sgd(0.05), after=after, **settings)
    state, jitted = step.init(new_params(), jax.random.key(0)), jax.jit(step)
    states = [state]
    for k in range(steps):
        state, _ = jitted(state, batch_of(k))
        states.append(state)
    return states


@pytest.mark.parametrize(
    ("key", "name"), [(None, "ema"), ("critic", "ema_critic"), ("generator", "ema_generator")]
)
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_ema_is_an_average_of_the_parameters_so_far(key, name, decay):
    states = trained(ema(key, decay))
    part = lambda params: params if key is None else params[key]  # noqa: E731
    want = part(states[0].params)
    chex.assert_trees_all_equal(states[0].variables, {name: want}, strict=True)
    for state in states[1:]:
        want = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, want, part(state.params))
        # Five sums in float32, in another program.
        chex.assert_trees_all_close(state.variables[name], want, rtol=1e-6)
    assert set(states[-1].variables) == {name}


def test_ema_of_low_precision_parameters_moves():
    """In bfloat16, 0.999 · 1 + 0.001 · 2 would be 1 for ever."""
    rule = ema("w", 0.999)
    variables = rule.init({"w": jnp.ones((), "bfloat16")})
    assert variables["ema_w"].dtype == "float32"
    for _ in range(100):
        variables = rule.update(variables, {"w": jnp.full((), 2, "bfloat16")}, {}, None)
    # float32 sums of 100 steps.
    np.testing.assert_allclose(variables["ema_w"], 2 - 0.999**100, rtol=1e-5)


def test_ema_shares_no_memory_with_the_parameters():
    """A step donates both, and a buffer cannot be donated twice."""
    step = make_train_step(loss_fn, optax.sgd(0.05), after=ema())
    state = step.init(new_params(), jax.random.key(0))
    for _ in range(2):
        buffers = [
            leaf.unsafe_buffer_pointer()
            for leaf in jax.tree.leaves((state.params, state.variables))
        ]
        assert len(set(buffers)) == len(buffers)
        state, _ = jax.jit(step, donate_argnums=0)(state, batch_of(0))


def test_statistics_are_sums_over_all_rows():
    states = trained(RUNNING_MEAN)
    batches = [batch_of(k) for k in range(5)]
    x, weight = (np.concatenate([b[name] for b in batches]) for name in ("x", "weight"))
    norm = states[-1].variables["norm"]
    # A mean of 30 rows in float32.
    np.testing.assert_allclose(norm.total / norm.weight, np.average(x, 0, weight), rtol=1e-5)
    assert float(norm.weight) == weight.sum()
    parts = trained(RUNNING_MEAN, accumulate=3)[-1].variables
    chex.assert_trees_all_close(parts, states[-1].variables, rtol=1e-5)


def test_rules_follow_one_another():
    """The second sees what the first has made of the variables."""
    seen = []

    def double(variables, params, statistics, clock):
        seen.append(sorted(statistics))
        return {**variables, "double": jax.tree.map(lambda x: 2 * x, variables["ema_critic"])}

    doubled = After(double, lambda params: {"double": params["critic"]})
    state = trained(chain(ema("critic", 0.5), doubled, RUNNING_MEAN))[-1]
    assert set(state.variables) == {"ema_critic", "double", "norm"}
    want = jax.tree.map(lambda x: 2 * x, state.variables["ema_critic"])
    chex.assert_trees_all_equal(state.variables["double"], want)
    assert seen == [["count", "inputs"]]
    chex.assert_trees_all_equal(
        state.variables["norm"], trained(RUNNING_MEAN)[-1].variables["norm"]
    )
    assert chain().init({}) == {}


def test_a_function_is_a_rule_for_variables_that_are_given():
    """It sees the new parameters, and the clock."""

    def update(variables, params, statistics, clock):
        return {"last": params["critic"]["w"], "progress": jnp.float32(clock.progress)}

    step = make_train_step(loss_fn, optax.sgd(0.05), after=update, steps=4)
    variables = {"last": jnp.zeros(D), "progress": jnp.zeros(())}
    state = step.init(new_params(), jax.random.key(0), variables=variables)
    state, _ = jax.jit(step)(state, batch_of(0))
    state, _ = jax.jit(step)(state, batch_of(1))
    chex.assert_trees_all_equal(state.variables["last"], state.params["critic"]["w"])
    assert float(state.variables["progress"]) == 0.25


def test_variables_that_are_given_stay_beside_those_of_rules():
    step = make_train_step(loss_fn, optax.sgd(0.05), after=ema("critic"))
    state = step.init(new_params(), jax.random.key(0), variables={"table": jnp.arange(3)})
    new, _ = jax.jit(step)(state, batch_of(0))
    assert set(new.variables) == {"table", "ema_critic"}
    chex.assert_trees_all_equal(new.variables["table"], jnp.arange(3), strict=True)
    plain = make_train_step(loss_fn, optax.sgd(0.05))
    state = plain.init(new_params(), jax.random.key(0), variables={"table": jnp.arange(3)})
    new, _ = jax.jit(plain)(state, batch_of(0))
    chex.assert_trees_all_equal(new.variables, {"table": jnp.arange(3)}, strict=True)


def test_an_evaluation_sees_variables():
    def of_average(params, batch, given):
        assert given.keys is None
        return loss_fn({"critic": given.variables["ema_critic"]}, batch)

    state = trained(ema("critic", 0.9))[-1]
    batches = [batch_of(k) for k in range(3)]
    evaluation = LossEvaluation(of_average, lambda share: batches, rows=B)
    figures = evaluation.figures(evaluation.sums(Weights(state.params, state.variables)))
    average = {"critic": state.variables["ema_critic"]}
    want = sum((loss_fn(average, b).loss for b in batches), Weighted(0.0, 0.0)).mean()
    np.testing.assert_allclose(figures["loss"], want, rtol=1e-6)  # float32 sums of 18 rows


def init(after, **settings):
    step = make_train_step(loss_fn, optax.sgd(0.05), after=after)
    return step, step.init(new_params(), jax.random.key(0), **settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: init(chain(ema("critic"), ema("critic"))), "after: two rules .* 'ema_critic'"),
        (lambda: init(ema(), variables={"ema": jnp.zeros(())}), "variables: 'ema' is already"),
        (lambda: ema(decay=1.0), "decay: expected"),
        (lambda: ema(decay=-0.1), "decay: expected"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "update",
    [
        lambda variables, params, statistics, clock: {},
        lambda variables, params, statistics, clock: {**variables, "more": jnp.zeros(())},
        lambda variables, params, statistics, clock: {"kept": jnp.zeros(D, "bfloat16")},
        lambda variables, params, statistics, clock: {"kept": jnp.zeros(D + 1)},
    ],
)
def test_new_variables_must_be_like_the_old_ones(update):
    step, state = init(update, variables={"kept": jnp.zeros(D)})
    with pytest.raises(ValueError, match=r"after: variables: expected .*, as before the step, got"):
        jax.jit(step)(state, batch_of(0))
