"""Bugs that the tests must find: one changed line each, and the tests that then fail."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["BUGS", "Bug"]


class Bug(NamedTuple):
    """One change to the library."""

    what: str
    """What the changed library does wrong."""
    file: str
    """Path below the package."""
    right: str
    """Text that is there once."""
    wrong: str
    """What is put in its place."""
    tests: tuple[str, ...]
    """Node ids below ``tests/``; at least one test of each fails."""


BUGS = (
    # --- reduction and losses --------------------------------------------------------------------
    Bug(
        "a mean in place of a sum",
        "reduction.py",
        "return Weighted(jnp.sum(real * weight), jnp.sum(weight))",
        "return Weighted(jnp.mean(real * weight), jnp.sum(weight))",
        ("test_reduction.py::test_by_hand",),
    ),
    Bug(
        "a masked NaN reaches the sum",
        "reduction.py",
        "real = jnp.where(weight == 0, 0.0, values)",
        "real = values",
        ("test_reduction.py::test_elements_of_weight_zero_never_matter",),
    ),
    Bug(
        "the sign of the cross-entropy of failures",
        "losses/classification.py",
        "return -_expected(t, log_sigmoid(x)) - _expected(1 - t, log_sigmoid(-x))",
        "return -_expected(t, log_sigmoid(x)) + _expected(1 - t, log_sigmoid(-x))",
        ("losses/test_classification.py::TestBinaryCrossEntropy",),
    ),
    Bug(
        "the factor 2 of Dice is missing",
        "losses/segmentation.py",
        "return 1 - (2 * overlap + smooth)",
        "return 1 - (overlap + smooth)",
        ("losses/test_segmentation.py::test_dice_is_the_loops",),
    ),
    Bug(
        "the sides of the pinball loss are exchanged",
        "losses/likelihood.py",
        "return jnp.maximum(q * error, (q - 1) * error)",
        "return jnp.maximum(-q * error, (1 - q) * error)",
        ("losses/test_likelihood.py::TestPinball",),
    ),
    # --- recurrence ------------------------------------------------------------------------------
    Bug(
        "one time step too many is real",
        "recurrence/lengths.py",
        "return jnp.arange(steps)[None, :] < lengths[:, None]",
        "return jnp.arange(steps)[None, :] <= lengths[:, None]",
        ("recurrence/test_unroll.py::test_lengths_to_mask",),
    ),
    Bug(
        "padded steps have outputs",
        "recurrence/scan.py",
        "y = select(real, y, jax.tree.map(jnp.zeros_like, y))",
        "y = select(real, y, y)",
        ("contracts/test_cells.py::test_the_plain_scan_of_gated_cells_equals_the_loop",),
    ),
    Bug(
        "a padded step loses its cotangent",
        "recurrence/fused.py",
        "carry=_add(d_before, d_kept),",
        "carry=d_before,",
        ("recurrence/test_fused.py::test_values_and_gradients_are_those_of_the_scan",),
    ),
    Bug(
        "the carry before a step is that after it",
        "recurrence/fused.py",
        "[rows.last(first)[None], after[:-1]]",
        "[rows.last(first)[None], after[1:]]",
        ("recurrence/test_fused.py::test_a_single_row",),
    ),
    Bug(
        "backwards, segments start where they end",
        "recurrence/contract.py",
        "return following % 2 == 1",
        "return following % 2 == 0",
        ("recurrence/test_contract.py::test_segment_starts",),
    ),
    Bug(
        "chunks read backwards begin with the first",
        "recurrence/remat.py",
        "reverse=reverse,\n        )\n        return carry, _join(ys)",
        "reverse=False,\n        )\n        return carry, _join(ys)",
        ("recurrence/test_remat.py::test_results_do_not_depend_on_it",),
    ),
    Bug(
        "the cast of carries to float32 is lost",
        "recurrence/precision.py",
        "return jnp.promote_types(jnp.float32, dtype)",
        "return jnp.dtype(dtype)",
        ("modules/test_recurrent.py::test_bfloat16_layers_keep_float32_state_and_gradients",),
    ),
    Bug(
        "wide inputs make the products of a gated cell wide",
        "cells/gated.py",
        "factors = weights if promoted == xs.dtype else promoted",
        "factors = promoted",
        ("recurrence/test_execution.py::test_every_product_has_bfloat16_factors_and_float32_sums",),
    ),
    Bug(
        "products are summed in bfloat16",
        "cells/product.py",
        "return jnp.result_type(jnp.float32, x, w)",
        "return jnp.result_type(x, w)",
        ("recurrence/test_execution.py::test_every_product_has_bfloat16_factors_and_float32_sums",),
    ),
    Bug(
        "zoneout keeps what it should replace",
        "recurrence/contract.py",
        "return jnp.where(update, new, old)",
        "return jnp.where(update, old, new)",
        ("recurrence/test_regularization.py::test_the_run_is_that_of_the_equations",),
    ),
    Bug(
        "one product is enough for every cell",
        "recurrence/adds_products.py",
        "        and len(uses) == 1\n",
        "",
        ("recurrence/test_adds_products.py",),
    ),
    # --- cells -----------------------------------------------------------------------------------
    Bug(
        "two gates of the LSTM are exchanged",
        "cells/lstm.py",
        "i, f, g, o = jnp.split(z_x + z_h, 4, axis=-1)",
        "f, i, g, o = jnp.split(z_x + z_h, 4, axis=-1)",
        ("cells/test_lstm.py::test_equals_flax",),
    ),
    Bug(
        "the update gate of the GRU is inverted",
        "cells/gru.py",
        "        n = self.activation(n_x + r * n_h)\n        h = (1 - z) * n + z * carry.h",
        "        n = self.activation(n_x + r * n_h)\n        h = z * n + (1 - z) * carry.h",
        ("cells/test_gru.py::test_one_unit_by_hand_reset_after",),
    ),
    Bug(
        "the bias of the forget gate is that of another",
        "cells/lstm.py",
        "forget_gate: ClassVar[int] = 1",
        "forget_gate: ClassVar[int] = 0",
        ("cells/test_lstm.py::test_forget_bias_is_part_of_the_bias",),
    ),
    # --- randomness ------------------------------------------------------------------------------
    Bug(
        "all rows draw with one key",
        "training/state.py",
        "return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)",
        "return jax.vmap(lambda number: jax.random.fold_in(key, 0 * number))(numbers)",
        ("training/test_state.py::test_row_keys_belong_to_the_row_of_the_global_batch",),
    ),
    Bug(
        "every step has the noise of the first",
        "training/state.py",
        "key = jax.random.fold_in(key, step)",
        "key = jax.random.fold_in(key, 0 * step)",
        ("training/test_step.py::test_every_step_has_its_own_noise",),
    ),
    Bug(
        "dropout does not keep the mean",
        "dropout.py",
        "return jnp.where(keep, xs / (1 - rate), jnp.zeros_like(xs))",
        "return jnp.where(keep, xs, jnp.zeros_like(xs))",
        ("test_dropout.py::test_mean_is_kept",),
    ),
    # --- optimizers ------------------------------------------------------------------------------
    Bug(
        "the second moment is corrected for one step too few",
        "optimizers/moments.py",
        "correction = 1 - beta2**step",
        "correction = 1 - beta2**state.step",
        ("optimizers/test_moments.py::test_first_steps_by_hand",),
    ),
    Bug(
        "the gradient and the look ahead are exchanged",
        "optimizers/moments.py",
        "n = ahead * m + direct * g",
        "n = direct * m + ahead * g",
        ("optimizers/test_golden.py::test_trajectory",),
    ),
    # --- training --------------------------------------------------------------------------------
    Bug(
        "the sum over devices is missing",
        "training/rows.py",
        "return jax.lax.psum(sums, axis_name), carry",
        "return sums, carry",
        ("devices/test_layouts_agree.py::WholeSteps",),
    ),
    Bug(
        "every device draws as the first does",
        "training/rows.py",
        'first = jax.lax.axis_index(axis_name) * check_rows("rows", rows)',
        'first = 0 * jax.lax.axis_index(axis_name) * check_rows("rows", rows)',
        ("devices/test_layouts_agree.py::WholeSteps",),
    ),
    Bug(
        "a step that is not finite is kept",
        "training/step.py",
        "jnp.where(report.finite, a, b), now[1:5], state[1:5]",
        "jnp.where(True, a, b), now[1:5], state[1:5]",
        ("training/test_step.py::test_a_step_that_is_not_finite_changes_nothing",),
    ),
    Bug(
        "the weights of a moving average are exchanged",
        "training/after.py",
        "lambda a, p: decay * a + (1 - decay) * p.astype(a.dtype),",
        "lambda a, p: (1 - decay) * a + decay * p.astype(a.dtype),",
        ("training/test_after.py::test_ema_is_an_average_of_the_parameters_so_far",),
    ),
    # --- decoding --------------------------------------------------------------------------------
    Bug(
        "a row goes on after its end",
        "decoding/rollout.py",
        "state.done | (active & ends) | (state.t + 1 >= state.limit),",
        "(active & ends) | (state.t + 1 >= state.limit),",
        ("decoding/test_rollout.py::test_the_result_does_not_depend_on_the_chunks",),
    ),
    Bug(
        "a limit of n gives n + 1 values",
        "decoding/rollout.py",
        "(state.t + 1 >= state.limit),",
        "(state.t >= state.limit),",
        ("decoding/test_rollout.py::test_the_result_does_not_depend_on_the_chunks",),
    ),
    Bug(
        "top-p keeps one token too few",
        "decoding/sampling.py",
        "best = jnp.where((before < p) | (p == 1), best, -jnp.inf)",
        "best = jnp.where((share < p) | (p == 1), best, -jnp.inf)",
        ("decoding/test_decoding.py::test_top_p_keeps_the_fewest_that_reach_p",),
    ),
)
