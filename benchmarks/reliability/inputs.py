"""Give every reader of the library damaged input: each is read, or refused in one line.

  python -m benchmarks.reliability.inputs --inputs=100000

An input that ends in anything else is a crash, and kept. Inputs are a function of the seed, the
reader and a number. They are read in processes that are forked now and then, so that one that ends
by a signal, or never, is counted too.
"""

import contextlib
import json
import logging
import mmap
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable

import numpy as np
from absl import app, flags

from benchmarks import output, report
from benchmarks.reliability.mutations import mutated
from benchmarks.reliability.readers import READERS, TRAP, Reader, samples
from hlr_jax.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]
# Inputs that one process reads.
IN_PROCESS = 1000
# No input may take longer.
SECONDS = 60

_INPUTS = flags.DEFINE_integer("inputs", 100_000, "Inputs in all, shared among the readers.")
_REQUESTS = flags.DEFINE_integer("requests", 3000, "Requests over HTTP besides.")
_SEED = flags.DEFINE_integer("seed", 1, "Of the mutations.")
_READERS = flags.DEFINE_list("readers", [], "Only these.")
_KEPT = flags.DEFINE_string("kept", "build/crashes", "A folder for inputs that end in a crash.")

_SAMPLES: dict[str, tuple[bytes, ...]] = {}

TRIED, READ, REFUSED, CRASHED = range(4)
OUTCOMES = ("tried", "read", "refused", "crashed")


def content_of(name: str, seed: int, number: int) -> tuple[bytes, np.random.Generator]:
    """Make one input of a reader, and the generator that draws how it is read."""
    samples = _SAMPLES[name]
    rng = np.random.default_rng([seed, *name.encode(), number])
    sample = samples[number % len(samples)]
    # The samples themselves come first.
    return (sample if number < len(samples) else mutated(rng, sample)), rng


def fault_of(reader: Reader, path: pathlib.Path, rng: np.random.Generator) -> tuple[bool, str]:
    """Read a file: whether it could be read, and what is wrong with how it was refused."""
    try:
        reader.read(path, rng)
        return True, ""
    except InputError as error:
        message = str(error)
        if "\n" in message or "\r" in message:
            return False, f"not one line: {message[:500]!r}"
        if reader.names_file and str(path) not in message:
            return False, f"does not name the file: {message[:500]}"
        return False, ""
    except BaseException:
        return False, traceback.format_exc()


def read_some(name: str, numbers: range, seed: int, counts: mmap.mmap, kept: pathlib.Path) -> None:
    """Read inputs in a folder of their own; runs in a process of its own."""
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["HLR_JAX_CACHE"] = f"{folder}/cache"
        trap(pathlib.Path(folder))
        for number in numbers:
            place = pathlib.Path(folder, "input")
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            content, rng = content_of(name, seed, number)
            path = place / reader.name
            path.write_bytes(content)
            (kept / f"{os.getpid()}").write_bytes(content)
            signal.alarm(SECONDS)
            was_read, fault = fault_of(reader, path, rng)
            signal.alarm(0)
            if pathlib.Path(folder, "sprung").exists():
                fault = "ran a module of the working directory"
            outcome = CRASHED if fault else READ if was_read else REFUSED
            add(counts, TRIED, 1)
            add(counts, outcome, 1)
            if fault:
                stem = f"{name.replace(' ', '_')}-{number}"
                (kept / stem).write_bytes(content)
                (kept / f"{stem}.txt").write_text(fault, encoding="utf-8", errors="replace")


def trap(folder: pathlib.Path) -> None:
    """Lay modules that nobody may run into a folder, which is not on Python's path."""
    text = f"import pathlib; pathlib.Path({str(folder / 'sprung')!r}).touch()\n"
    for name in (TRAP, "os", "a", "json", "trap"):
        (folder / f"{name}.py").write_text(text)
    sys.path[:] = [path for path in sys.path if path not in ("", ".")]


def add(counts: mmap.mmap, place: int, amount: int) -> None:
    old = int.from_bytes(counts[8 * place : 8 * place + 8], "little")
    counts[8 * place : 8 * place + 8] = (old + amount).to_bytes(8, "little")


def found(counts: mmap.mmap) -> list[int]:
    return [int.from_bytes(counts[8 * k : 8 * k + 8], "little") for k in range(4)]


def forked(work: Callable[[], None]) -> int:
    """Do work in a process of its own, in silence; returns the status that it ends with."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    status = 1
    with contextlib.suppress(BaseException):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        work()
        status = 0
    os._exit(status)


def fuzz(name: str, inputs: int, seed: int, kept: pathlib.Path) -> dict:
    """Read so many inputs; returns what became of them."""
    start = time.monotonic()
    with mmap.mmap(-1, 64) as counts:
        begun = 0
        while begun < inputs:
            numbers = range(begun, min(begun + IN_PROCESS, inputs))
            before = found(counts)[TRIED]
            status = forked(lambda n=numbers: read_some(name, n, seed, counts, kept))
            done = found(counts)[TRIED] - before
            if status:
                # The one after those done has ended the process; the others are for the next.
                number = begun + done
                last = max(kept.iterdir(), key=lambda path: path.stat().st_mtime)
                last.rename(kept / f"{name.replace(' ', '_')}-{number}-status{status}")
                add(counts, TRIED, 1)
                add(counts, CRASHED, 1)
                done += 1
            for path in kept.iterdir():
                if path.name.isdigit():
                    path.unlink()
            begun += done
        return summary(counts, start)


def summary(counts: mmap.mmap, start: float) -> dict[str, float]:
    """Say what became of inputs that were read since `start`."""
    numbers = dict(zip(OUTCOMES, found(counts), strict=True))
    return numbers | {"seconds": round(time.monotonic() - start, 1)}


def ask(requests: int, kept: pathlib.Path) -> dict:
    """Send damaged requests to a service on the loopback; refused is what 4xx answers."""
    start = time.monotonic()
    with mmap.mmap(-1, 64) as counts:
        status = forked(lambda: _ask(requests, counts, kept))
        if status:
            add(counts, CRASHED, 1)
        return summary(counts, start)


def _ask(requests: int, counts: mmap.mmap, kept: pathlib.Path) -> None:
    import socket
    import threading

    sys.path.insert(0, str(ROOT / "tests"))
    from support import malformed
    from support.untrained import untrained

    from hlr_jax.serving import make_app, make_server

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = make_server(make_app(untrained("hlr")))
        thread = threading.Thread(target=running.run, args=([listener],), daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        for number, request in enumerate(malformed.requests(requests)):
            status = malformed.answer(listener.getsockname()[1], request)
            add(counts, TRIED, 1)
            if not request.is_refused_by(status):
                add(counts, CRASHED, 1)
                (kept / f"request-{number}-status{status}").write_bytes(request.sent)
            else:
                add(counts, READ if status == 200 else REFUSED, 1)
        running.should_exit = True
        thread.join()


def fuzz_all(inputs: int, requests: int, seed: int, kept: pathlib.Path, only: list[str]) -> dict:
    """Give every reader its share of the inputs; returns counts by reader."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    kept.mkdir(parents=True, exist_ok=True)
    # Made in a process of their own: threads of polars do not outlive a fork.
    with tempfile.TemporaryDirectory() as folder:
        written = pathlib.Path(folder, "samples.json")

        def make() -> None:
            texts = {
                n: [x.decode("latin-1") for x in found]
                for n, found in samples(written.parent).items()
            }
            written.write_text(json.dumps(texts))

        if forked(make):
            raise RuntimeError("samples could not be made")
        for name, texts in json.loads(written.read_text()).items():
            _SAMPLES[name] = tuple(text.encode("latin-1") for text in texts)
    chosen = {name: reader for name, reader in READERS.items() if not only or name in only}
    shares = sum(reader.share for reader in chosen.values())
    counts = {}
    for name, reader in chosen.items():
        counts[name] = fuzz(name, round(inputs * reader.share / shares), seed, kept)
        print(f"{name}: {counts[name]}", flush=True)
    if requests and (not only or "http" in only):
        counts["http"] = ask(requests, kept)
        print(f"http: {counts['http']}", flush=True)
    return counts


def main(argv: list[str]) -> None:
    output.check(argv)
    kept = pathlib.Path(_KEPT.value)
    start = time.monotonic()
    counts = fuzz_all(_INPUTS.value, _REQUESTS.value, _SEED.value, kept.absolute(), _READERS.value)
    total = {
        key: sum(found[key] for found in counts.values())
        for key in ("tried", "read", "refused", "crashed")
    }
    total["seconds"] = round(time.monotonic() - start, 1)
    results = {**report.provenance("polars"), "seed": _SEED.value, "total": total}
    output.write("reliability/inputs.json", results | {"readers": counts})
    print(f"total: {total}")
    sys.exit(bool(total["crashed"]))


if __name__ == "__main__":
    app.run(main)
