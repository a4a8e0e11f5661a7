"""Checks of the steps and of the carry, and where segments start in either direction."""

import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import LSTM, CellStack, ConvLSTM, LSTMCarry
from seqnets.cells.gru import GRUCarry
from seqnets.recurrence.contract import check_carry, check_steps, segment_starts

XS = jnp.zeros((2, 5, 3))


def test_check_steps():
    check_steps(LSTM(4), XS, None, None)
    images = ConvLSTM(4, image=(4, 4), kernel=(3, 3))
    flags = jnp.ones((2, 5), bool)
    check_steps(images, jnp.zeros((2, 5, 4, 4, 3)), flags, flags)
    check_steps(CellStack((images,)), jnp.zeros((2, 5, 4, 4, 3)), flags, flags)
    with pytest.raises(ValueError, match=r"xs: expected shape \[B, T, D\] .* got \(2, 5\)"):
        check_steps(LSTM(4), XS[:, :, 0], None, None)
    with pytest.raises(ValueError, match=r"xs: expected shape \[B, T, D\] .* got \(2, 5, 3, 1\)"):
        check_steps(LSTM(4), XS[..., None], None, None)
    with pytest.raises(ValueError, match=r"xs: .* \[B, T, I, I, D\] .* got \(2, 5, 3\)"):
        check_steps(images, XS, None, None)
    for name in ("mask", "reset"):
        for wrong in (flags[:, :4], flags[0], flags[..., None]):
            arguments = {"mask": None, "reset": None, name: wrong}
            with pytest.raises(ValueError, match=rf"{name}: expected shape \(2, 5\)"):
                check_steps(LSTM(4), XS, **arguments)
        for dtype in ("int32", "float32"):
            arguments = {"mask": None, "reset": None, name: flags.astype(dtype)}
            with pytest.raises(TypeError, match=rf"{name}: expected an array of bools"):
                check_steps(LSTM(4), XS, **arguments)


def test_check_carry():
    initial = LSTM(4).initial_carry(None, 2, "float32")
    check_carry(initial, initial)
    check_carry(LSTMCarry(*(np.zeros((2, 4), "float16") for _ in range(2))), initial)
    with pytest.raises(ValueError, match=r"carry: expected the structure .*LSTMCarry.* got .*GRU"):
        check_carry(GRUCarry(initial.h), initial)
    with pytest.raises(ValueError, match="carry: expected the structure"):
        check_carry((initial.c, initial.h), initial)
    with pytest.raises(ValueError, match=r"carry\.h: expected shape \(2, 4\) .* got \(3, 4\)"):
        check_carry(initial._replace(h=jnp.zeros((3, 4))), initial)
    with pytest.raises(TypeError, match=r"carry\.c: expected an array of floats, got dtype int32"):
        check_carry(initial._replace(c=jnp.zeros((2, 4), int)), initial)


def starts_by_search(mask, reset):
    """Backwards: the flag of the next real step, found by looking for it."""
    starts = np.zeros_like(reset)
    for b, t in np.argwhere(mask):
        later = [s for s in range(t + 1, mask.shape[1]) if mask[b, s]]
        starts[b, t] = bool(later) and reset[b, later[0]]
    return starts


def test_segment_starts(rng):
    mask, reset = rng.random((2, 40, 7)) < np.array([0.6, 0.5])[:, None, None]
    assert segment_starts(jnp.asarray(mask), None, reverse=True) is None
    forward = segment_starts(jnp.asarray(mask), jnp.asarray(reset), reverse=False)
    np.testing.assert_array_equal(forward, reset)
    backward = segment_starts(jnp.asarray(mask), jnp.asarray(reset), reverse=True)
    np.testing.assert_array_equal(backward & mask, starts_by_search(mask, reset))
    no_mask = segment_starts(None, jnp.asarray(reset), reverse=True)
    np.testing.assert_array_equal(no_mask, starts_by_search(np.ones_like(mask), reset))


def test_segment_starts_of_no_steps():
    flags = jnp.ones((3, 0), bool)
    assert segment_starts(flags, flags, reverse=True).shape == (3, 0)
