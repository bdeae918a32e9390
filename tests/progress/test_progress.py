"""Progress as people and log files see it: bars, lines by the clock, or nothing."""

import os
import pty
import subprocess
import sys
import termios
import types

import pytest

from hlr_jax import InputError, progress, set_progress

WORK = """
from hlr_jax import progress
progress._BAR_SECONDS = 0
with progress.shown(3, "users", "ranking") as bar:
    for _ in range(3):
        bar.advance()
    bar.write("kept")
"""


@pytest.fixture(autouse=True)
def restored():
    yield
    set_progress("auto")


class Clock:
    """A clock that goes as it is told."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    set_progress("plain")
    return clock


def epoch(bar, clock, number, seconds):
    bar.describe(f"epoch {number}/8")
    for _ in range(10):
        clock.now += seconds / 10
        bar.note(loss=f"{1 / number:.2f}")
        bar.advance(20)
    bar.note(valid=f"{2 / number:.2f}")
    bar.end_part()


def test_lines_come_at_the_ends_of_epochs_at_most_every_ten_seconds(capsys, clock):
    with progress.shown(1600, "interactions") as bar:
        clock.now += 60  # compiling
        bar.begin()
        for number in range(1, 9):
            epoch(bar, clock, number, 4)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 3/8: 38%, 00:12 passed, 00:20 left, loss 0.33, valid 0.67",
        "epoch 6/8: 75%, 00:24 passed, 00:08 left, loss 0.17, valid 0.33",
        "epoch 8/8: 100%, 00:32 passed, loss 0.12, valid 0.25",
    ]


def test_a_long_epoch_gives_signs_of_life_between_its_ends(capsys, clock):
    with progress.shown(1600, "interactions") as bar:
        for number in (1, 2):
            epoch(bar, clock, number, 50)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/8: 8%, 00:30 passed, 06:10 left, loss 1.00",
        "epoch 1/8: 12%, 00:50 passed, 05:50 left, loss 1.00, valid 2.00",
        "epoch 2/8: 20%, 01:20 passed, 05:20 left, loss 0.50, valid 2.00",
        "epoch 2/8: 25%, 01:40 passed, 05:00 left, loss 0.50, valid 1.00",
    ]


def test_work_without_figures_counts(capsys, clock):
    for total in (400_000, 0):
        with progress.shown(total, "users", "ranking") as bar:
            for _ in range(4):
                clock.now += 6
                bar.advance(100_000)
    assert capsys.readouterr().err.splitlines() == [
        "ranking: 50%, 00:12 passed, 00:12 left, 200k users, 16667/s",
        "ranking: 100%, 00:24 passed, 400k users, 16667/s",
        "ranking: 00:12 passed, 200k users, 16667/s",
        "ranking: 00:24 passed, 400k users, 16667/s",
    ]
    with progress.shown(5, "trials", "tuning", done=2) as bar:
        clock.now += 40
        bar.advance()
        bar.write("trial 2 is done")
    found = capsys.readouterr()
    assert found.err == "tuning: 60%, 00:40 passed, 01:20 left, 3 trials, 40.0 s each\n"
    assert found.out == "trial 2 is done\n"


def test_short_work_and_work_that_fails_add_no_line(capsys, clock):
    with progress.shown(10, "users", "ranking") as bar:
        bar.advance(10)

    def interrupted():
        with progress.shown(10, "interactions") as bar:
            bar.note(loss="0.5")
            bar.advance()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr().err == ""


def test_off_is_off_and_so_is_what_is_not_to_be_shown(capsys, clock):
    for mode, is_asked in (("off", True), ("plain", False), ("bar", False)):
        set_progress(mode)
        with progress.shown(10, "interactions", show_progress=is_asked) as bar:
            clock.now += 100
            bar.begin()
            bar.describe("epoch 1")
            bar.note(loss="0.5")
            bar.advance()
            bar.end_part()
            bar.write("a line")
    assert capsys.readouterr() == ("", "")


def test_a_bar_names_what_is_done_and_its_figures(capsys):
    set_progress("bar")
    with progress.shown(200_000, "interactions") as bar:
        bar.describe("compiling")
        bar.begin()
        bar.describe("epoch 1/2")
        bar.note(loss="0.5")
        bar.note(loss="0.25", valid="0.75")
        bar.advance(100_000)
        bar.write("kept")
    shown = capsys.readouterr().err.split("\r")
    assert shown[1].startswith("compiling:   0%|")
    assert "0.00/200k" in shown[1]
    assert shown[-1].startswith("epoch 1/2: |")
    assert shown[-1].endswith(" left, loss 0.25, valid 0.75\n")


def test_a_terminal_gets_a_bar_and_a_pipe_does_not():
    def shown_by(**streams):
        command = [sys.executable, "-c", WORK]
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True, **streams)
        assert done.stdout == b"kept\n"
        return done.stderr

    assert shown_by(stderr=subprocess.PIPE) == b""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (25, 80))
    shown_by(stderr=theirs)
    os.close(theirs)
    assert b"ranking:   0%|" in os.read(ours, 10_000)
    os.close(ours)


def test_unknown_modes_are_refused():
    with pytest.raises(InputError, match="progress='loud': use one of auto, bar, plain, off"):
        set_progress("loud")


def test_a_notebook_is_one_that_runs_in_a_kernel(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    for shell, kind in ((types.SimpleNamespace(kernel=1), progress.Bar), (None, progress.Lines)):
        ipython = types.SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        with progress.shown(3, "users") as shown:
            assert isinstance(shown, kind)
