"""Kill programs at their write points, and let the same command finish."""

import functools
import pathlib
import random
import shutil
import socket
from collections.abc import Sequence
from typing import Any

from benchmarks.reliability.faults import Fault
from benchmarks.reliability.fork_server import Ended, Program
from benchmarks.reliability.programs import Programs, config_flags, last_lines
from benchmarks.reliability.trials import (
    CHANGED,
    CRASHED,
    MISSED,
    SAME,
    Outcome,
    Trial,
    first_difference,
    judged,
    leftovers,
    result_of,
)

# How long after a write point a process is killed: at once, or within what C++ writes then.
DELAYS = (0.0, 0.0, 0.002, 0.01, 0.03)


class Case:
    """A command that writes into a folder, and what it leaves when nothing happens to it.

    Attributes:
      whole: the folder that it leaves.
      expected: the result.
      points: its write points, in the order of one uninterrupted run.
      seconds: how long it takes.
    """

    whole: pathlib.Path
    seconds: float

    def __init__(self, name: str, flags: Sequence[str], scratch: pathlib.Path) -> None:
        self.name, self.flags, self.scratch = name, flags, scratch
        self.expected: Any = None
        self.points: Sequence[str] = ()
        self._numbers = iter(range(10**9))

    def prepare(self, server: Programs, times: int = 2) -> "Case":
        """Run it undisturbed; where more than once, the results must be equal."""
        for number in range(times):
            folder = self.new_folder("whole")
            ended = server.run(*self.programs(folder, Fault("none", str(folder))))
            if any(one.code for one in ended):
                raise RuntimeError(f"{self.name}: {[last_lines(one) for one in ended]}")
            found = self.result(server, folder, ended[0])
            if number and (difference := first_difference(self.expected, found)):
                raise RuntimeError(f"{self.name}: two runs differ: {difference}")
            self.whole, self.expected, self.points = folder, found, ended[0].points
            self.seconds = ended[0].seconds
        return self

    def new_folder(self, kind: str) -> pathlib.Path:
        """A name that no trial has used; concurrent trials have different ones."""
        return self.scratch / f"{self.name.replace(' ', '_')}-{kind}-{next(self._numbers)}"

    def programs(self, folder: pathlib.Path, fault: Fault | None = None) -> list[Program]:
        """The programs of the command; a fault happens to the first."""
        argv = ["train", *self.flags, f"--workdir={folder}"]
        return [Program(argv, tuple(fault or ()), tables=str(folder))]

    def result(self, server: Programs, folder: pathlib.Path, ended: Ended) -> Any:
        """Read what the command left."""
        return result_of(folder, ended)

    def finish(self, server: Programs, folder: pathlib.Path) -> Outcome:
        """Run the command again, and judge; unswept files count as a change."""
        ended = server.run(*self.programs(folder))
        for one in ended[1:]:
            # Where one refuses, the others do too or are told that it has gone.
            if one.code not in ((2, 3) if ended[0].code == 2 else (0,)):
                return Outcome(CRASHED, f"exit code {one.code}: {last_lines(one)}")
        outcome = judged(ended[0], self.expected, lambda: self.result(server, folder, ended[0]))
        if outcome.kind == SAME and (left := leftovers(folder)):
            return Outcome(CHANGED, f"not swept: {', '.join(left[:3])}")
        return outcome


class Sweep(Case):
    """A search of four trials."""

    def programs(self, folder: pathlib.Path, fault: Fault | None = None) -> list[Program]:
        vary = ["--vary=optimizer.learning_rate=log:1e-3:1e-1", "--trials=3"]
        argv = ["sweep", *self.flags, *vary, "--objective=ndcg@10", f"--workdir={folder}"]
        return [Program(argv, tuple(fault or ()))]

    def result(self, server: Programs, folder: pathlib.Path, ended: Ended) -> Any:
        """The counted trials without number, state and seconds, and the best configuration."""
        header, *lines = (folder / "trials.csv").read_text().splitlines()
        names = header.split(",")
        rows = [dict(zip(names, line.split(","), strict=True)) for line in lines]
        kept = [n for n in names if n not in ("trial", "seconds")]
        counted = [{n: row[n] for n in kept} for row in rows if row["state"] != "interrupted"]
        return {"trials": counted, "best": (folder / "best.json").read_text()}


class TwoProcesses(Case):
    """A run of two processes; `killed` says which of them a fault happens to."""

    killed = 0

    def programs(self, folder: pathlib.Path, fault: Fault | None = None) -> list[Program]:
        with socket.socket() as listener:
            listener.bind(("localhost", 0))
            port = listener.getsockname()[1]
        joined = ["train", *self.flags, f"--workdir={folder}", "--num_processes=2"]
        joined += [f"--coordinator_address=localhost:{port}"]
        programs = [Program([*joined, f"--process_id={number}"]) for number in range(2)]
        if fault:
            programs[self.killed] = programs[self.killed]._replace(fault=tuple(fault))
        return programs

    def result(self, server: Programs, folder: pathlib.Path, ended: Ended) -> Any:
        """As another process, alone, reads it."""
        (alone,) = server.run(Program([], tables=str(folder)))
        return super().result(server, folder, alone)


def cases(data: pathlib.Path, scratch: pathlib.Path) -> dict[str, Case]:
    """Make all cases, unprepared."""
    flags = functools.partial(config_flags, data)
    sharded = {"sharding__tables": "sharded", "sharding__user_parts": 4}
    # Several processes save in step with each other, not in the background: once an epoch here.
    slower = {"training__checkpoint_minutes": 10}
    found = [
        Case("run with refit", flags(training__refit=True), scratch),
        Case("another seed", flags(seed=7), scratch),
        Case("three epochs", flags(), scratch),
        Case("two epochs", flags(epochs=2), scratch),
        Case("sharded tables", flags(**sharded), scratch),
        Sweep("sweep", flags(), scratch),
        TwoProcesses("two processes", flags(epochs=2, **slower, **sharded), scratch),
        TwoProcesses("two processes, one epoch", flags(epochs=1, **slower, **sharded), scratch),
    ]
    return {case.name: case for case in found}


def is_in_save(point: str) -> bool:
    """Whether a write point is within the saving of a checkpoint."""
    return "checkpoints" in point


def at_points(case: Case, count: int, rng: random.Random) -> list[Trial]:
    """Kill a command at so many of its write points, half of them inside saves."""
    numbers = range(1, len(case.points) + 1)
    inside = [n for n in numbers if is_in_save(case.points[n - 1])]
    outside = [n for n in numbers if n not in set(inside)]
    chosen = []
    for kind, share in ((inside, (count + 1) // 2), (outside, count // 2)):
        chosen += rng.sample(kind, min(share, len(kind)))
    rng.shuffle(chosen)
    return [_killed(case, [number], rng.choice(DELAYS)) for number in chosen]


def again_and_again(case: Case, count: int, rng: random.Random) -> list[Trial]:
    """Kill a command, and twice the command that resumes it."""
    points = range(1, max(2, len(case.points) // 2))
    return [_killed(case, rng.choices(points, k=3), 0.0) for _ in range(count)]


def at_times(case: Case, count: int, rng: random.Random) -> list[Trial]:
    """Kill a command at random times, which also meets what no hook sees (SQLite, C++)."""
    return [_killed_at(case, rng.uniform(0.1, 1.0) * case.seconds) for _ in range(count)]


def _killed(case: Case, numbers: Sequence[int], delay: float) -> Trial:
    label = f"{case.name}, killed at write points {list(numbers)}, {delay} s later"

    def run(server: Programs) -> Outcome:
        folder, met = case.new_folder("killed"), []
        for number in numbers:
            ended = server.run(*case.programs(folder, Fault("kill", str(folder), number, delay)))
            met += [point for one in ended for point in one.points]
            for one in ended:
                if one.code not in (0, -9, 3, -6):
                    return Outcome(CRASHED, f"exit code {one.code}: {last_lines(one)}")
        return _finished(case, server, folder, met)

    return Trial(label, run)


def _killed_at(case: Case, seconds: float) -> Trial:
    def run(server: Programs) -> Outcome:
        folder = case.new_folder("killed")
        first, *others = case.programs(folder)
        ended = server.run(first._replace(signal="SIGKILL", after=seconds), *others)
        return _finished(case, server, folder, ["a time"] if ended[0].code == -9 else [])

    return Trial(f"{case.name}, killed after {seconds:.2f} s", run)


def _finished(case: Case, server: Programs, folder: pathlib.Path, met: Sequence[str]) -> Outcome:
    outcome = case.finish(server, folder)
    shutil.rmtree(folder, ignore_errors=True)
    if not met and outcome.kind == SAME:
        return Outcome(MISSED)
    return outcome._replace(detail=f"met {'; '.join(met)}: {outcome.detail}")
