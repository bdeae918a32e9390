"""Measure in a process of its own, whose memory and start-up time are those of the measured.

`run` runs a module to its end. `Remote` keeps a process with an object, whose methods are called
with a deadline: whatever hangs there, it is stopped.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.output import ROOT


def run(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run a module of this package, and return the JSON that it prints.

    Args:
      environment: all variables; None for those of this process.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ if environment is None else environment
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


class FailedError(RuntimeError):
    """What the process was asked for raised an error, or the process is gone."""


class TooLateError(RuntimeError):
    """What the process was asked for was not done in time; the process has been stopped."""


def _ignore(message: object) -> None:
    """Do nothing with what a process says."""


class Remote:
    """An object in a process of its own; ends with this process, or when it is closed.

    Args:
      build: makes the object; a function of a module, with arguments that can be pickled.
    """

    def __init__(self, build: Callable[[], Any]) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        # A group of its own, so that whatever it has started can be stopped with it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.own_process", str(theirs.fileno())],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            process_group=0,
        )
        theirs.close()
        self._connection.send(build)
        self._is_built = False
        self._stop: float | None = None

    def allow(self, seconds: float) -> None:
        """Let what is called from now on take so long, all together; at first it may for ever."""
        self._stop = time.perf_counter() + seconds

    def wait(self) -> None:
        """Wait until the object is made; raises as `call`."""
        if not self._is_built:
            self._answer(_ignore)
            self._is_built = True

    def call(
        self, method: str, *arguments: Any, on_message: Callable[[Any], None] = _ignore
    ) -> Any:
        """Call a method of the object, and return its result.

        Args:
          on_message: takes what the method says by `say`.

        Raises:
          FailedError: the method raised, or the process ended.
          TooLateError: it took longer than allowed; the process is gone.
        """
        self.wait()
        try:
            self._connection.send((method, arguments))
        except OSError as error:
            raise FailedError(f"the process ended: {error}") from error
        return self._answer(on_message)

    def _answer(self, on_message: Callable[[Any], None]) -> Any:
        while self._connection.poll(self._left()):
            try:
                kind, content = self._connection.recv()
            except EOFError:
                raise FailedError(f"the process ended with {self._process.wait()}") from None
            if kind == "done":
                return content
            if kind == "failed":
                raise FailedError(content)
            on_message(content)
        self.close()
        raise TooLateError("not done in time")

    def _left(self) -> float | None:
        return None if self._stop is None else max(self._stop - time.perf_counter(), 0.0)

    def close(self) -> None:
        """Stop the process, and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()
        if self._process.stdin:
            self._process.stdin.close()


class Local:
    """The same within this process, for a try: nothing is stopped."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._object = build()

    def allow(self, seconds: float) -> None:
        """Do nothing."""

    def wait(self) -> None:
        """Do nothing: the object is there."""

    def call(
        self, method: str, *arguments: Any, on_message: Callable[[Any], None] = _ignore
    ) -> Any:
        """Call a method of the object, and return its result; see `Remote.call`."""
        global _listener
        previous, _listener = _listener, on_message
        try:
            return getattr(self._object, method)(*arguments)
        except Exception as error:
            raise FailedError(_described(error)) from error
        finally:
            _listener = previous

    def close(self) -> None:
        """Do nothing."""


_listener: Callable[[Any], None] = _ignore


def say(message: object) -> None:
    """Within a method that is called from another process: send something before the result."""
    _listener(message)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _serve(connection: Connection) -> None:
    """Make the object, then answer calls until the caller is gone."""
    target: Any = None
    while True:
        try:
            wanted = connection.recv()
        except EOFError:
            return
        try:
            if target is None:
                target, result = wanted(), None
            else:
                method, arguments = wanted
                result = getattr(target, method)(*arguments)
            connection.send(("done", result))
        except Exception as error:
            connection.send(("failed", _described(error)))


def _end_with_caller() -> None:
    """Wait for the caller to close our input, as its end does, and stop this process's group."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Serve the process that has started this one."""
    global _listener
    threading.Thread(target=_end_with_caller, daemon=True).start()
    connection = Connection(int(sys.argv[1]))
    _listener = lambda message: connection.send(("said", message))  # noqa: E731
    _serve(connection)


if __name__ == "__main__":
    from benchmarks import own_process  # This module runs under another name here.

    own_process.main()
