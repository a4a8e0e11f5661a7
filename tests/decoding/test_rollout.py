"""Rollouts against a plain loop over rows, however they are cut into chunks."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.decoding import compile_rollout, never, rollout, start_rollout, stream

B, V, H = 4, 7, 3


def model(rng):
    """Parameters and a step over a pytree of carry, value, and output."""
    params = {
        "table": jnp.asarray(rng.normal(size=(V, H)), "float32"),
        "out": jnp.asarray(rng.normal(size=(H, V)), "float32"),
    }

    def step(params, carry, value, *inputs):
        state = jnp.tanh(0.5 * carry["state"] + params["table"][value["token"]])
        for extra in inputs:
            state = state + extra
        return {"state": state}, {"logits": 3 * state @ params["out"]}

    return params, step


def choose(output, keys, t):
    token = jax.vmap(jax.random.categorical)(keys, output["logits"])
    return {"token": token.astype(jnp.int32)}


def stop(value, t):
    return value["token"] == 2


def start(rng, limit=None):
    carry = {"state": jnp.asarray(rng.normal(size=(B, H)), "float32")}
    value = {"token": jnp.asarray(rng.integers(0, V, B), "int32")}
    return start_rollout(carry, value, jax.random.key(7), limit)


def loop(params, step, state, limits, steps, inputs=None):
    """Rows one by one, in Python: the values of each, and the state it is left with."""
    rows, states = [], []
    for b in range(B):
        one = jax.tree.map(lambda x, b=b: x[b : b + 1], (state.carry, state.value))
        carry, value = one
        tokens = []
        while len(tokens) < min(limits[b], steps):
            t = len(tokens)
            extra = () if inputs is None else (inputs[b : b + 1, t],)
            carry, output = step(params, carry, value, *extra)
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), b), t)
            value = choose(output, key[None], t)
            tokens.append(int(value["token"][0]))
            if tokens[-1] == 2:
                break
        rows.append(tokens)
        states.append(np.asarray(carry["state"][0]))
    return rows, np.stack(states)


@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 7], [3, 0, 4, 5]])
@pytest.mark.parametrize("limits", [[12, 3, 0, 20], [12, 12, 12, 12]])
def test_the_result_does_not_depend_on_the_chunks(rng, chunks, limits):
    params, step = model(rng)
    state = start(rng, jnp.array(limits))
    inputs = jnp.asarray(rng.normal(size=(B, 12, H)), "float32")
    want, states = loop(params, step, state, limits, 12, inputs)
    values, real, at = [], [], 0
    for steps in chunks:
        state, new, flags = rollout(
            lambda *given: step(params, *given),
            state,
            inputs[:, at : at + steps],
            steps=steps,
            choose=choose,
            stop=stop,
        )
        values.append(new["token"])
        real.append(flags)
        at += steps
    values, real = np.concatenate(values, 1), np.concatenate(real, 1)
    assert [row[flags].tolist() for row, flags in zip(values, real, strict=True)] == want
    assert (values[~real] == 0).all()
    assert not np.any(real[:, 1:] & ~real[:, :-1])
    # The products of one row and of four may be rounded otherwise.
    np.testing.assert_allclose(state.carry["state"], states, rtol=1e-5, atol=1e-6)


def test_rows_do_not_depend_on_their_neighbors(rng):
    params, step = model(rng)
    state = start(rng, 9)
    run = lambda state: rollout(  # noqa: E731
        lambda *given: step(params, *given), state, steps=9, choose=choose, stop=stop
    )[1]["token"]
    whole = run(state)
    alone = run(jax.tree.map(lambda x: x[:2] if x.ndim else x, state))
    np.testing.assert_array_equal(alone, whole[:2])


def test_one_program_serves_any_length(rng):
    params, step = model(rng)
    traced = chex.assert_max_traces(step, n=1)
    chunk = compile_rollout(traced, steps=16, choose=choose)
    whole = None
    for length in (1000, 1, 7, 64):
        state = start(np.random.default_rng(0), length)
        parts = [values["token"][:, real.all(0)] for values, real in stream(chunk, params, state)]
        tokens = np.concatenate(parts, axis=1)
        chex.assert_shape(tokens, (B, length))
        whole = tokens if whole is None else whole
        np.testing.assert_array_equal(tokens, whole[:, :length])


def test_a_stream_ends_when_every_row_has(rng):
    params, step = model(rng)
    chunk = compile_rollout(step, steps=4, choose=choose, stop=stop)
    parts = list(stream(chunk, params, start(rng)))
    last = np.concatenate([real for _, real in parts], axis=1)
    assert last.sum(1).max() > 4 * (len(parts) - 1)
    tokens = np.concatenate([values["token"] for values, _ in parts], axis=1)
    assert all(row[flags][-1] == 2 for row, flags in zip(tokens, last, strict=True))


def test_a_penalty_wraps_the_step_and_counts_in_its_carry(rng):
    """No token twice: a ban that is a step function around another."""
    params, step = model(rng)

    def banned(carry, value):
        inner, seen = carry
        seen = seen.at[jnp.arange(B), value["token"]].set(True)
        inner, output = step(params, inner, value)
        return (inner, seen), {"logits": jnp.where(seen, -jnp.inf, output["logits"])}

    state = start(rng, V - 1)
    state = state._replace(carry=(state.carry, jnp.zeros((B, V), bool)))
    first = np.asarray(state.value["token"])
    _, values, _ = rollout(banned, state, steps=V - 1, choose=choose)
    together = np.concatenate([first[:, None], values["token"]], axis=1)
    assert all(sorted(row) == list(range(V)) for row in together.tolist())


def test_sample_paths_are_a_map_over_keys(rng):
    """Real numbers fed back: many paths of a random walk."""

    def step(carry, value):
        return carry, value

    def draw(output, keys, t):
        return output + jax.vmap(jax.random.normal)(keys)

    def path(key):
        state = start_rollout((), jnp.zeros(2), key, 16)
        return rollout(step, state, steps=16, choose=draw)[1]

    paths = jax.vmap(path)(jax.random.split(jax.random.key(0), 4000))
    chex.assert_shape(paths, (4000, 2, 16))
    # The variance of a walk is its length; of 8000 draws within five standard errors.
    variance = np.var(np.asarray(paths), axis=(0, 1))
    np.testing.assert_allclose(variance, np.arange(1, 17), rtol=5 * np.sqrt(2 / 8000))


def test_mistakes_are_named(rng):
    params, step = model(rng)
    with pytest.raises(ValueError, match=r"limit: expected shape \(4,\)"):
        start(rng, jnp.ones(3, jnp.int32))
    with pytest.raises(ValueError, match="steps: expected a value in"):
        rollout(lambda *given: step(params, *given), start(rng, 3), steps=-1, choose=choose)
    assert not bool(never(None, None))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"carry": {"state": jnp.zeros(())}}, r"carry\['state'\]: expected .* rows first"),
        ({"carry": {"state": jnp.zeros((3, H))}}, r"carry\['state'\]: expected 4 rows, as in the"),
        ({"value": {"token": jnp.int32(0)}}, r"value\['token'\]: expected .* rows first"),
        ({"value": {}}, "value: expected arrays with rows first"),
        ({"limit": jnp.zeros(3, "int32")}, "limit: expected shape"),
    ],
)
def test_what_is_not_rows_is_refused_at_the_start(rng, wrong, message):
    right = {"carry": {"state": jnp.zeros((B, H))}, "value": {"token": jnp.zeros(B, "int32")}}
    start_rollout(**right, key=jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        start_rollout(**{**right, **wrong}, key=jax.random.key(0))


def test_a_limit_of_floats_is_refused():
    value = {"token": jnp.zeros(B, "int32")}
    with pytest.raises(TypeError, match="limit: expected an array of ints"):
        start_rollout({}, value, jax.random.key(0), 2.5)


def test_a_step_that_changes_the_state_is_named(rng):
    params, step = model(rng)
    run = functools.partial(rollout, state=start(rng), steps=3, choose=choose)
    plain = functools.partial(step, params)
    run(plain)
    with pytest.raises(
        ValueError,
        match=r"step_fn: carry: expected .*float32.*, as before the step, got .*bfloat16",
    ):
        run(
            lambda *given: (
                jax.tree.map(lambda x: x.astype("bfloat16"), given[0]),
                plain(*given)[1],
            )
        )
    with pytest.raises(ValueError, match=r"choose: value: expected .*, as before the step, got"):
        run(plain, choose=lambda *given: {**choose(*given), "more": given[-1]})
    with pytest.raises(ValueError, match=r"inputs\['x'\]: expected shape \(4, 3\)"):
        run(plain, inputs={"x": jnp.zeros((B, 2))})
    with pytest.raises(ValueError, match=r"inputs\['x'\]: expected shape \(4, 3\) .* got \(2, 3\)"):
        run(plain, inputs={"x": jnp.zeros((2, 3))})
    with pytest.raises(ValueError, match=r"inputs\['x'\]: expected shape \(4, 3\) .* got \(\)"):
        run(plain, inputs={"x": 1.0})


def test_python_numbers_in_a_carry_trace_once(rng):
    """Their dtype is weak at first and strong after a chunk, which would be another program."""

    @chex.assert_max_traces(n=1)
    def step(params, carry, value):
        return {"sum": carry["sum"] * params}, carry["sum"]

    chunk = compile_rollout(step, steps=4, choose=lambda output, keys, t: output)
    ones = jnp.full((B,), 1.0)  # weakly typed
    state = start_rollout({"sum": ones}, ones, jax.random.key(0), 12)
    total = [values for values, _ in stream(chunk, jnp.float32(2), state)]
    np.testing.assert_array_equal(np.concatenate(total, 1)[0], 2.0 ** np.arange(12))
