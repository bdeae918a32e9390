"""Errors of Orbax and TensorStore in one line, and what else they would leave behind."""

import contextlib
import logging as python_logging
import os
import pathlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorstore
from absl import logging
from jax.errors import JaxRuntimeError

from hlr_jax.errors import InputError
from hlr_jax.parallel import processes

_OS_ERROR = re.compile(r"os_error_code='(\d+)'")


@contextlib.contextmanager
def saving(folder: pathlib.Path, tidy: Callable[[], None]) -> Iterator[None]:
    """Turn what the system refuses while a checkpoint is written into one line.

    Args:
      tidy: deletes what was not finished, as far as the system allows.

    Raises:
      InputError: there is no room, or nothing may be written.
    """
    try:
        with _quiet():
            yield
    except Exception as error:
        reason = _system_reason(error)
        if isinstance(error, InputError) or not reason:
            raise
        with contextlib.suppress(OSError):
            tidy()
        raise InputError(
            f"{folder}: a checkpoint cannot be saved ({reason}); those before it are kept: correct "
            "that, as by making room, and the same command goes on"
        ) from None


@contextlib.contextmanager
def reading(folder: pathlib.Path) -> Iterator[None]:
    """Turn whatever goes wrong while a whole checkpoint is read into one line.

    Raises:
      InputError: something did.
    """
    try:
        with _quiet():
            yield
    except InputError:
        raise
    except Exception as error:
        if processes.are_joined() and isinstance(error, JaxRuntimeError):
            raise  # Another process has left, which has nothing to do with the files.
        # Orbax and TensorStore have errors of all kinds.
        reason = _system_reason(error) or type(error).__name__
        raise InputError(
            f"{folder}: the checkpoint cannot be read ({reason}), though it was whole a moment "
            "ago; correct that, and start again"
        ) from error


def _system_reason(error: BaseException | None) -> str:
    """Find what the system said; TensorStore has it in the middle of a long text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return os.strerror(error.errno)
        if found := _OS_ERROR.search(str(error)):
            return os.strerror(int(found[1]))
        error = error.__cause__ or error.__context__
    return ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let threads of Orbax die without tracebacks, and keep TensorStore from leaking.

    What a thread dies of is raised where it is waited for: it need not be logged, and printed, too.
    TensorStore (0.1.86) never frees what it returns of its metrics, 8 kB a call, and Orbax asks
    three times for each checkpoint, to log a throughput that nobody sees here.
    """
    of_threads, of_callbacks = threading.excepthook, sys.unraisablehook

    def told(arguments: threading.ExceptHookArgs) -> None:
        if not type(arguments.thread).__module__.startswith("orbax"):
            of_threads(arguments)

    def ignored(arguments: Any) -> None:
        # What other writes of a thread that has died tell nobody.
        if str(arguments.exc_value) != "Event loop is closed":
            of_callbacks(arguments)

    with (
        _filtered(logging.get_absl_logger()),
        _replaced(threading, "excepthook", told),
        _replaced(tensorstore, "experimental_collect_matching_metrics", _no_metrics),
    ):
        sys.unraisablehook = ignored
        yield
        # Not after an error: it is then that callbacks come, and late.
        sys.unraisablehook = of_callbacks


@contextlib.contextmanager
def _filtered(logger: python_logging.Logger) -> Iterator[None]:
    logger.addFilter(_is_worth_telling)
    try:
        yield
    finally:
        logger.removeFilter(_is_worth_telling)


def _is_worth_telling(record: python_logging.LogRecord) -> bool:
    """Tell whether a record is anything but an error that a thread of Orbax dies of."""
    return not (record.exc_info and "orbax" in pathlib.Path(record.pathname).parts)


def _no_metrics(*arguments: Any, **options: Any) -> list[Any]:
    return []


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Give a module another function for a while, if it has one of that name."""
    before = getattr(module, name, None)
    if before is None:
        yield
        return
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
