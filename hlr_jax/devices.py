"""The same program on one device or on several: tables on each, a part of the batch on each.

A program is compiled by `pmap` over the axis `AXIS`. What all devices share goes in and comes out
once (in_axes and out_axes None), so that arrays keep the shapes they have on one device.
"""

import contextlib
import os
import platform
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxtyping import Array, Int

from hlr_jax.data.locate import cache_folder
from hlr_jax.models.base import Params, Relation

AXIS = "devices"

# On a CPU: the most devices, and the largest tables that are worth having on each.
MOST_CORES = 8
MOST_TABLE_BYTES = 2**24


def use_all_cores() -> None:
    """Let JAX see a CPU as one device per core, at most `MOST_CORES`; call it before using JAX.

    XLA runs most of a compiled loop on one core of a device. A number of devices that is set
    already stays, and so does everything once JAX has looked for its devices.
    """
    # Only the cores this process may use, where the system tells.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    is_set = getattr(jax.config, "jax_num_cpu_devices", -1) > 0
    if not is_set and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", min(cores or 1, MOST_CORES))


def keep_compiled_programs() -> None:
    """Keep compiled programs in the cache folder, so that the next process need not compile them.

    Where they are kept already, or `JAX_ENABLE_COMPILATION_CACHE=0` forbids it, nothing changes.
    They are native code: the folder is the user's alone, and of processors of one kind.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    folder = cache_folder() / f"compiled-{_processor()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return  # Nothing can be kept there; JAX would warn of every program.
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _processor() -> str:
    """A name for processors that can run the same native code."""
    features = platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        features += next((line for line in file if line.startswith(("flags", "Features"))), "")
    return f"{zlib.crc32(features.encode()):08x}"


def count() -> int:
    """How many devices this process has."""
    return jax.local_device_count()


def count_for(model: Relation, params: Params) -> int:
    """How many of them a model trains on: all that pay.

    On a CPU devices share memory and caches. There, without histories to read or with large
    tables, it takes longer to sum gradients and update every device's tables than to compute.
    """
    if jax.default_backend() != "cpu":
        return count()
    tables = params["user"].nbytes + params["item"].nbytes
    return count() if model.uses_history and tables <= MOST_TABLE_BYTES else 1


def split(batches: Int[np.ndarray | Array, "steps b"], parts: int) -> Int[Array, "parts steps c"]:
    """Batches of rows, cut between devices in order; -1 fills the last parts up."""
    padding = -batches.shape[1] % parts
    batches = jnp.pad(batches, ((0, 0), (0, padding)), constant_values=-1)
    cut = jnp.moveaxis(batches.reshape(len(batches), parts, -1), 1, 0)
    return jax.device_put(cut, _sharding(parts, AXIS))


def spread(x: np.ndarray | Array, parts: int) -> Array:
    """`[n, ...]` as `[parts, n / parts, ...]`, a part on each of the first devices."""
    cut = x.reshape(parts, len(x) // parts, *x.shape[1:])
    return jax.device_put(cut, _sharding(parts, AXIS))


def replicate(tree: Any, parts: int) -> Any:
    """The same arrays on each of the first `parts` devices."""
    return jax.device_put(tree, _sharding(parts))


def on_one(tree: Any) -> Any:
    """One copy of replicated arrays."""
    return jax.device_put(tree, jax.local_devices()[0])


def shapes_on_one(tree: Any) -> Any:
    """Shapes and types of these arrays, as if they were on one device."""
    sharding = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(lambda: tree),
    )


def _sharding(parts: int, *axes: str) -> NamedSharding:
    return NamedSharding(Mesh(jax.local_devices()[:parts], (AXIS,)), PartitionSpec(*axes))
