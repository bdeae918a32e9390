"""Let programs of PyTorch, each in a process of its own, get ready to be timed, or be left out."""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks import own_process, timing
from benchmarks.own_process import Local, Remote

COMPILE_SECONDS = 60.0
# To import PyTorch and make the tables; compilation is counted from there.
_START_SECONDS = 120.0
# To be timed, all together.
_CALL_SECONDS = 3600.0
# Compilation of one keeps so many cores busy; where there are more, several compile at once.
_CORES = 2

Contestant = Remote | Local


class Contest(NamedTuple):
    """Who takes part.

    Attributes:
      ready: by name, in the order of those who were to take part.
      rows: by name, of all: `{"compile_seconds": ..}`, or `{"left_out": why}`.
    """

    ready: dict[str, Contestant]
    rows: dict[str, dict[str, Any]]

    def __enter__(self) -> "Contest":
        return self

    def __exit__(self, *_: object) -> None:
        for contestant in self.ready.values():
            contestant.close()

    def best(self, rates: Mapping[str, Mapping[str, float]]) -> str | None:
        """Name the contestant with the highest median, if any."""
        return max(self.ready, key=lambda name: rates[name]["median"], default=None)


def hold(
    builds: Mapping[str, Callable[[], Any]],
    first: Callable[[Contestant], object],
    limit: float = COMPILE_SECONDS,
    is_local: bool = False,
) -> Contest:
    """Start contestants, and wait until each has compiled itself.

    Args:
      builds: makes them, by name; see `own_process.Remote`.
      first: makes calls that compile a contestant, and checks what they return.
      limit: seconds that compilation may take; who takes longer is stopped.
      is_local: whether they are to live in this process, where nothing is stopped.
    """
    contest = Contest({}, {})
    started: list[Contestant] = []

    def prepare(name: str) -> tuple[Contestant | None, dict[str, Any]]:
        contestant = Local(builds[name]) if is_local else Remote(builds[name])
        started.append(contestant)
        try:
            contestant.allow(_START_SECONDS)
            contestant.wait()
            contestant.allow(limit)
            seconds = timing.seconds(functools.partial(first, contestant))
            contestant.allow(_CALL_SECONDS)
        except own_process.TooLateError:
            return None, {"left_out": f"not compiled within {limit:.0f} s"}
        except own_process.FailedError as error:
            contestant.close()
            return None, {"left_out": f"failed: {error}"}
        return contestant, {"compile_seconds": seconds}

    workers = max(1, len(os.sched_getaffinity(0)) // _CORES)
    try:
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            for name, found in zip(builds, pool.map(prepare, builds), strict=True):
                contestant, contest.rows[name] = found
                if contestant:
                    contest.ready[name] = contestant
    except BaseException:
        for contestant in started:
            contestant.close()
        raise
    return contest
