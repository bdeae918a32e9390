"""Faults in the process of a program, at a chosen one of its writes.

Python tells an audit hook of every file it is about to open, rename, make or remove, in all threads
and in the libraries too. Those below one folder that change something are the write points of a
run, numbered from 1. Nothing of the library is touched. What C++ writes between two of them is met
by killing a moment after a point.
"""

import contextlib
import errno
import os
import pathlib
import resource
import signal
import sys
import threading
import time
from typing import Any, NamedTuple

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Events about a path or two, with the places of their paths and of the folders these are in.
_CHANGES = {
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.truncate": ((0, None),),
    "os.rename": ((1, 3), (0, 2)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
}
# What a full disk still allows.
_FREES = ("os.remove", "os.rmdir", "os.rename", "os.truncate")


class Fault(NamedTuple):
    """What happens to a process.

    Attributes:
      kind: none, only count; kill, by SIGKILL; clock, which goes back by an hour; slow, every
        write takes so long; file_size, no file may have more bytes than `at`; else the name of a
        signal, or of an error of the disk, as ENOSPC, which stays until the process ends.
      below: the folder whose writes are counted.
      at: the number of the write point, from 1.
      seconds: how long after the point; for `slow`, how long a write takes.
    """

    kind: str
    below: str
    at: int = 0
    seconds: float = 0.0


class _Injector:
    """Counts write points, and lets the fault happen.

    Args:
      report: a descriptor that receives a line for each point, or for the one that was met.
    """

    def __init__(self, fault: Fault, report: int) -> None:
        self.fault = fault
        self.report = report
        self.count = 0
        self.lock = threading.Lock()
        self.clock = time.time, time.time_ns

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" and event not in _CHANGES:
            return
        point = self._point(event, arguments)
        if point is None:
            return
        with self.lock:
            self.count += 1
            number = self.count
        self._meet(number, event, point)

    def _point(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        """The path that is about to change, if it is below the folder."""
        if event == "open":
            path, _, flags = arguments
            found = [(path, None)] if flags & _WRITES else []
        else:
            places = _CHANGES[event]
            found = [(arguments[p], arguments[d] if d is not None else None) for p, d in places]
        for path, folder in found:
            if not isinstance(path, int) and (name := self._below(path, folder)):
                return name
        return None

    def _below(self, path: Any, folder: int | None) -> str | None:
        name = os.fsdecode(path)
        if not os.path.isabs(name):
            with contextlib.suppress(OSError):
                where = os.getcwd()
                if folder is not None and folder >= 0:
                    where = os.readlink(f"/proc/self/fd/{folder}")
                name = os.path.join(where, name)
        inside = name == self.fault.below or name.startswith(self.fault.below + os.sep)
        return os.path.relpath(name, self.fault.below) if inside else None

    def _meet(self, number: int, event: str, point: str) -> None:
        kind, _, at, seconds = self.fault
        if kind == "none" or number == at:
            os.write(self.report, f"{event} {point}\n".encode())
        if kind == "slow":
            time.sleep(seconds)
        elif hasattr(errno, kind):
            if number >= at and not (kind in ("ENOSPC", "EDQUOT") and event in _FREES):
                code = getattr(errno, kind)
                raise OSError(code, os.strerror(code), os.path.join(self.fault.below, point))
        elif number == at and kind == "clock":
            real, real_ns = self.clock
            time.time, time.time_ns = lambda: real() - 3600, lambda: real_ns() - 3600 * 10**9
        elif number == at and kind != "none":
            self._strike()

    def _strike(self) -> None:
        kind, _, _, seconds = self.fault
        number = signal.SIGKILL if kind == "kill" else signal.Signals[kind]
        if not seconds:
            os.kill(os.getpid(), number)
            return

        def later() -> None:
            time.sleep(seconds)
            os.kill(os.getpid(), number)

        threading.Thread(target=later, daemon=True).start()


def inject(fault: Fault, report: pathlib.Path) -> None:
    """Let a fault happen to this process, which reports the point that it met."""
    if fault.kind == "file_size":
        # A write past it fails: Python ignores the signal that comes with it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.at, resource.RLIM_INFINITY))
        return
    descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.addaudithook(_Injector(fault, descriptor))
