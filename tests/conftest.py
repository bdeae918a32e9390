"""Stricter than production: shapes and dtypes are checked while the tests run.

- JAX sees 8 virtual CPU devices (where the tests run on CPU), so that what is sharded is
  tested as such.
- Dtypes do not promote implicitly and ranks do not broadcast implicitly.
- Every annotation of `hlr_jax` is checked at run time, shapes included.
- Warnings are errors (setup.cfg).
"""

import ctypes
import itertools
import os
import pkgutil
from pathlib import Path

from support import xla_flags

# Programs are compiled for one test or two: quickly is better than well. Also in processes that
# tests start.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Read when JAX starts its backend, so before anything below is imported.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        *xla_flags.known(),
    ]
).strip()

import hypothesis
import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Before the first import of hlr_jax, or it has no effect. The configuration checks its types
# itself, with errors meant for people.
_PACKAGE = Path(__file__).parents[1] / "hlr_jax"
jaxtyping.install_import_hook(
    [f"hlr_jax.{m.name}" for m in pkgutil.iter_modules([str(_PACKAGE)]) if m.name != "config"],
    "beartype.beartype",
)

hypothesis.settings.register_profile("hlr_jax", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("hlr_jax")


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs between runs, and share them between workers."""
    if getattr(config, "cache", None) is not None:
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


# Linux ends a process with more than 65,530 areas of memory (vm.max_map_count), and each compiled
# program holds some 14. A worker compiles thousands.
_MANY_AREAS = 20_000
_TESTS_BETWEEN_LOOKS = 25
_AREAS = Path("/proc/self/maps")
_turn = itertools.count(1)


def pytest_runtest_teardown() -> None:
    """Drop compiled programs before they are too many, and give back what compiling left free."""
    if next(_turn) % _TESTS_BETWEEN_LOOKS or not _AREAS.exists():
        return
    if _AREAS.read_bytes().count(b"\n") > _MANY_AREAS:
        jax.clear_caches()
    # glibc keeps three quarters of what a worker has by then.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets, `HLR_JAX_DATA`."""
    if not os.environ.get("HLR_JAX_DATA"):
        pytest.skip("needs real data: set HLR_JAX_DATA to the folder of data sets")
    return Path(os.environ["HLR_JAX_DATA"])


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """The folder of the reference code's outputs, `HLR_JAX_GOLDEN` or beside the data."""
    folder = os.environ.get("HLR_JAX_GOLDEN")
    if not folder and os.environ.get("HLR_JAX_DATA"):
        folder = os.path.join(os.environ["HLR_JAX_DATA"], os.pardir, "reference", "golden")
    if not folder or not os.path.isdir(folder):
        pytest.skip("needs the reference outputs: set HLR_JAX_GOLDEN to their folder")
    return Path(folder)
