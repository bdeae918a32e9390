"""A signal or the disk ends a program in one line, and what was written is complete."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from support.launching import CONFIG, SMALL, read

from hlr_jax import interrupts
from hlr_jax.files import disk_fault

# Before a configuration: its program is stopped when it calls what is put in a function's place.
STOP = """
import os, signal

def stop(*arguments, **named):
    os.kill(os.getpid(), signal.{signal})
    raise AssertionError("nothing happened")

{place}
"""
EXPERIMENT = "from hlr_jax.runs import experiment; experiment."
KEPT = "what was written is complete; the same command goes on"


def test_a_run_that_is_stopped_everywhere_ends_as_one_that_never_was(launch, trained, tmp_path):
    workdir, config_file = tmp_path / "run", tmp_path / "small.py"
    flags = [f"--config={config_file}", *SMALL, "--config.training.refit=True"]
    for place, name, said, folders in (
        ("stop()", "SIGTERM", KEPT, None),
        ("from hlr_jax.data import synthetic; synthetic.generate = stop", "SIGHUP", KEPT, None),
        (
            EXPERIMENT + "mean_loss = stop",
            "SIGTERM",
            "the same command goes on from the last checkpoint",
            ["latest"],
        ),
        (EXPERIMENT + "refit_folder = stop", "SIGHUP", KEPT, ["best", "latest"]),
        (EXPERIMENT + "_measured = stop", "SIGTERM", KEPT, ["best", "latest"]),
    ):
        config_file.write_text(STOP.format(signal=name, place=place) + CONFIG)
        done = launch("train", *flags, f"--workdir={workdir}", "--progress=off")
        assert done.returncode == 130, (place, done.stderr)
        assert done.stderr == f"error: interrupted ({name}); {said}\n", place
        assert workdir.exists() == (folders is not None), place
        if folders:
            assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == folders
            assert not [*workdir.rglob(".*")], place
    config_file.write_text(CONFIG)
    done = launch("train", *flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    found, expected = (read(folder / "results.json") for folder in (workdir, trained))
    assert (found["valid"], found["test"]) == (expected["valid"], expected["test"])


def test_a_second_signal_ends_a_program_at_once():
    code = """
import os, signal, time
from hlr_jax import interrupts
from hlr_jax.files import disk_fault
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Whoever runs the tests may ignore it.
with interrupts.ending_in_one_line():
    try:
        print("began", flush=True)
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
    assert process.returncode == -signal.SIGHUP


def test_a_signal_during_an_import_ends_a_program_in_one_line(tmp_path):
    """The module makes another error of what is raised in it, as extensions do."""
    (tmp_path / "module.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "except BaseException:\n    raise ImportError\n"
    )
    code = "from hlr_jax import interrupts\nwith interrupts.ending_in_one_line(): import module"
    done = ended(code, tmp_path)
    assert (done.returncode, done.stderr) == (130, f"error: interrupted (SIGTERM); {KEPT}\n")


def test_a_signal_that_python_drops_is_sent_again(tmp_path):
    """What is raised while an object is collected is dropped."""
    code = """
import os, signal, time
from hlr_jax import interrupts

class Collected:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

with interrupts.ending_in_one_line():
    collected = Collected()
    del collected
    time.sleep(60)
"""
    done = ended(code, tmp_path)
    assert (done.returncode, done.stderr) == (130, f"error: interrupted (SIGTERM); {KEPT}\n")


def test_a_program_whose_output_nobody_reads_goes_on_in_silence(trained):
    program = [sys.executable, "-m", "hlr_jax", "recommend", f"--workdir={trained}", "--users=all"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")


def ended(code, folder):
    command = [sys.executable, "-c", code]
    paths = os.pathsep.join([str(folder), *filter(None, sys.path)])
    return subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_hang_up_stops_training_unless_it_was_ignored_as_under_nohup(is_ignored):
    previous = signal.getsignal(signal.SIGHUP)
    mine = signal.SIG_IGN if is_ignored else signal.SIG_DFL
    signal.signal(signal.SIGHUP, mine)
    try:
        with interrupts.StopRequest() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.received == (not is_ignored)
        assert signal.getsignal(signal.SIGHUP) is mine
    finally:
        signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EACCES, "Permission denied", "/runs/a"), "/runs/a: Permission denied"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/runs/a"),
            "/runs/a: No space left on device; make room and repeat the command",
        ),
        (OSError("what a library says"), "what a library says"),
    ],
)
def test_an_error_of_the_disk_names_the_file(error, said):
    assert disk_fault(error) == said
