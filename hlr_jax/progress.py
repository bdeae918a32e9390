"""How far work has come, on standard error: a bar in a terminal, lines in a log file, or nothing.

`set_progress` chooses for the whole process; `shown` is what work shows itself by.
"""

import os
import sys
import time

from tqdm import tqdm

from hlr_jax.errors import InputError

MODES = ("auto", "bar", "plain", "off")
# Between plain lines at the ends of parts, and between others of work that has such parts.
LINE_SECONDS, SILENT_SECONDS = 10.0, 30.0
# What is done sooner shows no bar.
_BAR_SECONDS = 0.5
# From here on numbers are written as 1.53M.
_SCALED_FROM = 100_000
_BAR = "{desc}|{bar}| {remaining} left"

_mode = "auto"


def set_progress(mode: str) -> None:
    """Choose how all work of this process shows its progress from now on.

    Args:
      mode: `bar`; `plain`, lines for a log file, at most one in 10 seconds; `off`; or `auto`, which
        is `bar` in a terminal or a notebook, and `plain` elsewhere. What is called with
        `show_progress=False` shows nothing in any mode.

    Raises:
      InputError: there is no such mode.
    """
    global _mode
    if mode not in MODES:
        raise InputError(f"progress={mode!r}: use one of {', '.join(MODES)}")
    _mode = mode


def shown(
    total: int, unit: str, title: str = "", done: int = 0, show_progress: bool = True
) -> "Shown":
    """Begin to show the progress of a piece of work, a context manager.

    Args:
      total: of units; 0 if that is not known.
      unit: what is counted, as `users`.
      title: what is being done.
      done: of the total, before it begins.
      show_progress: whether to show anything.
    """
    if not show_progress or _mode == "off":
        return Shown()
    if _mode == "bar" or (_mode == "auto" and _is_watched()):
        return Bar(total, unit, title, done)
    return Lines(total, unit, title, done)


def _is_watched() -> bool:
    """Tell whether standard error is a notebook's, or a terminal of some size."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if hasattr(shell, "kernel"):
        return True
    try:
        return min(os.get_terminal_size(sys.stderr.fileno())) > 0
    except (OSError, ValueError, AttributeError):  # A closed stream, or none.
        return False


class Shown:
    """The progress of a piece of work. This one shows nothing."""

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        pass

    def begin(self) -> None:
        """Tell that the work itself begins: rates leave out what came before, as compiling."""

    def advance(self, amount: int = 1) -> None:
        """Count what has been done."""

    def describe(self, title: str) -> None:
        """Say what is being done now."""

    def note(self, **figures: str) -> None:
        """Say how it goes: figures by name, which replace those of the same names."""

    def end_part(self) -> None:
        """Tell that a part is done, as an epoch: a good time for a line."""

    def write(self, line: str) -> None:
        """Write a line that stays, to standard output."""


class Bar(Shown):
    """A bar that moves."""

    def __init__(self, total: int, unit: str, title: str, done: int) -> None:
        self._figures: dict[str, str] = {}
        self._bar: tqdm = tqdm(
            desc=title,
            total=total or None,
            initial=done,
            unit=f" {unit}",
            unit_scale=not 0 < total < _SCALED_FROM,
            dynamic_ncols=True,
            delay=_BAR_SECONDS,
        )

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._bar.leave = bool(self._figures)
        self._bar.close()

    def begin(self) -> None:
        self._bar.unpause()

    def advance(self, amount: int = 1) -> None:
        self._bar.update(amount)

    def describe(self, title: str) -> None:
        # What is drawn once is closed in order, however soon.
        self._bar.delay = 0
        self._bar.set_description(title)

    def note(self, **figures: str) -> None:
        self._figures |= figures
        # Figures take the place of counts and rates.
        if self._bar.total:
            self._bar.bar_format = _BAR + "{postfix}"
        self._bar.set_postfix_str(_joined(self._figures), refresh=False)

    def write(self, line: str) -> None:
        self._bar.write(line)


class Lines(Shown):
    """Lines for a log file: not many, each with all there is to say."""

    def __init__(self, total: int, unit: str, title: str, done: int) -> None:
        self._total, self._unit, self._title = total, unit, title
        self._before = self._done = self._written = done
        self._figures: dict[str, str] = {}
        self._begun = self._last = self._last_end = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        # Short work without figures needs no line.
        is_told = self._figures or self._written > self._before
        if kind is None and is_told and self._done > self._written:
            self._line()

    def begin(self) -> None:
        self._begun = self._last = self._last_end = time.monotonic()

    def advance(self, amount: int = 1) -> None:
        self._done += amount
        silent = time.monotonic() - self._last
        if silent >= (SILENT_SECONDS if self._figures else LINE_SECONDS):
            self._line()

    def describe(self, title: str) -> None:
        self._title = title

    def note(self, **figures: str) -> None:
        self._figures |= figures

    def end_part(self) -> None:
        if time.monotonic() - self._last_end >= LINE_SECONDS:
            self._line()
            self._last_end = self._last

    def write(self, line: str) -> None:
        print(line, flush=True)

    def _line(self) -> None:
        self._last, self._written = time.monotonic(), self._done
        seconds, done = self._last - self._begun, self._done - self._before
        rate = done / seconds if seconds else 0.0
        parts = [f"{tqdm.format_interval(seconds)} passed"]
        if self._total:
            parts.insert(0, f"{self._done / self._total:.0%}")
        if rate and self._done < self._total:
            left = tqdm.format_interval((self._total - self._done) / rate)
            parts.append(f"{left} left")
        if self._figures:
            parts.append(_joined(self._figures))
        else:
            parts += [f"{_number(self._done)} {self._unit}", _speed(rate)]
        title = f"{self._title}: " if self._title else ""
        print(title + ", ".join(parts), file=sys.stderr, flush=True)


def digits(value: float) -> str:
    """Write a figure by four digits, so that those of one name are equally wide."""
    return f"{value:#.4g}".rstrip(".")


def _joined(figures: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures.items())


def _speed(rate: int | float) -> str:
    return f"{_number(rate)}/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s each"


def _number(value: int | float) -> str:
    return str(tqdm.format_sizeof(value)) if value >= _SCALED_FROM else f"{value:.0f}"
