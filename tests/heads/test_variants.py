"""Every method of every head: the same with and without jit, with numerical gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from absl.testing import parameterized

from seqnets import heads
from seqnets.heads import HEADS, Head, student_t_quantiles

N, LEVELS = 3, (0.001, 0.3, 0.55, 0.999)
TARGET = np.array([0.7, -2.1, 0.1])
# A function of a head and raw numbers [N, S], and the shape of what it gives.
METHODS = {
    "loss": (lambda head, raw: head.loss(raw, jnp.asarray(TARGET, raw.dtype)), (N,)),
    "quantiles": (lambda head, raw: head.quantiles(raw, LEVELS), (N, len(LEVELS))),
    "mean": (lambda head, raw: head.mean(raw), (N,)),
    "sample": (lambda head, raw: head.sample(raw, jax.random.key(1)), (N,)),
}
EVERY = [
    (f"{name}_{method}", make(), *METHODS[method])
    for name, make in HEADS.items()
    for method in METHODS
]
# A head draws by rejection where a draw is no differentiable function of the raw numbers.
SMOOTH = [row for row in EVERY if row[0] != "student_t_sample"]


def test_table_is_complete():
    methods = {name for name in vars(Head) if not name.startswith("_")} - {"size"}
    assert METHODS.keys() == methods
    kinds = {type(make()).__name__ for make in HEADS.values()}
    public = {name for name, value in vars(heads).items() if callable(value)}
    assert kinds | {"Head", "student_t_quantiles"} == public


def raw_numbers(head, dtype):
    return jnp.asarray(np.random.default_rng(5).normal(size=(N, head.size)), dtype)


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(*EVERY)
    def test_with_and_without_jit(self, head, method, shape):
        raw = raw_numbers(head, jnp.float32)
        got = self.variant(lambda raw: method(head, raw))(raw)
        chex.assert_shape(got, shape)
        chex.assert_type(got, jnp.float32)
        chex.assert_tree_all_finite(got)
        wide = method is not METHODS["sample"][0]  # another float type draws other numbers
        with jax.enable_x64(wide):
            want = method(head, raw.astype(jnp.float64) if wide else raw)
        # Float32 beside float64: log Γ loses about two digits.
        chex.assert_trees_all_close(got, want, rtol=2e-5, atol=2e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_student_t_quantiles_with_and_without_jit(self):
        df = jnp.array([[2.5, 9.0, 40.0]])
        got = self.variant(lambda df: student_t_quantiles(df, LEVELS))(df)
        chex.assert_shape(got, (1, 3, len(LEVELS)))
        want = scipy.stats.t.ppf(LEVELS, np.float64(df)[..., None])
        chex.assert_trees_all_close(got, want, rtol=1e-5)

    @parameterized.named_parameters(*SMOOTH)
    def test_numerical_gradients_in_both_modes(self, head, method, shape):
        with jax.enable_x64(True):
            raw = raw_numbers(head, jnp.float64)
            # Central differences with ε = 1e-4 are right to ε²; chex multiplies by the size.
            tolerance = {"atol": 1e-6 / raw.size, "rtol": 1e-6}
            function = jax.jit(lambda raw: method(head, raw))
            chex.assert_numerical_grads(function, (raw,), 1, eps=1e-4, **tolerance)

    def test_numerical_gradients_of_student_t_quantiles(self):
        with jax.enable_x64(True):
            function = jax.jit(lambda df: student_t_quantiles(df, (0.1, 0.7)))
            df = jnp.array([2.5, 9.0])
            chex.assert_numerical_grads(function, (df,), 2, eps=1e-4, atol=1e-5, rtol=1e-5)

    def test_draws_by_rejection_have_finite_gradients(self):
        head = HEADS["student_t"]()
        raw = raw_numbers(head, jnp.float32)
        chex.assert_tree_all_finite(
            jax.grad(lambda raw: jnp.sum(head.sample(raw, jax.random.key(1))))(raw)
        )
