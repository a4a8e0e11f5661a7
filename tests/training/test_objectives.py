"""Objectives: what a loss function may be, and who trains what, when; oracle: Optax in a loop."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.reduction import Weighted, weighted
from seqnets.training import (
    Clock,
    LossOutput,
    Objective,
    between,
    ema,
    every,
    make_evaluation_step,
    make_train_step,
)
from seqnets.training.rows import Shared, SumOverRows

B, D = 6, 3
OPTIMIZERS = {
    "critic": optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.05)),
    "generator": optax.sgd(0.1, momentum=0.9),
}


def critic_loss(params, batch):
    score = batch["x"] @ params["critic"]["w"] - jnp.tanh(batch["x"] @ params["generator"]["w"])
    return weighted(score**2, batch["weight"])


def generator_loss(params, batch):
    fake = jnp.tanh(batch["x"] @ params["generator"]["w"])
    return weighted((fake - batch["y"]) ** 2 + fake * params["critic"]["w"][0], batch["weight"])


LOSSES = {"critic": critic_loss, "generator": generator_loss}


def batch_of(k):
    rng = np.random.default_rng([21, k])
    x, y = rng.normal(size=(B, D)).astype("f4"), rng.normal(size=B).astype("f4")
    return {"x": x, "y": y, "weight": rng.integers(0, 3, B).astype("f4")}


def new_params():
    rng = np.random.default_rng(22)
    names = ("critic", "generator", "frozen")
    return {name: {"w": jnp.asarray(rng.normal(size=D), "f4")} for name in names}


def pair(order=("critic", "generator"), when=None, losses=LOSSES):
    when = when or {}
    return {
        name: Objective(losses[name], OPTIMIZERS[name], (name,), when.get(name)) for name in order
    }


def start(step, **settings):
    return step.init(new_params(), jax.random.key(7), **settings)


def oracle(order, active, steps):
    """Plain Python: later objectives see what earlier ones have moved."""
    params = new_params()
    states = {name: OPTIMIZERS[name].init({name: params[name]}) for name in order}
    for k in range(steps):
        for name in order:
            if not active[name](k):
                continue

            def mean(part, name=name, params=params, k=k):
                return LOSSES[name]({**params, **part}, batch_of(k)).mean()

            part = {name: params[name]}
            updates, states[name] = OPTIMIZERS[name].update(
                jax.grad(mean)(part), states[name], part
            )
            params = {**params, **optax.apply_updates(part, updates)}
    return params, states


# --- several objectives ----------------------------------------------------------------------


@pytest.mark.parametrize("order", [("critic", "generator"), ("generator", "critic")])
@pytest.mark.parametrize(
    ("when", "active"),
    [
        ({}, {"critic": lambda k: True, "generator": lambda k: True}),
        ({"generator": every(3)}, {"critic": lambda k: True, "generator": lambda k: k in (2, 5)}),
        (
            {"critic": between(0.25, 0.75), "generator": every(2)},
            {"critic": lambda k: 2 <= k < 6, "generator": lambda k: k % 2 == 1},
        ),
        (
            {"critic": between(0.5, 1), "generator": lambda step, progress: step == 0},
            {"critic": lambda k: k >= 4, "generator": lambda k: k == 0},
        ),
    ],
    ids=["always", "every", "between and every", "a function of one's own"],
)
def test_updates_follow_one_another(order, when, active):
    step = make_train_step(pair(order, when), steps=8)
    state, jitted = start(step), jax.jit(step)
    for k in range(8):
        before = state
        state, info = jitted(state, batch_of(k))
        assert list(info.losses) == list(info.gradient_norms) == list(order)
        chex.assert_trees_all_equal(info.loss, info.losses[order[0]])
        for name in order:
            weight = float(info.losses[name].weight)
            assert weight == (batch_of(k)["weight"].sum() if active[name](k) else 0)
            if not active[name](k):
                assert float(info.gradient_norms[name]) == 0
                for part in (lambda s, name=name: s.params[name], lambda s, n=name: s.opt_state[n]):
                    chex.assert_trees_all_equal(part(state), part(before), strict=True)
    params, states = oracle(order, active, 8)
    chex.assert_trees_all_close(state.params, params, rtol=1e-5)  # float32, another program
    chex.assert_trees_all_close(state.opt_state, states, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_equal(state.params["frozen"], new_params()["frozen"], strict=True)


def test_the_order_of_the_updates_matters():
    """Or the test above would not see it."""
    always = dict.fromkeys(LOSSES, lambda k: True)
    orders = [("critic", "generator"), ("generator", "critic")]
    first, second = (oracle(order, always, 8)[0]["critic"]["w"] for order in orders)
    assert abs(first - second).max() > 1e-3


def test_gradient_clipping_and_state_exist_for_what_is_trained_only():
    """The gradient of the frozen part is large: it would be clipped with the rest."""

    def loss(params, batch):
        total = sum(jnp.sum(part["w"]) for part in params.values())
        return weighted(0.1 * total + 1000 * params["frozen"]["w"][0] + 0 * batch)

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.trace(0.9), optax.scale(-1.0))
    step = make_train_step(Objective(loss, optimizer, ("critic", "generator")))
    state = start(step)
    assert {len(leaf) for leaf in jax.tree.leaves(state.opt_state)} == {D}
    assert len(jax.tree.leaves(state.opt_state)) == 2
    new, info = jax.jit(step)(state, jnp.ones(B))
    for name in ("critic", "generator"):
        moved = new.params[name]["w"] - state.params[name]["w"]
        np.testing.assert_allclose(moved, -0.1, rtol=1e-5)  # of parameters of size 1
    chex.assert_trees_all_equal(new.params["frozen"], state.params["frozen"], strict=True)
    np.testing.assert_allclose(info.gradient_norm, 0.1 * np.sqrt(2 * D), rtol=1e-6)


def noisy(name, params, batch, given):
    """Its metric is what it drew."""
    draws = jax.vmap(jax.random.uniform)(given.keys.rows) + jax.random.uniform(given.keys.shared)
    loss = weighted(batch["x"] @ params["critic"]["w"])
    return LossOutput(loss, metrics={f"{name}_draws": weighted(draws)})


def test_objectives_draw_different_noise_and_the_first_draws_as_a_lone_one():
    named = {
        name: Objective(functools.partial(noisy, name), optax.sgd(0.1)) for name in ("a", "b", "c")
    }
    step = make_train_step(named)
    state = start(step)
    drawn = [jax.jit(step)(state._replace(step=jnp.int32(k)), batch_of(0))[1] for k in range(4)]
    totals = [float(info.metrics[f"{n}_draws"].total) for info in drawn for n in ("a", "b", "c")]
    assert len(set(totals)) == 12
    lone = make_train_step(functools.partial(noisy, "a"), optax.sgd(0.1))
    _, info = jax.jit(lone)(start(lone), batch_of(0))
    assert float(info.metrics["a_draws"].total) == totals[0]


def test_no_key_is_used_twice():
    """Over steps, objectives, and rows; nor do the keys of one come from those of another."""
    seen = []

    def loss(params, batch, given):
        seen.extend([*given.keys.rows, given.keys.shared])
        return weighted(batch * params)

    objective = make_train_step(loss, optax.sgd(1.0)).objectives["loss"]
    for number in range(3):
        for k in range(8):
            shared = Shared(jnp.float32(0), (), jax.random.key(0), k, 0.0)
            SumOverRows(objective, number, 1)(shared, ((), np.ones(8, "f4")), 0)
    keys = jnp.stack(seen)
    derived = jax.vmap(lambda key: jax.vmap(lambda n: jax.random.fold_in(key, n))(np.arange(8)))
    roots = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(np.arange(8))
    every = [*map(jax.random.key_data, (keys, derived(keys), roots))]
    every = np.concatenate([np.asarray(data).reshape(-1, 2) for data in every])
    assert len(every) == 3 * 8 * 9 * (1 + 8) + 8
    assert len(np.unique(every, axis=0)) == len(every)


# --- steps that are not finite ---------------------------------------------------------------


def explosive(name, bad, params, batch):
    """The loss of a name, and where the batch says so what is bad about it."""
    loss = LOSSES[name](params, batch)
    flag, w = batch["flag"][0], params[name]["w"]
    extra = {
        "loss": jnp.where(flag, jnp.nan, 0.0),
        "gradient": jnp.sqrt(jnp.where(flag, 0 * w[0], 1.0)),  # infinite slope at 0
        "parameters": jnp.where(flag, 1e15 * jnp.sum(w), 0.0),
    }[bad]
    return loss._replace(total=loss.total + extra)


@pytest.mark.parametrize("bad", ["loss", "gradient", "parameters"])
@pytest.mark.parametrize("culprit", ["critic", "generator"])
def test_one_select_restores_everything(culprit, bad):
    """The update is the cube of the gradient, and overflows alone where that is 1e14."""

    def loss(name, params, batch, given):
        sums = LOSSES[name](params, batch)
        if name == culprit:
            sums = explosive(name, bad, params, batch)
        return LossOutput(sums, jax.tree.map(lambda x: x + 1, given.carry))

    cube = optax.stateless(lambda grads, _: jax.tree.map(lambda g: -1e-4 * g**3, grads))
    optimizer = optax.chain(cube, optax.trace(0.9))
    named = {n: Objective(functools.partial(loss, n), optimizer, (n,)) for n in LOSSES}
    step = make_train_step(named, after=ema("generator", 0.9))
    state, jitted = start(step, carry={"seen": jnp.zeros((B, 2))}), jax.jit(step)
    fine, spoiled = ({**batch_of(0), "flag": np.full(B, flag)} for flag in (False, True))
    state, info = jitted(state, fine)
    assert bool(info.finite)
    assert float(state.carry["seen"].sum()) == 2 * 2 * B  # both objectives have passed it on
    after, info = jitted(state, spoiled)
    assert not bool(info.finite)
    assert bool(jnp.isfinite(info.losses[culprit].total)) == (bad != "loss")
    assert bool(jnp.isfinite(info.gradient_norms[culprit])) == (bad != "gradient")
    chex.assert_trees_all_equal(after[1:5], state[1:5], strict=True)
    assert int(after.step) == 2
    recovered, info = jitted(after, fine)
    assert bool(info.finite)
    assert not np.array_equal(recovered.params["generator"]["w"], after.params["generator"]["w"])


def test_parameters_that_overflow_their_dtype_are_not_kept():
    """Loss and gradient are finite, and so is the update in float32."""

    def loss(params, batch):
        return weighted(batch * params["w"].astype("float32"))

    step = make_train_step(loss, optax.sgd(1e4))
    state = step.init({"w": jnp.float16(-6e4)}, jax.random.key(0))
    new, info = jax.jit(step)(state, np.ones(2, "f4"))
    assert not bool(info.finite)
    assert bool(jnp.isfinite(info.loss.total))
    assert bool(jnp.isfinite(info.gradient_norm))
    assert float(new.params["w"]) == float(state.params["w"])


def test_integer_parameters_are_finite():
    """They are kept, not trained."""

    def loss(params, batch):
        return weighted(batch * params["critic"]["w"][0] * params["table"][0])

    step = make_train_step(Objective(loss, optax.sgd(0.1), ("critic",)))
    state = step.init({**new_params(), "table": jnp.arange(3)}, jax.random.key(0))
    new, info = jax.jit(step)(state, np.ones(2, "f4"))
    assert bool(info.finite)
    chex.assert_trees_all_equal(new.params["table"], jnp.arange(3), strict=True)


# --- when ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5])
def test_every(n):
    assert [k for k in range(12) if every(n)(k, 0.0)] == list(range(n - 1, 12, n))


@pytest.mark.parametrize(
    ("start", "stop", "inside", "outside"),
    [
        (0, 1, (0, 0.5, 1), ()),
        (0, 0.5, (0, 0.49), (0.5, 1)),
        (0.5, 1, (0.5, 0.9, 1), (0, 0.49)),
        (0.25, 0.75, (0.25, 0.5), (0, 0.75, 1)),
        (0.5, 0.5, (), (0, 0.5, 1)),
    ],
)
def test_between(start, stop, inside, outside):
    when = between(start, stop)
    for progress in inside:
        assert bool(when(3, jnp.float32(progress)))
    for progress in outside:
        assert not bool(when(3, jnp.float32(progress)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: every(0), "n: expected"),
        (lambda: between(-0.1, 1), "start: expected"),
        (lambda: between(0.5, 0.4), "stop: expected"),
        (lambda: between(0.5, 1.1), "stop: expected"),
    ],
)
def test_when_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_skipped_objective_leaves_the_carry_and_computes_nothing():
    def loss(params, batch, given):
        jax.debug.callback(lambda: computed.append(1))
        return LossOutput(LOSSES["critic"](params, batch), given.carry + 1)

    computed = []
    step = make_train_step(Objective(loss, optax.sgd(0.1), when=every(2)))
    state, jitted = start(step, carry=jnp.zeros(B)), jax.jit(step)
    carries = []
    for k in range(4):
        state, _ = jitted(state, batch_of(k))
        carries.append(float(state.carry[0]))
    jax.effects_barrier()
    assert carries == [0, 1, 1, 2]
    assert len(computed) == 2


def test_when_is_given_the_clock():
    step = make_train_step(pair(("critic",), {"critic": between(0.5, 1)}))
    state, jitted = start(step), jax.jit(step)
    weights = [
        float(jitted(state, batch_of(0), Clock(np.float32(p)))[1].loss.weight) for p in (0.4, 0.6)
    ]
    assert weights == [0, batch_of(0)["weight"].sum()]


# --- the two forms of a loss function --------------------------------------------------------


class Callable3:
    def __call__(self, params, batch, given):
        assert given.progress is not None
        return LossOutput(critic_loss(params, batch))


@pytest.mark.parametrize(
    "loss_fn",
    [
        critic_loss,
        lambda params, batch, given: critic_loss(params, batch),
        lambda params, batch, given: LossOutput(critic_loss(params, batch)),
        lambda params, batch: LossOutput(critic_loss(params, batch)),
        lambda params, batch, temperature=1.0: critic_loss(params, batch),
        lambda params, batch, given, temperature=1.0: critic_loss(params, batch),
        lambda params, batch, *, scale=1.0: critic_loss(params, batch),
        functools.partial(lambda scale, params, batch: critic_loss(params, batch), 1.0),
        Callable3(),
        jax.jit(critic_loss),
    ],
)
def test_forms_of_a_loss_function(loss_fn):
    want, _ = jax.jit(make_train_step(critic_loss, OPTIMIZERS["critic"]))(
        start(make_train_step(critic_loss, OPTIMIZERS["critic"])), batch_of(0)
    )
    step = make_train_step(loss_fn, OPTIMIZERS["critic"])
    got, _ = jax.jit(step)(start(step), batch_of(0))
    chex.assert_trees_all_close(got.params, want.params, rtol=1e-6)
    _, sums = make_evaluation_step(loss_fn)(new_params(), (), (), batch_of(0))
    chex.assert_trees_all_close(sums["loss"], critic_loss(new_params(), batch_of(0)))


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda: None, r"loss_fn: expected a function of \(params, batch\) or .* got \(\)"),
        (lambda params: None, r"got \(params\)"),
        (lambda a, b, c, d: None, r"got \(a, b, c, d\)"),
        (lambda *parts: None, "loss_fn: expected a function of"),
        (3, "loss_fn: expected a function, got 3"),
        (None, "loss_fn: expected a function, got None"),
    ],
)
def test_signatures_that_are_wrong(loss_fn, message):
    with pytest.raises(TypeError, match=message):
        make_train_step(loss_fn, optax.sgd(0.1))
    with pytest.raises(TypeError, match=message):
        make_evaluation_step(loss_fn)


def of(params, batch):
    return critic_loss(params, batch)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda loss: loss.mean(),
            TypeError,
            r"a Weighted .*, got an array of shape \(\);",
        ),
        (lambda loss: None, TypeError, "expected a Weighted or a LossOutput, got NoneType"),
        (lambda loss: (loss, ()), TypeError, "expected a Weighted or a LossOutput, got tuple"),
        (lambda loss: LossOutput(loss.mean()), TypeError, "the loss as a Weighted, got an array"),
        (
            lambda loss: LossOutput(loss, metrics={"accuracy": loss.mean()}),
            TypeError,
            "expected accuracy as a Weighted, got an array",
        ),
        (
            lambda loss: Weighted(jnp.ones(3) * loss.total, loss.weight),
            ValueError,
            re.escape("expected scalars in the loss, got the shapes [(3,), ()]"),
        ),
        (
            lambda loss: LossOutput(loss, metrics={"loss": loss}),
            ValueError,
            "the metric 'loss' has the name",
        ),
    ],
)
def test_returns_that_are_wrong(make, error, message):
    def loss_fn(params, batch):
        return make(critic_loss(params, batch))

    step = make_train_step(loss_fn, optax.sgd(0.1))
    with pytest.raises(error, match=f"loss_fn: .*{message}"):
        jax.jit(step)(start(step), batch_of(0))
    with pytest.raises(error, match="loss_fn: "):
        jax.jit(make_evaluation_step(loss_fn))(new_params(), (), (), batch_of(0))


# --- mistakes of objectives ------------------------------------------------------------------


def with_sums(name, kind):
    def loss(params, batch):
        sums = critic_loss(params, batch)
        return LossOutput(sums, **{kind: {name: sums}})

    return Objective(loss, optax.sgd(0.1))


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ({n: with_sums("x", "metrics") for n in "ab"}, "two objectives have a metric named 'x'"),
        ({n: with_sums("x", "statistics") for n in "ab"}, "two objectives have a statistic"),
        ({"a": with_sums("b", "metrics"), "b": Objective(of, optax.sgd(0.1))}, "metric 'b' has"),
    ],
)
def test_names_that_clash(objectives, message):
    step = make_train_step(objectives)
    with pytest.raises(ValueError, match=f"loss_fn: .*{message}"):
        jax.jit(step)(start(step), batch_of(0))


def test_metrics_and_statistics_of_different_names_are_all_there():
    named = {n: with_sums(n.upper(), "metrics") for n in "ab"}
    step = make_train_step(named)
    _, info = jax.jit(step)(start(step), batch_of(0))
    assert set(info.metrics) == {"A", "B"}


SGD = optax.sgd(0.1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: make_train_step(of), TypeError, "optimizer: expected an Optax transformation"),
        (lambda: make_train_step(pair(), SGD), TypeError, "optimizer: expected None, since"),
        (lambda: make_train_step(Objective(of, SGD), SGD), TypeError, "optimizer: expected None"),
        (lambda: make_train_step({}), ValueError, "objectives: expected at least one, got none"),
        (
            lambda: make_train_step({"a": of}),
            TypeError,
            r"objectives\['a'\]: expected an Objective, got <function",
        ),
        (lambda: make_train_step(of, SGD, accumulate=0), ValueError, r"accumulate: .*, got 0"),
        (lambda: make_train_step(of, SGD, steps=0), ValueError, r"steps: expected .*, got 0"),
        (lambda: Objective(of, SGD, "critic"), TypeError, "trains: expected a tuple of keys"),
        (
            lambda: start(make_train_step(Objective(of, SGD, ("critik",)))),
            ValueError,
            "trains: no parameters 'critik'; .*'critic'",
        ),
        (
            lambda: make_train_step(Objective(of, SGD, ("w",))).init([1.0], jax.random.key(0)),
            ValueError,
            "trains: expected parameters in a dict, got list",
        ),
    ],
)
def test_mistakes(make, error, message):
    with pytest.raises(error, match=message):
        make()
