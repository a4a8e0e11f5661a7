"""The training step: a pure function, exact over rows, devices, and parts of a batch."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqnets.checks import check_like, check_range, check_rows
from seqnets.dropout import as_key
from seqnets.reduction import Weighted
from seqnets.training.after import After
from seqnets.training.objective import LossFn, Objective, resolve_loss
from seqnets.training.rows import (
    OverRows,
    Shared,
    SumOverRows,
    Sums,
    over_axis,
    taken,
    whole,
)
from seqnets.training.state import Clock, StepInfo, TrainState
from seqnets.typing import Array, Bool, Float, Key, PyTree

__all__ = ["TrainStep", "make_train_step"]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainStep:
    """One optimization step, created by `make_train_step`.

    Compile it with `jax.jit`, map it with `jax.pmap` over the axis ``axis_name``, or pass it to
    `seqnets.training.train`.

    Attributes:
      objectives: objectives by name, in the order of their updates.
      after: rule that updates the variables, or None.
      axis_name: device axis mapped by a plain `jax.pmap`, or None.
      accumulate: number of parts into which the rows of each device are split.
      steps: nominal length of the run in steps, for the progress if no clock is given.
    """

    objectives: Mapping[str, Objective]
    after: After | None = None
    axis_name: str | None = None
    accumulate: int = 1
    steps: int | None = None

    def init(
        self, params: PyTree, key: Key, *, carry: PyTree = (), variables: PyTree = ()
    ) -> TrainState:
        """Create the state before the first step.

        Args:
          params: parameters.
          key: root key of the run's randomness, from `jax.random.key`; a raw key is wrapped.
          carry: recurrent state before the first batch, leaves [B, ...].
          variables: variables in addition to those that ``after`` creates; a dict if it creates
            any.

        Returns:
          The state, with step 0.

        Raises:
          TypeError: if the key is not a random key.
          ValueError: if the parameters lack a key that an objective trains, or two variables have
            the same name.
        """
        key = as_key("key", key)
        opt_state = {
            name: one.optimizer.init(one.trained(params)) for name, one in self.objectives.items()
        }
        if self.after is not None:
            made = self.after.init(params)
            for name in made:
                if name in variables:
                    raise ValueError(f"variables: {name!r} is already created by `after`")
            variables = {**dict(variables), **made} or ()
        return TrainState(jnp.zeros((), jnp.int32), params, opt_state, variables, carry, key)

    def __call__(
        self,
        state: TrainState,
        batch: PyTree,
        clock: Clock | None = None,
        *,
        over_rows: OverRows | None = None,
    ) -> tuple[TrainState, StepInfo]:
        """Take a step.

            g = Σ_devices Σ_parts ∂ total / ∂ θ  /  Σ_devices Σ_parts weight

        Totals and weights are summed over all rows separately and divided once, so this is the
        gradient of the mean over the global batch, however its masked elements are distributed.
        Several objectives are updated in order; each uses the parameters updated before it. If a
        loss, gradient, or new parameter is not finite, only the step number changes.

        Args:
          state: state before the step.
          batch: pytree of arrays [B, ...].
          clock: progress of the run; None for ``state.step / steps``, or 0 without ``steps``.
          over_rows: how to sum over rows, such as `over_axis`; None sums over ``axis_name`` if set.

        Returns:
          ``(state, info)``: the state after the step, and its sums over all devices.

        Raises:
          ValueError: when traced, if the leaves of batch and carry are not all [B, ...] with the
            same B, ``accumulate`` does not divide the rows, two metrics or a metric and an
            objective have the same name, or a carry or variable changes its structure, shape, or
            dtype.
        """
        rows = check_rows("batch", batch)
        check_rows("carry", state.carry, rows, "the batch")
        over_rows = over_rows or (over_axis(self.axis_name) if self.axis_name else whole)
        known = clock is not None or self.steps is not None
        clock = self._clock(state) if clock is None else clock
        now, report = state, _Report(OrderedDict(), {}, {}, OrderedDict(), jnp.asarray(True))
        for number, (name, objective) in enumerate(self.objectives.items()):
            shared = Shared(now.params, now.variables, now.key, now.step, clock.progress)
            function = SumOverRows(objective, number, self.accumulate)
            sums, carry = over_rows(function, shared, (now.carry, batch))
            now, report = _update(name, objective, now, sums, carry, clock, known, report)
        if self.after is not None:
            variables = self.after.update(now.variables, now.params, report.statistics, clock)
            check_like("after: variables", variables, state.variables)
            now = now._replace(variables=variables)
        new = jax.tree.map(lambda a, b: jnp.where(report.finite, a, b), now[1:5], state[1:5])
        _check_names(report)
        info = StepInfo(report.losses, report.metrics, report.norms, report.finite)
        params, opt_state, variables, carry = new
        step = state.step + 1
        return TrainState(step, params, opt_state, variables, carry, state.key), info

    def _clock(self, state: TrainState) -> Clock:
        done = jnp.float32(0) if self.steps is None else state.step / jnp.float32(self.steps)
        return Clock(jnp.minimum(done, 1.0), 0)


def make_train_step(
    objectives: LossFn | Objective | Mapping[str, Objective],
    optimizer: optax.GradientTransformation | None = None,
    *,
    axis_name: str | None = None,
    after: After | None = None,
    accumulate: int = 1,
    steps: int | None = None,
) -> TrainStep:
    """Make a training step, ``(state, batch) -> (state, info)``.

    Args:
      objectives: a loss function (see `LossFn`), with ``optimizer``; an `Objective`; or a dict of
        objectives by name, which are updated in order in each step.
      optimizer: Optax transformation, for a loss function only.
      axis_name: device axis, as passed to a plain `jax.pmap`.
      after: rule that updates the variables; see `seqnets.training.ema` and
        `seqnets.training.chain`.
      accumulate: number of equal parts into which the rows of each device are split. They are
        computed one after another to save memory; the result is the same, since sums are divided
        after the last part, and rows keep their carries and keys.
      steps: nominal length of the run in steps, which schedules span if no clock is given.

    Returns:
      The step; `TrainStep.init` creates its first state.

    Raises:
      ValueError: if a number is below 1, or there is no objective.
      TypeError: if the optimizer is missing or superfluous, or an objective is not an `Objective`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from seqnets import weighted
      >>> def loss_fn(params, batch):
      ...     return weighted((batch["x"] * params["w"] - batch["y"]) ** 2)
      >>> step = make_train_step(loss_fn, optax.sgd(0.5))
      >>> state = step.init({"w": jnp.zeros(())}, jax.random.key(0))
      >>> state, info = jax.jit(step)(state, {"x": jnp.ones(4), "y": jnp.ones(4)})
      >>> float(state.params["w"]), float(info.loss.mean())
      (1.0, 1.0)
    """
    check_range("accumulate", accumulate, 1)
    if steps is not None:
        check_range("steps", steps, 1)
    named = _named(objectives, optimizer)
    if after is not None and not isinstance(after, After):
        after = After(after)
    return TrainStep(named, after, axis_name, accumulate, steps)


def _named(objectives: Any, optimizer: Any) -> dict[str, Objective]:
    """The objectives by name; a single one is named ``"loss"``."""
    alone = not isinstance(objectives, Objective | Mapping)
    if alone and optimizer is None:
        raise TypeError("optimizer: expected an Optax transformation, got None")
    if not alone and optimizer is not None:
        raise TypeError("optimizer: expected None, since each objective has its own optimizer")
    if alone:
        objectives = Objective(objectives, optimizer)
    if isinstance(objectives, Objective):
        objectives = {"loss": objectives}
    if not objectives:
        raise ValueError("objectives: expected at least one, got none")
    for name, one in objectives.items():
        if not isinstance(one, Objective):
            raise TypeError(f"objectives[{name!r}]: expected an Objective, got {one!r}")
    return {
        name: dataclasses.replace(one, loss_fn=resolve_loss(one.loss_fn))
        for name, one in objectives.items()
    }


class _Report(NamedTuple):
    """Sums of the objectives of a step so far."""

    losses: dict[str, Weighted]
    metrics: dict[str, Weighted]
    statistics: dict[str, Any]
    norms: dict[str, Float[Array, ""]]
    finite: Bool[Array, ""]


def _update(
    name: str,
    objective: Objective,
    state: TrainState,
    sums: Sums,
    carry: PyTree,
    clock: Clock,
    known: bool,
    report: _Report,
) -> tuple[TrainState, _Report]:
    """Update the parameters of one objective, identically on every device."""
    loss, before = sums.loss, objective.trained(state.params)
    scale = 1 / jnp.where(loss.weight > 0, loss.weight, 1)
    grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), sums.grads)
    norm = optax.tree.norm(grads)
    grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, before)
    updates, opt_state = objective.updates(
        grads,
        state.opt_state[name],
        before,
        progress=clock.progress,
        progress_known=known,
        value=loss.mean(),
        stale=clock.stale,
    )
    after = optax.apply_updates(before, updates)
    if objective.when is not None:
        moved = taken(objective, state.step, clock.progress)
        after, opt_state = jax.tree.map(
            lambda new, old: jnp.where(moved, new, old),
            (after, opt_state),
            (before, state.opt_state[name]),
        )
    finite = report.finite & jnp.isfinite(loss.mean()) & jnp.isfinite(norm) & _all_finite(after)
    state = state._replace(
        params=objective.merged(after, state.params),
        opt_state={**state.opt_state, name: opt_state},
        carry=carry,
    )
    return state, _Report(
        OrderedDict(report.losses, **{name: loss}),
        _joined("metric", report.metrics, sums.metrics),
        _joined("statistic", report.statistics, sums.statistics),
        OrderedDict(report.norms, **{name: norm}),
        finite,
    )


def _check_names(report: _Report) -> None:
    """Reject a metric that would overwrite a loss in the records."""
    for name in report.metrics:
        if name in report.losses:
            raise ValueError(f"loss_fn: the metric {name!r} has the name of an objective")


def _all_finite(params: PyTree) -> Bool[Array, ""]:
    leaves = [p for p in jax.tree.leaves(params) if jnp.issubdtype(p.dtype, jnp.inexact)]
    checks = [jnp.all(jnp.isfinite(leaf)) for leaf in leaves]
    return jnp.all(jnp.stack(checks)) if checks else jnp.asarray(True)


def _joined(kind: str, before: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    for name in new:
        if name in before:
            raise ValueError(f"loss_fn: two objectives have a {kind} named {name!r}")
    return {**before, **new}
