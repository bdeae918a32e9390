"""Write what a run saves in the background, while the devices train on."""

import concurrent.futures
import contextlib
import threading
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax

from hlr_jax.parallel import processes
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.training.state import TrainState, copied
from hlr_jax.training.store import Progress, Store
from hlr_jax.types import Params


class _Saved(NamedTuple):
    """What a store is to save."""

    state: TrainState
    progress: Progress


class _Pair(NamedTuple):
    """What is written together: the best parameters first, then a state that counts on them."""

    best: _Saved | None = None
    latest: _Saved | None = None

    def on_host(self) -> "_Pair":
        return _Pair(*(x and x._replace(state=jax.device_get(x.state)) for x in self))


class BackgroundStore:
    """Writes to another store in a thread of its own, the newest state alone.

    What is saved is copied on the devices, which train on: the price is their memory for one more
    state and twice its parameters, until the thread has taken them to the host. Where training is
    faster than writing, a state that has not been begun gives way to a newer one; the best
    parameters do only where there are better ones. So whenever the process dies, the stored state
    is one of the run, and the best parameters that it counts on are stored. What no state follows
    is not written: nothing would count on it.

    An error of the thread is raised by the next call, and nothing is written after it. As a context
    manager it waits for the last write, however the training ends.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._best: _Saved | None = None  # Written with the next state.
        self._waiting = _Pair()
        self._lock = threading.Lock()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._written: Future[None] = Future()
        self._written.set_result(None)

    def __enter__(self) -> "BackgroundStore":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.finish()
        finally:
            # Who interrupts the wait does not wait for what has not been begun.
            self._thread.shutdown(wait=False, cancel_futures=True)

    def save(self, state: TrainState, progress: Progress) -> None:
        """Save a copy of the state, soon, unless a newer one comes before."""
        self._check()
        self._drop_waiting_state()
        self._write_soon(_Saved(copied(state), progress))

    def save_best(self, state: TrainState, progress: Progress) -> None:
        """Save a copy of the state's parameters, before the next state."""
        self._check()
        self._best = None
        self._best = _Saved(copied(state.replace(opt_state=())), progress)

    def restore(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """Restore the latest state, once it is written."""
        self.finish()
        return self._store.restore(like)

    def restore_best(self, like: Params) -> Params:
        """Restore the best epoch's parameters, once they are written."""
        self.finish()
        return self._store.restore_best(like)

    def finish(self) -> None:
        """Wait until everything is written."""
        self._written.result()

    def _check(self) -> None:
        """Raise the error that the thread has met."""
        if self._written.done():
            self._written.result()

    def _drop_waiting_state(self) -> None:
        """Give its memory to the one that follows."""
        with self._lock:
            self._waiting = self._waiting._replace(latest=None)

    def _write_soon(self, latest: _Saved) -> None:
        with self._lock:
            self._waiting = _Pair(self._best or self._waiting.best, latest)
        self._best = None
        self._written = self._thread.submit(self._write, self._written)

    def _write(self, before: Future[None]) -> None:
        """Write what waits, if what was to be written before it is."""
        before.result()
        best, latest = self._taken()
        if best:
            self._store.save_best(*best)
        if latest:
            self._store.save(*latest)

    def _taken(self) -> _Pair:
        """Take what waits to the host; its memory on the devices is free again."""
        with self._lock:
            pair, self._waiting = self._waiting, _Pair()
        return pair.on_host()


def while_training(checkpoints: Checkpoints) -> AbstractContextManager[Store]:
    """Choose how a run saves: in the background, but several processes in step with each other.

    All of them must write the same checkpoints, and what is skipped depends on their clocks.
    """
    if processes.count() > 1:
        return contextlib.nullcontext(checkpoints)
    return BackgroundStore(checkpoints)
