"""Seconds per call, of several contestants in one run."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np


def seconds(call: Callable[[], object]) -> float:
    """Wall time of a call, which must return only when its work is done."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(
    contestants: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each call, A B A B ... after a warm-up of each.

    Whatever slows the machine down for a while hits all contestants alike.
    """
    for call in contestants.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            times[name].append(seconds(call))
    return times


def steps_that_take(wanted: float, run: Callable[[int], object]) -> int:
    """How many steps `run(steps)` does in about `wanted` seconds; compiles it on the way."""
    run(1)
    steps = 1
    while (spent := seconds(functools.partial(run, steps))) < wanted / 8:
        steps *= 2
    return max(1, round(steps * wanted / spent))


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and spread of repeated measurements."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {
        "median": float(median),
        "lower_quartile": float(low),
        "upper_quartile": float(high),
        "min": float(min(values)),
        "max": float(max(values)),
    }


def rates(amount: float, times: Sequence[float]) -> dict[str, float]:
    """Summary of `amount` per second."""
    return summary([amount / time for time in times])


def with_quartiles(values: Mapping[str, float]) -> str:
    """A summary for people: `median (lower quartile-upper quartile)`."""
    digits = 0 if values["median"] >= 100 else 1
    median, low, high = (
        f"{values[name]:,.{digits}f}" for name in ("median", "lower_quartile", "upper_quartile")
    )
    return f"{median} ({low}-{high})"
