"""CPU cores as JAX devices."""

from __future__ import annotations

import os

import jax

__all__ = ["host_device", "usable_cores", "use_all_cores"]


def use_all_cores() -> None:
    """Make JAX use one CPU device for each core that this process may use.

    Threads inside the small products of a recurrent loop do not scale, but devices do. This does
    nothing if ``JAX_NUM_CPU_DEVICES`` or ``XLA_FLAGS`` already set the number of devices.

    Raises:
      RuntimeError: if JAX is already in use, so that its number of devices is fixed.
    """
    chosen = "JAX_NUM_CPU_DEVICES" in os.environ
    chosen |= "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen:
        jax.config.update("jax_num_cpu_devices", usable_cores())


def host_device() -> jax.Device | None:
    """Return the first CPU device, or None (the default device) if JAX has no CPU backend."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def usable_cores() -> int:
    """Return the number of cores this process may use, or of all cores if that is unknown."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
