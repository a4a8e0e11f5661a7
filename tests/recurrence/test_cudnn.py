"""What is given to NVIDIA's kernel: its own reference, which runs anywhere, stands in for it."""

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.experimental import rnn

from seqnets.cells import GRU, LSTM
from seqnets.recurrence import Execution, Noise, unroll

B, T, D, H = 3, 6, 4, 5


@pytest.fixture
def point(rng):
    params = LSTM(H).init(jax.random.key(0), D)
    tree = (params, LSTM(H).initial_carry(params, B, "float32"), jnp.zeros((B, T, D)))
    return jax.tree.map(lambda x: x + 0.5 * jnp.asarray(rng.normal(size=x.shape), x.dtype), tree)


@pytest.fixture
def reference_kernel(monkeypatch):
    def lstm(xs, h, c, weights, lengths, inputs, hidden, layers, dropout, both):
        unpacked = rnn.unpack_lstm_weights(weights, inputs, hidden, layers, both)
        return rnn.lstm_ref(xs, h, c, *unpacked, lengths, inputs, hidden, layers, dropout, both)

    monkeypatch.setattr(rnn, "lstm", lstm)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.usefixtures("reference_kernel")
def test_results_are_those_of_the_scan(reverse, point):
    want, got = (
        unroll(LSTM(H), *point, reverse=reverse, execution=Execution(way))
        for way in ("scan", "cudnn")
    )
    chex.assert_trees_all_close(got, want, atol=1e-6)


@pytest.mark.usefixtures("reference_kernel")
def test_what_the_kernel_cannot_do_is_said(point):
    params, carry, xs = point
    flags = jnp.ones((B, T), bool)
    for options, message in (
        ({"mask": flags}, "mask: expected None"),
        ({"reset": flags}, "reset: expected None"),
        ({"noise": Noise(hidden=jnp.ones((B, H)))}, "noise: expected None"),
    ):
        with pytest.raises(TypeError, match=f"strategy 'cudnn': {message}"):
            unroll(LSTM(H), params, carry, xs, execution=Execution("cudnn"), **options)
    with pytest.raises(TypeError, match="xs: expected float32, got bfloat16"):
        unroll(LSTM(H), params, carry, xs.astype("bfloat16"), execution=Execution("cudnn"))
    gru = GRU(H).init(jax.random.key(0), D)
    with pytest.raises(TypeError, match="cell: expected an LSTM, got GRU"):
        unroll(GRU(H), gru, None, xs, execution=Execution("cudnn"))


def test_other_devices_are_refused(point):
    with pytest.raises(TypeError, match="device: expected an NVIDIA GPU, got cpu"):
        unroll(LSTM(H), *point, execution=Execution("cudnn"))
