import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.optimizers import constant, cosine, exponential, linear, one_cycle, warmup

PROGRESS = np.linspace(0, 1, 41)


def values(schedule, progress=PROGRESS):
    return np.array([schedule(jnp.float32(p)) for p in progress])


HALF = [
    (constant(), (1, 1, 1)),
    (linear(), (1, 0.5, 0)),
    (linear(0.2), (1, 0.6, 0.2)),
    (cosine(), (1, 0.5, 0)),
    (cosine(0.2), (1, 0.6, 0.2)),
    (exponential(), (1, 0.1, 0.01)),
    (exponential(0.25), (1, 0.5, 0.25)),
    (one_cycle(0.5, 0.1, 0.0), (0.1, 1, 0)),
    (one_cycle(0.25, 0.1, 0.4), (0.1, 0.4 + 0.6 * 0.75, 0.4)),  # a third of the way down
    (warmup(constant(), 0.75, initial=0.0), (0, 2 / 3, 1)),
    (warmup(linear(), 0.25), (0.01, 2 / 3, 0)),
]


@pytest.mark.parametrize(("schedule", "expected"), HALF)
def test_start_middle_and_end(schedule, expected):
    # A few roundings of values of the order of 1.
    np.testing.assert_allclose(values(schedule, [0, 0.5, 1]), expected, rtol=0, atol=5e-7)


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (linear(0.3), 1 - 0.7 * PROGRESS),
        (cosine(0.3), 0.3 + 0.7 * np.cos(np.pi * PROGRESS / 2) ** 2),
        (exponential(0.3), 0.3**PROGRESS),
    ],
)
def test_closed_forms(schedule, formula):
    np.testing.assert_allclose(values(schedule), formula, rtol=0, atol=5e-7)


def test_one_cycle_has_one_peak_and_no_jump():
    near = np.float32(0.3)
    around = values(one_cycle(), [np.nextafter(near, 0), near, np.nextafter(near, np.float32(1))])
    np.testing.assert_allclose(around, 1, rtol=0, atol=1e-6)
    path = values(one_cycle())
    rising = np.diff(path) > 0
    np.testing.assert_array_equal(rising, PROGRESS[1:] <= 0.3 + 1e-9)
    np.testing.assert_allclose(path[[0, -1]], [1 / 25, 1e-4 / 25], rtol=0, atol=1e-7)


def test_warmup_meets_the_schedule_without_a_jump():
    warmed = warmup(cosine(0.1), 0.2)
    near = np.float32(0.2)
    around = values(warmed, [np.nextafter(near, 0), near, np.nextafter(near, np.float32(1))])
    np.testing.assert_allclose(around, 1, rtol=0, atol=1e-6)
    # Past the warm-up it is the whole cosine on what is left of the run.
    late = PROGRESS[PROGRESS > 0.2]
    np.testing.assert_allclose(
        values(warmed, late), values(cosine(0.1), (late - 0.2) / 0.8), rtol=0, atol=1e-6
    )
    rise = values(warmed, [0, 0.05, 0.1, 0.15])
    np.testing.assert_allclose(np.diff(rise), 0.99 / 4, rtol=1e-5)


def test_warmup_rises_to_where_the_schedule_starts():
    np.testing.assert_allclose(
        values(warmup(one_cycle(initial=0.4), 0.5), [0.25, 0.5]), [0.205, 0.4], rtol=1e-6
    )


@pytest.mark.parametrize(
    "schedule", [constant(), linear(), cosine(), exponential(), one_cycle(), warmup(cosine(), 0.1)]
)
def test_abstract_progress_gives_a_float32_scalar(schedule):
    out = jax.eval_shape(schedule, jax.ShapeDtypeStruct((), jnp.float32))
    assert (out.shape, out.dtype) == ((), jnp.float32)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (linear, "final", -0.1),
        (linear, "final", 1.1),
        (cosine, "final", -0.1),
        (cosine, "final", np.nan),
        (exponential, "final", 0.0),
        (exponential, "final", 1.1),
        (one_cycle, "peak_at", 0.0),
        (one_cycle, "peak_at", 1.0),
        (one_cycle, "initial", 1.1),
        (one_cycle, "final", -0.1),
    ],
)
def test_rejects(make, name, value):
    with pytest.raises(ValueError, match=name):
        make(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("fraction", 0.0), ("fraction", 1.0), ("initial", -0.1), ("initial", 1.1)],
)
def test_warmup_rejects(name, value):
    with pytest.raises(ValueError, match=name):
        warmup(constant(), **{"fraction": 0.1, name: value})
