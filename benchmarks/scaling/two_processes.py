"""Time the same steps in one process and in two that talk over gloo, in turns on one machine.

Every process is a worker: it builds its cases, prints what they are, and takes steps of the one
whose number it reads from its input, until that ends.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import timing
from benchmarks.output import ROOT

# How the processes of a run are divided: four devices both times.
SPREADS = {"1 process x 4 devices": (1, 4), "2 processes x 2 devices": (2, 2)}


class Group:
    """The worker processes of one run."""

    def __init__(self, processes: Sequence["subprocess.Popen[str]"]) -> None:
        self._processes = processes
        self.rows = self._answers()[0]

    def step(self, number: int) -> None:
        """Take the steps of a case, and wait for them."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
        self._answers()

    def _answers(self) -> list[Any]:
        return [_answer(process) for process in self._processes]


def _answer(process: "subprocess.Popen[str]") -> Any:
    """Read the next line of JSON; gloo writes other lines."""
    assert process.stdout is not None
    for line in process.stdout:
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(line)
    raise RuntimeError(f"a worker ended with code {process.wait()}; see its output")


@contextlib.contextmanager
def _started(count: int, devices: int, cases: Sequence[Any]) -> Iterator[Group]:
    """Start so many workers, with so many devices each, and stop them at the end."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("XLA", "JAX"))
    }
    environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.scaling.two_processes"]
    command += [f"--address=localhost:{port}", f"--count={count}"]
    command += [f"--cases={json.dumps(cases)}"]
    processes = [
        subprocess.Popen(
            [*command, f"--number={number}"],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        yield Group(processes)
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            process.wait(timeout=60)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(cases: Sequence[Any], rounds: int) -> list[dict[str, Any]]:
    """Measure a row for each case and each of `SPREADS`, all of them in turns."""
    with contextlib.ExitStack() as stack:
        groups = {
            name: stack.enter_context(_started(*spread, cases)) for name, spread in SPREADS.items()
        }
        calls = {
            (number, name): lambda group=group, number=number: group.step(number)
            for number in range(len(cases))
            for name, group in groups.items()
        }
        times = timing.alternate(calls, rounds)
        return [
            {
                **groups[name].rows[number],
                "processes": SPREADS[name][0],
                "milliseconds": timing.per_step(seconds, groups[name].rows[number]["steps"]),
            }
            for (number, name), seconds in times.items()
        ]


def main() -> None:
    """Run a worker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=json.loads)
    parser.add_argument("--address")
    parser.add_argument("--count", type=int)
    parser.add_argument("--number", type=int)
    arguments = parser.parse_args()

    from hlr_jax.parallel import devices, processes

    devices.keep_compiled_programs()
    if arguments.count > 1:
        processes.connect(arguments.address, arguments.count, arguments.number)

    import jax

    from benchmarks.scaling import device_cases
    from benchmarks.scaling.device_cases import Case, CaseOnDevices

    dataset = device_cases.made_up(*device_cases.DATASET)
    cases = [CaseOnDevices(Case(*case), jax.device_count(), dataset) for case in arguments.cases]
    print(json.dumps([case.described() for case in cases]), flush=True)
    for line in sys.stdin:
        cases[int(line)].step()
        print(json.dumps("done"), flush=True)


if __name__ == "__main__":
    main()
