"""Disks that are full, read-only, slow or over a quota; clocks that go back; two runs at once.

Where the system lets a user mount (`torture` tries), a full disk is a small one in memory, which
C++ meets too. What cannot be mounted is an error that Python's file operations raise.
"""

import contextlib
import pathlib
import random
import shutil
import subprocess
from collections.abc import Iterator

from benchmarks.reliability.faults import Fault
from benchmarks.reliability.fork_server import Ended
from benchmarks.reliability.kills import Case
from benchmarks.reliability.programs import Programs, last_lines
from benchmarks.reliability.trials import (
    CHANGED,
    CRASHED,
    MISSED,
    SAID,
    SAME,
    Outcome,
    Trial,
    is_noisy,
    is_one_line,
    judged,
)

# Errors of the system, at a write point and from then on.
ERRORS = ("ENOSPC", "EDQUOT", "EROFS", "EIO")
# Bytes of a disk, from where nothing fits to where all but the last save does.
ROOM = (16, 64, 128, 192, 256, 320, 400, 500, 640)


def raised(case: Case, count: int, rng: random.Random) -> list[Trial]:
    """Raise an error of the disk at write points, then let it work again."""
    numbers = range(1, len(case.points) + 1)
    chosen = rng.sample(numbers, min(count, len(numbers)))
    return [_raised(case, ERRORS[place % 4], n) for place, n in enumerate(chosen)]


def _raised(case: Case, error: str, number: int) -> Trial:
    def run(server: Programs) -> Outcome:
        folder = case.new_folder("disk")
        (ended,) = server.run(*case.programs(folder, Fault(error, str(folder), number)))
        outcome = _told(ended, folder)
        return _and_finished(case, server, folder, outcome, bool(ended.points))

    return Trial(f"{case.name}, {error} from write point {number} on", run)


def _told(ended: Ended, folder: pathlib.Path) -> Outcome:
    """Judge how a program met a disk that does not take what it writes."""
    if ended.code == 0 and not is_noisy(ended):
        return Outcome(SAME)
    if ended.code != 2 or not is_one_line(ended):
        code = "it hung" if ended.code is None else f"exit code {ended.code}"
        return Outcome(CRASHED, f"{code}, {len(ended.err)} bytes: {last_lines(ended)}")
    if str(folder) not in ended.err.rstrip().splitlines()[-1]:
        return Outcome(CRASHED, f"no path is named: {last_lines(ended, 1)}")
    return Outcome(SAID, last_lines(ended, 1))


def _and_finished(
    case: Case, server: Programs, folder: pathlib.Path, outcome: Outcome, is_met: bool
) -> Outcome:
    """Let the same command finish, which it must whatever was told."""
    again = case.finish(server, folder)
    shutil.rmtree(folder, ignore_errors=True)
    if outcome.kind == CRASHED:
        return outcome
    if again.kind != SAME:
        kind = again.kind if again.kind in (CHANGED, CRASHED) else CHANGED
        return Outcome(kind, f"with room again: {again.detail}")
    return Outcome(SAME if is_met else MISSED, outcome.detail)


def large_files(case: Case) -> list[Trial]:
    """Forbid files of more than some bytes, as a quota may; C++ meets this too."""

    def trial(size: int) -> Trial:
        def run(server: Programs) -> Outcome:
            folder = case.new_folder("large")
            (ended,) = server.run(*case.programs(folder, Fault("file_size", str(folder), size)))
            return _and_finished(case, server, folder, _told(ended, folder), is_met=True)

        return Trial(f"{case.name}, no file of more than {size} bytes", run)

    # What a program prints goes to files too, of less than the first size.
    return [trial(size) for size in (4000, 6000, 8000)]


@contextlib.contextmanager
def mounted(folder: pathlib.Path, options: str) -> Iterator[None]:
    """Mount a disk in memory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def full(case: Case) -> list[Trial]:
    """Run on disks that are too small, then give them room."""

    def trial(kibibytes: int) -> Trial:
        def run(server: Programs) -> Outcome:
            disk = case.new_folder("full")
            folder = disk / "run"
            with mounted(disk, f"size={kibibytes}k"):
                (ended,) = server.run(*case.programs(folder))
                outcome = _told(ended, folder)
                remount = ["mount", "-o", "remount,size=64m", str(disk)]
                subprocess.run(remount, check=True)
                return _and_finished(case, server, folder, outcome, is_met=True)

        return Trial(f"{case.name}, on a disk of {kibibytes} KiB", run)

    return [trial(kibibytes) for kibibytes in ROOM]


def read_only(case: Case) -> list[Trial]:
    """Run in a new and in an interrupted folder of a disk that is read-only, then is not."""

    def trial(is_new: bool) -> Trial:
        def run(server: Programs) -> Outcome:
            disk = case.new_folder("read-only")
            folder = disk / "run"
            with mounted(disk, "size=64m"):
                if not is_new:
                    fault = Fault("kill", str(folder), len(case.points) // 2)
                    server.run(*case.programs(folder, fault))
                for mode in ("ro", "rw"):
                    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)
                    if mode == "ro":
                        (ended,) = server.run(*case.programs(folder))
                outcome = _told(ended, folder)
                return _and_finished(case, server, folder, outcome, is_met=True)

        return Trial(f"{case.name}, {'new' if is_new else 'resumed'} on a read-only disk", run)

    return [trial(True), trial(False)]


def clocks(case: Case, count: int, rng: random.Random) -> list[Trial]:
    """Set the clock back by an hour; it must not matter."""
    numbers = rng.sample(range(1, len(case.points) + 1), count)
    return [_harmless(case, "clock", n, 0.0) for n in numbers]


def slow(case: Case, count: int) -> list[Trial]:
    """Let each write take its time; it must not matter."""
    return [_harmless(case, "slow", 0, 0.01 * 2**place) for place in range(count)]


def _harmless(case: Case, kind: str, number: int, seconds: float) -> Trial:
    def run(server: Programs) -> Outcome:
        folder = case.new_folder(kind)
        fault = Fault(kind, str(folder), number, seconds)
        (ended,) = server.run(*case.programs(folder, fault))
        outcome = judged(ended, case.expected, lambda: case.result(server, folder, ended))
        shutil.rmtree(folder, ignore_errors=True)
        is_met = kind == "slow" or bool(ended.points)
        return outcome if is_met or outcome.kind != SAME else Outcome(MISSED)

    return Trial(f"{case.name}, {kind} at write point {number}, {seconds} s", run)


def two_at_once(case: Case, count: int, rng: random.Random) -> list[Trial]:
    """Start a run twice in one folder: one goes on, the other is refused in one line."""

    def trial(seconds: float) -> Trial:
        def run(server: Programs) -> Outcome:
            folder = case.new_folder("both")
            (program,) = case.programs(folder)
            # The second begins at some write of the first, which waits for it a little.
            held = Fault("slow", str(folder), 0, seconds)
            both = server.run(program._replace(fault=tuple(held)), program)
            winner = next((one for one in both if one.code == 0), None)
            for one in both:
                if one is not winner and not (one.code == 2 and is_one_line(one)):
                    shutil.rmtree(folder, ignore_errors=True)
                    return Outcome(CRASHED, f"exit code {one.code}: {last_lines(one)}")
            outcome = case.finish(server, folder)
            shutil.rmtree(folder, ignore_errors=True)
            return outcome

        return Trial(f"{case.name}, twice in one folder, writes of {seconds:.3f} s", run)

    return [trial(rng.choice([0.0, 0.001, 0.005])) for _ in range(count)]
