"""Several processes of one run: how they find each other, agree, and share what they found.

Every process runs the same program on devices of its own. With a single process all of this
does nothing.
"""

import atexit
import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed  # Its client has no public name.
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils

from hlr_jax.errors import InputError

# Seconds between signs of life, and without one until a process counts as dead.
BEAT_SECONDS = 1.0
SILENT_SECONDS = 20.0
# The same for JAX's own heartbeat, which ends a process between half and all of them after a
# hang: later than ours, which says which process it was.
JAX_SILENT_SECONDS = 45
# Seconds that processes wait for each other at the start.
START_SECONDS = 300
# How a run ends that another process has left.
LEFT_CODE = 3
LEFT = (
    "{} of the run has stopped (its own output says why); start all processes again with the same "
    "command, in any number: the run goes on from the last checkpoint"
)


def connect(coordinator_address: str, num_processes: int, process_id: int) -> None:
    """Join the other processes of a run; call it before JAX is used.

    Args:
      coordinator_address: host:port of process 0, the same for all; "auto" where SLURM, Open MPI
        or a TPU pod knows everything.
      num_processes: of the run.
      process_id: of this process, from 0.

    Raises:
      InputError: the numbers do not fit, or the others cannot be reached.
    """
    chosen: dict[str, Any] = {}
    if coordinator_address != "auto":
        if not 0 <= process_id < num_processes:
            raise InputError(
                f"--process_id={process_id}: use 0 to {num_processes - 1}, a number of its own for "
                f"each of --num_processes={num_processes}"
            )
        host, _, port = coordinator_address.rpartition(":")
        if not host or not port.isdigit():
            raise InputError(
                f"--coordinator_address={coordinator_address}: write host:port of process 0, as in "
                "10.0.0.1:1234, or auto"
            )
        chosen = {
            "coordinator_address": coordinator_address,
            "num_processes": num_processes,
            "process_id": process_id,
        }
    try:
        jax.distributed.initialize(
            **chosen,
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=JAX_SILENT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"--coordinator_address={coordinator_address}: the processes did not find each other "
            f"({error}); start all of them, with the same address and number"
        ) from None
    if count() > 1:
        _watch_the_others()


def _watch_the_others() -> None:
    """End this process soon after another one died or hangs; a collective would wait for ever.

    JAX's own heartbeat does so too, but aborts (exit code 134, a page of stacks, no way to catch
    it). Seconds until the other of two processes on CPU ended, and its exit code, measured:

                          this one        JAX's alone, at 20 s
        process 1 killed  0.1, code 3     0.1, code 3 (its connection broke)
        process 1 hangs   20, code 3      11 to 17, code 134
        process 0 killed  0.1, code 134   0.1, code 134
        process 0 hangs   36, code 134    12, code 134

    Process 0 has JAX's coordination service, without which nothing can be asked.
    """
    client: Any = distributed.global_state.client
    own = str(index())
    is_over = threading.Event()

    def give_sign(sign: str) -> None:
        client.key_value_set(f"hlr_jax/alive/{own}", sign, allow_overwrite=True)

    def watch() -> None:
        last: dict[str, tuple[str, float]] = {}
        for beat in itertools.count():
            try:
                give_sign(str(beat))
                signs = dict(client.key_value_dir_get("hlr_jax/alive/"))
            except JaxRuntimeError:
                if not is_over.is_set():
                    leave(LEFT.format("process 0"))
                return
            now = time.monotonic()
            for name, sign in signs.items():
                if last.get(name, ("", 0.0))[0] != sign:
                    last[name] = (sign, now)
                elif sign != "done" and now - last[name][1] > SILENT_SECONDS:
                    leave(LEFT.format(f"process {name.rpartition('/')[2]}"))
            if is_over.wait(BEAT_SECONDS):
                return

    def finish() -> None:
        is_over.set()
        with contextlib.suppress(JaxRuntimeError):
            give_sign("done")

    threading.Thread(target=watch, name="watch", daemon=True).start()
    atexit.register(finish)


def leave(message: str, code: int = LEFT_CODE) -> NoReturn:
    """Say why, and end at once: an orderly end would wait for the others, which wait for this."""
    # On a line of its own, in one piece: another thread may be in the middle of a traceback.
    sys.stderr.write(f"\nerror: {' '.join(message.split())}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def are_joined() -> bool:
    """Tell whether this process has joined others."""
    return jax.distributed.is_initialized()


def count() -> int:
    """Count the processes of the run."""
    return jax.process_count()


def index() -> int:
    """Return the number of this one."""
    return jax.process_index()


def is_first() -> bool:
    """Tell whether this is the process that writes metrics and prints."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Return when every process has come here."""
    if count() > 1:
        multihost_utils.sync_global_devices(name)


def largest(*values: float | int | bool) -> list[float]:
    """Find the largest of each value that any process has."""
    if count() == 1:
        return [float(value) for value in values]
    # Sizes must not be rounded to float32.
    kind = np.int32 if all(isinstance(value, int) for value in values) else np.float32
    of_all = multihost_utils.process_allgather(np.array(values, kind))
    return [float(value) for value in of_all.max(axis=0)]


def joined(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Join the arrays of all processes, one after another; only their lengths may differ."""
    if count() == 1:
        return dict(arrays)
    lengths = {name: len(array) for name, array in arrays.items()}
    lengths = multihost_utils.process_allgather({n: np.array(x) for n, x in lengths.items()})
    padded = {}
    for name, array in arrays.items():
        missing = int(lengths[name].max()) - len(array)
        padded[name] = np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
    gathered = multihost_utils.process_allgather(padded)
    return {
        name: np.concatenate([x[:n] for x, n in zip(gathered[name], lengths[name], strict=True)])
        for name in arrays
    }
