"""Run launchers in forks of one process, which has imported what they all import.

Reads a line of JSON for each run, `[program, *flags]`, and answers with one: the exit code, and the
text of both outputs. A fork runs as a program of its own, but starts a second earlier.
"""

import json
import os
import pathlib
import runpy
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence

# Heavy, and used by all of them. Not polars, whose threads do not survive a fork.
import flax.linen  # noqa: F401
import jax  # noqa: F401
import ml_collections  # noqa: F401
import optax  # noqa: F401
import orbax.checkpoint  # noqa: F401


def run(arguments: Sequence[str]) -> int:
    """Run a launcher to its end, in this process, and return its exit code."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Whoever runs the tests may ignore it.
    program = pathlib.Path("launch", f"{arguments[0]}.py")
    sys.argv = [str(program), *arguments[1:]]
    sys.path[0] = str(program.parent.absolute())
    try:
        runpy.run_path(str(program), run_name="__main__")
    except SystemExit as end:
        code = end.code
        return code if isinstance(code, int) else int(code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def fork(arguments: Sequence[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if not child:
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            code = run(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), output.read(), errors.read()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(fork(json.loads(line))), flush=True)
