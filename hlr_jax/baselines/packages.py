"""Use the packages that baselines come from, and raise their errors as ours."""

import contextlib
import warnings
from collections.abc import Iterator

from hlr_jax.errors import DivergedError, InputError


@contextlib.contextmanager
def implicit_package() -> Iterator[None]:
    """Use `implicit` with a single-threaded BLAS, and raise its errors as ours.

    It has threads of its own, and warns of a BLAS with threads, which would slow both down.
    """
    try:
        import threadpoolctl
        from implicit.recommender_base import ModelFitError
    except ImportError:
        raise InputError(
            "the package implicit is not installed; pip install 'hlr_jax[baselines]'"
        ) from None
    with threadpoolctl.threadpool_limits(1, "blas"):
        try:
            yield
        except ModelFitError as error:
            raise DivergedError(f"implicit: {error}") from None


@contextlib.contextmanager
def irspack_package() -> Iterator[None]:
    """Use `irspack`, and raise its errors as ours."""
    try:
        with warnings.catch_warnings():
            # Its settings are classes of a kind that pydantic deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            import irspack  # noqa: F401
    except ImportError:
        raise InputError(
            "the package irspack is not installed; pip install 'hlr_jax[baselines]'"
        ) from None
    try:
        yield
    except RuntimeError as error:
        raise DivergedError(f"irspack: {error}") from None
