"""The devices of this process: how many there are, and what is kept compiled for them."""

import contextlib
import functools
import os
import platform
import re
import zlib
from collections.abc import Mapping

import jax
import jaxlib
from absl import logging

from hlr_jax.cache import COMPILED, cache_folder
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import compiled

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

    Raises:
      InputError: HLR_JAX_CACHE_MB, which bounds it, is no number.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    folder = cache_folder() / f"{COMPILED}{_processor()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return  # Nothing can be kept there; JAX would warn of every program.
    compiled.use_for(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _processor() -> str:
    """A name for processors that can run the same native code."""
    features = platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        features += next((line for line in file if line.startswith(("flags", "Features"))), "")
    return f"{zlib.crc32(features.encode()):08x}"


@functools.cache
def warn_of_slow_scatters() -> None:
    """Warn once where gradients are added up slowly: on CUDA by a jaxlib before 0.11.1.

    It is reported to lower float32 scatters to a loop of compare-and-swap (openxla/xla 46225).
    """
    release = re.findall(r"\d+", jaxlib.__version__)[:3]
    if jax.default_backend() == "gpu" and tuple(map(int, release)) < (0, 11, 1):
        logging.warning(
            "jaxlib %s adds up rows of embeddings slowly on this GPU; with Python 3.12 or later, "
            "install 0.11.1 or later: pip install -U 'jax[cuda13]'",
            jaxlib.__version__,
        )


def step_options() -> dict[str, str]:
    """Choose how XLA compiles the loop over steps: on a GPU as one command buffer.

    The GPU then goes through the loop by itself. Otherwise the host starts every step, and waits
    for the GPU to know whether there is another. XLA leaves loops out by default.
    """
    if jax.default_backend() != "gpu":
        return {}
    covered = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,DYNAMIC_SLICE_FUSION,WHILE"
    # XLA counts a loop as one command, whatever it holds.
    return {"xla_gpu_enable_command_buffer": covered, "xla_gpu_graph_min_graph_size": "1"}


def same_bits_options(is_asked: bool) -> dict[str, bool]:
    """Choose how XLA compiles what is to give the same bits each time: on a GPU without atomics.

    There, additions to the same row come in any order, and the fastest of several algorithms is
    looked for at each start. On a CPU neither is so, and nothing need be chosen.
    """
    is_needed = is_asked and jax.default_backend() == "gpu"
    return {"xla_gpu_deterministic_ops": True} if is_needed else {}


def free_bytes(stats: Mapping[str, int] | None) -> int | None:
    """Return what a device has left by its `memory_stats`, if it has such, as a CPU has not."""
    if stats is None or "bytes_limit" not in stats:
        return None
    return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))


def count() -> int:
    """Count the devices of this process."""
    return jax.local_device_count()


def count_for(model: Relation, table_bytes: int) -> int:
    """Choose how many of them a model trains on: all that pay.

    On a CPU devices share memory and caches. There, without histories to read or with large
    tables, it takes longer to sum gradients and update every device's tables than to compute.
    """
    if jax.default_backend() != "cpu":
        return count()
    return count() if model.uses_history and table_bytes <= MOST_TABLE_BYTES else 1
