"""Do to runs what may happen to them, and count what does not end as it should.

  python -m benchmarks.reliability.torture --minutes=12

Programs of the command line are killed at their write points, their folders damaged file by file,
their disks filled, their clocks set back, and they are sent signals; then the same command runs
again. It must end as if nothing had happened, bit by bit, or say in one line what was lost. Ends
with 1 where one does not. --soak only watches a run of 2,000 epochs; --only=kills leaves the rest
away. Everything random is a function of --seed. Where the system allows it, the program runs in a
name space of its own, in which it may mount disks.
"""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from absl import app, flags

from benchmarks import output, own_process, report
from benchmarks.accuracy import pages
from benchmarks.reliability import damage, disks, kills, page, programs, signals, soak, trials
from benchmarks.reliability.kills import Case
from benchmarks.reliability.programs import Programs
from benchmarks.reliability.trials import Trial

_GROUPS = ("soak", "kills", "damage", "disks", "signals")
_MINUTES = flags.DEFINE_float("minutes", 12.0, "The most it may take.", lower_bound=0.5)
_SEED = flags.DEFINE_integer("seed", 0, "Of all random choices.")
_SOAK = flags.DEFINE_boolean("soak", False, "Only watch a long run.")
_EPOCHS = flags.DEFINE_integer("soak_epochs", 2000, "Of the long run.", lower_bound=100)
_ONLY = flags.DEFINE_multi_enum("only", [], _GROUPS, "What to try; everything by default.")

_FOLDER = "reliability"
_PAGE = output.ROOT / "docs" / "reliability.md"
_MAY_MOUNT = "RELIABILITY_MAY_MOUNT"


class Section(NamedTuple):
    """Trials that make a row of the table; `share` is of the time, in proportion."""

    name: str
    share: float
    trials: Sequence[Trial]


class Tried:
    """What trials need; cases are prepared when they are first asked for."""

    def __init__(self, server: Programs, scratch: pathlib.Path, seed: int) -> None:
        self.server, self.scratch, self.seed = server, scratch, seed
        data = scratch / "data.csv"
        programs.write_data(data)
        self._cases = kills.cases(data, scratch)

    def rng(self, name: str) -> random.Random:
        """Random numbers of one section, whatever the others draw."""
        return random.Random(f"{self.seed} {name}")

    def case(self, name: str) -> Case:
        """A case that has run undisturbed."""
        case = self._cases[name]
        return case if case.points else case.prepare(self.server)


def _kills(tried: Tried) -> Iterator[Section]:
    for name, count, share in (
        ("run with refit", 60, 18),
        ("sharded tables", 24, 7),
        ("two processes", 16, 9),
    ):
        found = kills.at_points(tried.case(name), count, tried.rng(name))
        if name == "run with refit":
            found += kills.again_and_again(tried.case(name), 6, tried.rng("again"))
        yield Section(f"killed: {name}", share, found)
    sweep, rng = tried.case("sweep"), tried.rng("sweep")
    found = kills.at_points(sweep, 8, rng) + kills.at_times(sweep, 12, rng)
    yield Section("killed: sweep", 7, found)


def _damage(tried: Tried) -> Iterator[Section]:
    plain, shorter = tried.case("three epochs"), tried.case("two epochs")
    folders = damage.Folders(plain, tried.server)
    found = damage.trials(folders, tried.rng("damage"))
    yield Section("a file of a folder damaged", 22, found)
    refitted = damage.Folders(tried.case("run with refit"), tried.server)
    found = damage.trials(refitted, tried.rng("damage of a refit"))
    yield Section("the same, of a run with refit", 8, found)
    found = damage.identity(folders, tried.case("another seed"))
    yield Section("what names a run deleted, another seed", 3, found)
    found = damage.shorter(plain, shorter, 6, tried.rng("shorter"))
    both = tried.case("two processes"), tried.case("two processes, one epoch")
    found += damage.shorter(*both, 8, tried.rng("shorter together"))
    yield Section("killed, then fewer epochs", 4, found)


def _disks(tried: Tried) -> Iterator[Section]:
    rng, main, short = tried.rng("disks"), tried.case("run with refit"), tried.case("three epochs")
    found = disks.raised(main, 24, rng) + disks.large_files(short)
    yield Section("writes refused: full, quota, read-only, broken", 8, found)
    if os.environ.get(_MAY_MOUNT):
        found = disks.full(short) + disks.read_only(short)
        yield Section("mounted disks: full, read-only", 4, found)
    found = disks.clocks(main, 8, rng) + disks.slow(short, 3)
    yield Section("clock going back, slow disk", 3, found)
    yield Section("two runs in one folder", 3, disks.two_at_once(short, 8, rng))


def _signals(tried: Tried) -> Iterator[Section]:
    rng, main = tried.rng("signals"), tried.case("run with refit")
    found = signals.at_times(main, 24, rng) + signals.at_points(main, 12, rng)
    found += signals.at_times(tried.case("sweep"), 9, rng)
    yield Section("SIGTERM, SIGHUP, SIGINT", 12, found)


# What makes the sections of a group, and their shares together.
_SECTIONS = {
    "kills": (_kills, 41.0),
    "damage": (_damage, 37.0),
    "disks": (_disks, 18.0),
    "signals": (_signals, 12.0),
}


def watched() -> dict[str, Any]:
    """Watch a long run, draw it, and summarise it."""
    found = own_process.run("benchmarks.reliability.soak", f"--epochs={_EPOCHS.value}")
    picture = output.folder() / _FOLDER / "soak.png"
    soak.draw(picture, found["looks"])
    fifths = soak.fifths(found["looks"])
    for name, values in fifths.items():
        print(f"  {soak.WATCHED[name]}: {values['first']:.1f}, at the end {values['last']:.1f}")
    print(f"written to {picture}", flush=True)
    return {"epochs": _EPOCHS.value, "seconds": found["seconds"], "fifths": fifths}


def tortured(groups: Sequence[str], deadline: float) -> list[dict[str, Any]]:
    """Try the sections of these groups, each within its share of the time that is left."""
    rows = []
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="torture-"))
    servers = [Programs(scratch / "cache", devices=2) for _ in range(2)]
    try:
        tried = Tried(servers[0], scratch, _SEED.value)
        left = sum(_SECTIONS[group][1] for group in groups)
        for group in groups:
            for section in _SECTIONS[group][0](tried):
                time_left = deadline - time.monotonic()
                seconds = time_left * section.share / max(left, section.share)
                left -= section.share
                rows.append(trials.run_all(section.name, section.trials, servers, seconds, _say))
    finally:
        for server in servers:
            server.close()
        shutil.rmtree(scratch, ignore_errors=True)
    return rows


def _say(text: str) -> None:
    print(text, flush=True)


def _in_own_name_space() -> None:
    """Start again where mounts are allowed, and end with this process; or go on without them."""
    if _MAY_MOUNT in os.environ or not shutil.which("unshare"):
        return
    unshared = ["unshare", "--user", "--map-root-user", "--mount"]
    probe = ["sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    if subprocess.run([*unshared, *probe], capture_output=True, check=False).returncode:
        _say("disks cannot be mounted here: these trials are left out")
        return
    os.environ[_MAY_MOUNT] = "1"
    command = [sys.executable, "-m", "benchmarks.reliability.torture", *sys.argv[1:]]
    os.execvp(unshared[0], [*unshared, *command])


def main(argv: list[str]) -> None:
    """Try, print, write, and end with 1 where something did not end as it should."""
    output.check(argv)
    if output.is_recording() and (_SOAK.value or _ONLY.value):
        raise app.UsageError("--record renews all figures; leave --soak and --only away")
    _in_own_name_space()
    started = time.monotonic()
    groups = ("soak",) if _SOAK.value else tuple(_ONLY.value) or _GROUPS
    results: dict[str, Any] = {**report.provenance("jax", "orbax-checkpoint"), "seed": _SEED.value}
    if "soak" in groups:
        results["soak"] = watched()
    if rest := [group for group in groups if group != "soak"]:
        results["sections"] = tortured(rest, started + 60 * _MINUTES.value)
    results["minutes"] = (time.monotonic() - started) / 60
    path = output.write(f"{_FOLDER}/torture.json", results)
    if "sections" not in results:
        return
    inputs = path.with_name("inputs.json")
    written = results | ({"inputs": json.loads(inputs.read_text())} if inputs.exists() else {})
    table = page.table(written)
    print(table)
    if output.is_recording():
        _PAGE.write_text(pages.render(_PAGE.read_text(), {"torture": table}))
    faults = sum(row["changed"] + row["crashed"] for row in results["sections"])
    untried = [row["name"] for row in results["sections"] if not row["tried"]]
    if untried:
        _say(f"no time was left for {', '.join(untried)}: give more --minutes")
    sys.exit(1 if faults or untried else 0)


if __name__ == "__main__":
    app.run(main)
