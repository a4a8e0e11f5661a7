"""The CPU as devices: one for each core."""

from __future__ import annotations

import os

import jax

__all__ = ["host_device", "usable_cores", "use_all_cores"]


def use_all_cores() -> None:
    """Give JAX one CPU device for each core this process may use.

    Threads inside the small products of a recurrent loop do not scale, devices do. Changes
    nothing where the number was chosen already, by ``JAX_NUM_CPU_DEVICES`` or in ``XLA_FLAGS``.

    Raises:
      RuntimeError: if JAX is already in use, and the number of its devices fixed.
    """
    chosen = "JAX_NUM_CPU_DEVICES" in os.environ
    chosen |= "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen:
        jax.config.update("jax_num_cpu_devices", usable_cores())


def host_device() -> jax.Device | None:
    """The CPU; None, which stands for the default device, where JAX was told not to use it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def usable_cores() -> int:
    """Cores this process may use, where the system tells; otherwise all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
