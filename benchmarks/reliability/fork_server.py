"""Run programs of `hlr-jax` in forks of one process, which has imported what they import.

Reads a line of JSON for each request, a list of `Program` that run at once, and answers with a list
of `Ended`. Each program is the `main` of the command line in a process of its own, with devices and
settings of its own; it only begins a second earlier.
"""

import hashlib
import importlib
import json
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.reliability.faults import Fault, inject

# The file by which a process says that its program begins.
_BEGUN = "begun"


class Program(NamedTuple):
    """A program to run.

    Attributes:
      argv: as after `hlr-jax`; () to run none, and only digest `tables`.
      fault: what happens to it; () for nothing.
      signal: the name of a signal that it is sent, "" for none.
      after: how many seconds after it has begun; before, Python itself is starting.
      tables: a folder whose models are digested once the program has ended well, or "".
      limit: seconds, after which it counts as hanging.
    """

    argv: Sequence[str]
    fault: Sequence[Any] = ()
    signal: str = ""
    after: float = 0.0
    tables: str = ""
    limit: float = 90.0


class Ended(NamedTuple):
    """How a program ended.

    Attributes:
      code: its exit code; a signal's number, negative; None if it hung and was killed.
      points: the write points it reported.
      tables: digests of the models.
    """

    code: int | None
    out: str
    err: str
    points: Sequence[str]
    tables: dict[str, str]
    seconds: float


def digests(folder: str) -> dict[str, str]:
    """Digest the tables that a run's folder holds, as its users load them, or say why not."""
    from hlr_jax import InputError, Recommender

    found = {}
    for refitted in (False, True):
        try:
            model = Recommender.load(folder, refitted=refitted)
        except InputError as error:
            return {"refused": str(error)}
        for name, table in (("users", model.user_vectors()), ("items", model.item_vectors())):
            digest = hashlib.sha256(table.tobytes() + str(table.shape).encode()).hexdigest()
            found[f"{name}{' refitted' if refitted else ''}"] = digest
    return found


def _main(program: Program, folder: pathlib.Path) -> int:
    """Run a program to its end in this process, and return its exit code."""
    from hlr_jax import programs

    if program.fault:
        inject(Fault(*program.fault), folder / "points")
    sys.argv = ["hlr-jax", *program.argv]
    code: Any = 0
    (folder / _BEGUN).touch()
    try:
        if program.argv:
            programs.main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    if program.tables and not code:
        (folder / "tables").write_text(json.dumps(digests(program.tables)))
    return code if isinstance(code, int) else 1


def _forked(program: Program, folder: pathlib.Path) -> int:
    """Start a program, and return the number of its process."""
    child = os.fork()
    if child:
        return child
    try:
        for name, descriptor in (("out", 1), ("err", 2)):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        code = _main(program, folder)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code if "code" in locals() else 1)


def _wait(programs: Sequence[Program], folders: Sequence[pathlib.Path]) -> list[Ended]:
    """Run programs at once, send their signals, and wait for their ends."""
    started = time.monotonic()
    running = {
        _forked(program, folder): place
        for place, (program, folder) in enumerate(zip(programs, folders, strict=True))
    }
    found: dict[int, tuple[int | None, float]] = {}
    begun: dict[int, float] = {}
    signalled, hung = set(), set()
    while running:
        age = time.monotonic() - started
        for child, place in list(running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            program = programs[place]
            if place not in begun and (folders[place] / _BEGUN).exists():
                begun[place] = age
            due = begun.get(place, age) + program.after
            if ended:
                code = None if child in hung else os.waitstatus_to_exitcode(status)
                found[place] = code, age
                del running[child]
            elif age > program.limit and child not in hung:
                hung.add(child)
                os.kill(child, signal.SIGKILL)
            elif program.signal and age > due and child not in signalled:
                signalled.add(child)
                os.kill(child, signal.Signals[program.signal])
        time.sleep(0.002)
    return [_ended(*found[place], folder) for place, folder in enumerate(folders)]


def _ended(code: int | None, seconds: float, folder: pathlib.Path) -> Ended:
    def text(name: str) -> str:
        path = folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    points, tables = text("points").splitlines(), json.loads(text("tables") or "{}")
    return Ended(code, text("out"), text("err"), points, tables, seconds)


def main() -> None:
    """Answer requests until there are no more."""
    # Heavy, and imported by most programs. None of it starts a thread, which no fork would have,
    # or looks for devices. Programs themselves define flags, so that each imports its own.
    for name in ("programs", "runs.recommender", "runs.experiment", "runs.words", "tuning.sweep"):
        importlib.import_module(f"hlr_jax.{name}")
    assert threading.active_count() == 1
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        programs = [Program(*request) for request in json.loads(line)]
        with tempfile.TemporaryDirectory() as scratch:
            folders = [pathlib.Path(scratch) / str(place) for place in range(len(programs))]
            for folder in folders:
                folder.mkdir()
            print(json.dumps(_wait(programs, folders)), file=answers, flush=True)


if __name__ == "__main__":
    main()
