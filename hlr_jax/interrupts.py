"""Signals that end a run, as Ctrl-C does: a program says so in one line, training saves first."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

# Of every interrupted program, whichever signal it was, and also where another process of the run
# had it.
EXIT_CODE = 130
_KEPT = "what was written is complete; the same command goes on"

_received = ""


def _numbers() -> list[signal.Signals]:
    """List the signals that end a run, but for those that are ignored, as SIGHUP under nohup."""
    # Windows has no SIGHUP.
    known = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    return [n for n in known if n is not None and signal.getsignal(n) is not signal.SIG_IGN]


def raise_in_programs() -> None:
    """Let every such signal raise KeyboardInterrupt in this process; a second one ends it at once.

    Python notices a signal between two of its own instructions: what runs in a compiled library, as
    the compilation of a program, ends first.
    """
    for number in _numbers():
        signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    for other in _numbers():
        signal.signal(other, signal.SIG_DFL)
    _note(number)
    raise KeyboardInterrupt


def _note(number: int) -> None:
    global _received
    _received = signal.Signals(number).name


def told(error: KeyboardInterrupt) -> str:
    """Say in one line that a program was interrupted, by which signal, and what that means."""
    by = f" ({_received})" if _received else ""
    return "; ".join([f"interrupted{by}", *(map(str, error.args or (_KEPT,)))])


@contextlib.contextmanager
def ending_in_one_line() -> Iterator[None]:
    """End an interrupted program in one line, also while it is still being imported."""
    raise_in_programs()
    try:
        yield
    except KeyboardInterrupt as error:
        print(f"error: {told(error)}", file=sys.stderr)
        sys.exit(EXIT_CODE)


class StopRequest:
    """Notes a signal instead of dying of it, so that training can save first.

    A second signal does what it always does.
    Outside the main thread, where Python allows no signal handlers, it notes nothing.
    """

    def __enter__(self) -> "StopRequest":
        self.received = False
        self._is_raised = False
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in _numbers():
                self._previous[number] = signal.signal(number, self._note)
        return self

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Within this a signal raises KeyboardInterrupt, for work that can be done again."""
        self._is_raised = True
        try:
            yield
        finally:
            self._is_raised = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        _note(number)
        self.__exit__()
        if self._is_raised:
            raise KeyboardInterrupt

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
