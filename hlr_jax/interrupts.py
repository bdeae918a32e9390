"""Signals that end a run, as Ctrl-C does: a program says so in one line, training saves first."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

# Of every interrupted program, whichever signal it was, and also where another process of the run
# had it.
EXIT_CODE = 130
_KEPT = "what was written is complete; the same command goes on"

# How long until a signal is sent again whose exception was lost.
_AGAIN_SECONDS = 0.05

_received = ""


class Interrupted(KeyboardInterrupt):
    """A signal has come.

    It is a class of its own because Python, which remembers where a KeyboardInterrupt has left an
    `exec`, would end the process by SIGINT after all, with another exit code.
    """


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
    if sys.unraisablehook is not _tell_lost:
        _tell_lost.others = sys.unraisablehook
        sys.unraisablehook = _tell_lost


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    _note(number)
    if _is_importing(frame):
        # Which may make another error of it. Nothing is lost that being killed would not lose.
        os.write(2, f"error: {told(Interrupted())}\n".encode())
        os._exit(EXIT_CODE)
    for other in _numbers():
        signal.signal(other, signal.SIG_DFL)
    raise Interrupted


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


class _TellLost:
    """Sends a signal again whose exception Python has dropped, as it does in callbacks of JAX."""

    def __init__(self) -> None:
        self.others = sys.unraisablehook

    def __call__(self, arguments: Any) -> None:
        if not isinstance(arguments.exc_value, Interrupted):
            self.others(arguments)
            return
        raise_in_programs()
        number = signal.Signals[_received]
        threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()


_tell_lost = _TellLost()


def _note(number: int) -> None:
    global _received
    _received = signal.Signals(number).name


def told(error: KeyboardInterrupt) -> str:
    """Say in one line that a program was interrupted, by which signal, and what that means."""
    by = f" ({_received})" if _received else ""
    return "; ".join([f"interrupted{by}", *(map(str, error.args or (_KEPT,)))])


@contextlib.contextmanager
def ending_in_one_line() -> Iterator[None]:
    """End an interrupted program in one line, also while it is still being imported.

    Afterwards signals are ignored: all is done, and Python would die of them while it tidies up.
    """
    raise_in_programs()
    try:
        yield
    except KeyboardInterrupt as error:
        print(f"error: {told(error)}", file=sys.stderr)
        sys.exit(EXIT_CODE)
    finally:
        for number in _numbers():
            signal.signal(number, signal.SIG_IGN)


class StopRequest:
    """Notes a signal instead of dying of it, so that training can save first.

    A second signal does what it always does.
    Outside the main thread, where Python allows no signal handlers, it notes nothing.
    """

    def __enter__(self) -> "StopRequest":
        self._is_asked = self._is_raised = False
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in _numbers():
                self._previous[number] = signal.signal(number, self._note)
        return self

    @property
    def received(self) -> bool:
        """Whether a signal has come."""
        return self._is_asked

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Within this a signal raises KeyboardInterrupt, for work that can be done again."""
        if self._is_asked:
            raise Interrupted
        self._is_raised = True
        try:
            yield
        finally:
            self._is_raised = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._is_asked = True
        _note(number)
        self.__exit__()
        if self._is_raised and not _is_importing(frame):
            raise Interrupted

    def __exit__(self, *exception: object) -> None:
        previous, self._previous = self._previous, {}  # Once: a second signal ends the process.
        for number, handler in previous.items():
            signal.signal(number, handler)
