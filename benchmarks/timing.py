"""Time calls, several of them in turns."""

import functools
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

_Name = TypeVar("_Name", bound=Hashable)


def seconds(call: Callable[[], object]) -> float:
    """Time a call, which must return only when its work is done."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(calls: Mapping[_Name, Callable[[], object]], rounds: int) -> dict[_Name, list[float]]:
    """Time calls in turns, A B A B ..., after a warm-up of each; returns seconds.

    Whatever slows the machine down for a while affects all of them alike.
    """
    for call in calls.values():
        call()
    times: dict[_Name, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


class OtherPrograms:
    """Measures how many cores other programs use while a block runs, on average (Linux).

    Attributes:
      cores: set at the end; NaN on other systems.
    """

    cores = float("nan")

    def __enter__(self) -> "OtherPrograms":
        self._start = self._spent()
        return self

    def __exit__(self, *_: object) -> None:
        wall, own, every = (b - a for a, b in zip(self._start, self._spent(), strict=True))
        self.cores = max(0.0, every - own) / wall

    @staticmethod
    def _spent() -> tuple[float, float, float]:
        """Seconds: of wall time, of this process and its ended children, of all programs."""
        own, every = sum(os.times()[:4]), float("nan")
        if os.path.exists("/proc/stat"):
            with open("/proc/stat") as file:
                # user, nice, system
                every = sum(map(int, file.readline().split()[1:4])) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), own, every


def steps_that_take(wanted: float, run: Callable[[int], object]) -> int:
    """Find how many steps `run(steps)` takes in about `wanted` seconds; compiles it on the way."""
    run(1)
    steps = 1
    while (spent := seconds(functools.partial(run, steps))) < wanted / 8:
        steps *= 2
    return max(1, round(steps * wanted / spent))


def summary(values: Sequence[float]) -> dict[str, float]:
    """Summarise repeated measurements: median, quartiles, extremes."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {
        "median": float(median),
        "lower_quartile": float(low),
        "upper_quartile": float(high),
        "min": float(min(values)),
        "max": float(max(values)),
    }


def per_step(times: Sequence[float], steps: int) -> dict[str, float]:
    """Summarise milliseconds per step, given the seconds of calls of so many steps."""
    return summary([1e3 * time / steps for time in times])


def rates(amount: float, times: Sequence[float]) -> dict[str, float]:
    """Summarise `amount` per second."""
    return summary([amount / time for time in times])


def with_quartiles(values: Mapping[str, float]) -> str:
    """Write a summary for people: `median (lower quartile-upper quartile)`."""
    digits = 0 if values["median"] >= 100 else 1
    median, low, high = (
        f"{values[name]:,.{digits}f}" for name in ("median", "lower_quartile", "upper_quartile")
    )
    return f"{median} ({low}-{high})"
