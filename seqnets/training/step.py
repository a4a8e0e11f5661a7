"""The training step: a value with a pure function, exact over rows, devices, and parts."""

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
    """One optimization step. Make it with `make_train_step`.

    Compile it with `jax.jit`, map it with `jax.pmap` over the axis ``axis_name``, or give it to
    `seqnets.training.train`, which lets a layout compile it.

    Attributes:
      objectives: by name, in the order of their updates.
      after: rule for the variables, or None.
      axis_name: mapped device axis of a plain `jax.pmap`, or None.
      accumulate: parts into which the rows of each device are cut.
      steps: nominal length of the run, for progress where no clock is given.
    """

    objectives: Mapping[str, Objective]
    after: After | None = None
    axis_name: str | None = None
    accumulate: int = 1
    steps: int | None = None

    def init(
        self, params: PyTree, key: Key, *, carry: PyTree = (), variables: PyTree = ()
    ) -> TrainState:
        """State before the first step.

        Args:
          params: parameters.
          key: root of the run's randomness, from `jax.random.key`; a raw key is wrapped.
          carry: recurrent state before the first batch, leaves [B, ...].
          variables: variables beside those that ``after`` makes; a dict where it makes any.

        Raises:
          TypeError: if the key is not a random key.
          ValueError: if the parameters lack a key that an objective trains, or two variables have
            one name.
        """
        key = as_key("key", key)
        opt_state = {
            name: one.optimizer.init(one.trained(params)) for name, one in self.objectives.items()
        }
        if self.after is not None:
            made = self.after.init(params)
            for name in made:
                if name in variables:
                    raise ValueError(f"variables: {name!r} is made by the rule after the step")
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

        Sums and weights are added over all rows apart and divided once, so that the gradient is
        that of the mean over the global batch, however its real elements are spread. The updates
        of several objectives follow one another, and later ones see earlier ones. A step with a
        loss, gradient, or new parameter that is not finite changes nothing but its number.

        Args:
          state: state before the step.
          batch: pytree of arrays [B, ...].
          clock: how far the run is; None takes ``state.step / steps``, or 0 without ``steps``.
          over_rows: see `OverRows`; None reduces over ``axis_name`` where there is one.

        Raises:
          ValueError: when traced, if the leaves of batch and carry are not all [B, ...] for one
            B, ``accumulate`` does not divide the rows, a metric has the name of another or of an
            objective, or a new carry or variable is not like the old one.
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
      objectives: a loss function (see `LossFn`), which needs ``optimizer``; an `Objective`; or a
        dict of them by name, whose updates follow one another in each step.
      optimizer: Optax transformation of a lone loss function.
      axis_name: the mapped device axis, as given to a plain `jax.pmap`.
      after: rule for the variables; see `seqnets.training.ema` and `seqnets.training.chain`.
      accumulate: number of equal parts into which the rows of one device are cut, to be computed
        one after the other in a fraction of the memory. The result is that of one part: the
        division comes after the last, and a row keeps its carry and its key.
      steps: nominal length of the run, over which schedules run where no clock is given.

    Raises:
      ValueError: if a number is below 1, or there is no objective.
      TypeError: if an optimizer is missing or superfluous, or an objective is not one.

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
    """The objectives by name; a lone one is called ``"loss"``."""
    alone = not isinstance(objectives, Objective | Mapping)
    if alone and optimizer is None:
        raise TypeError("optimizer: expected an Optax transformation, got None")
    if not alone and optimizer is not None:
        raise TypeError("optimizer: expected None beside objectives, which have their own")
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
    """What the objectives of a step have said so far."""

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
    """Move the parameters of one objective, the same on every device."""
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
    """Reject a metric that would hide a loss in the records."""
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
            raise ValueError(f"loss_fn: two objectives have a {kind} {name!r}; name them apart")
    return {**before, **new}
