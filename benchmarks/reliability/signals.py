"""Ask programs to stop, at random times and at their write points."""

import random
import shutil

from benchmarks.reliability.faults import Fault
from benchmarks.reliability.fork_server import Ended
from benchmarks.reliability.kills import Case
from benchmarks.reliability.programs import Programs, last_lines
from benchmarks.reliability.trials import (
    CRASHED,
    MISSED,
    SAME,
    Outcome,
    Trial,
    is_one_line,
)

SIGNALS = ("SIGTERM", "SIGHUP", "SIGINT")
# Of an interrupted program; see docs/reliability.md.
INTERRUPTED = 130


def at_times(case: Case, count: int, rng: random.Random) -> list[Trial]:
    """Send signals over the whole time that a command takes, and a little longer."""
    return [
        _signalled(case, SIGNALS[place % 3], after=0.05 + rng.uniform(0, 1.1) * case.seconds)
        for place in range(count)
    ]


def at_points(case: Case, count: int, rng: random.Random) -> list[Trial]:
    """Send signals at write points."""
    numbers = rng.sample(range(1, len(case.points) + 1), min(count, len(case.points)))
    return [_signalled(case, SIGNALS[place % 3], point=n) for place, n in enumerate(numbers)]


def _signalled(case: Case, name: str, after: float = 0.0, point: int = 0) -> Trial:
    def run(server: Programs) -> Outcome:
        folder = case.new_folder("signalled")
        if point:
            programs = case.programs(folder, Fault(name, str(folder), point))
        else:
            (program,) = case.programs(folder)
            programs = [program._replace(signal=name, after=after)]
        (ended,) = server.run(*programs)
        again = case.finish(server, folder)
        shutil.rmtree(folder, ignore_errors=True)
        if not _is_documented(ended):
            return Outcome(CRASHED, f"exit code {ended.code}: {last_lines(ended)}")
        if ended.code == 0 and again.kind == SAME:
            return Outcome(MISSED)
        return again

    where = f"at write point {point}" if point else f"after {after:.2f} s"
    return Trial(f"{case.name}, {name} {where}", run)


def _is_documented(ended: Ended) -> bool:
    return ended.code == 0 or (ended.code == INTERRUPTED and is_one_line(ended))
