"""Damage every file of a run's folder, and ask for the same again."""

import json
import pathlib
import random
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.reliability.faults import Fault
from benchmarks.reliability.fork_server import Program
from benchmarks.reliability.kills import Case, is_in_save
from benchmarks.reliability.programs import Programs
from benchmarks.reliability.trials import Outcome, Trial, judged

# What is done to a file, by name; None deletes it.
Damage = Callable[[bytes, random.Random], bytes | None]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return b"\x01"
    place, changed = rng.randrange(len(content)), bytearray(content)
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _other_digit(content: bytes, rng: random.Random) -> bytes:
    """Change one digit of a text; of other files, a byte."""
    digits = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    if not digits or not content.isascii():
        return _flipped(content, rng)
    place = rng.choice(digits)
    other = rng.choice([d for d in b"123456789" if d != content[place]])
    return content[:place] + bytes([other]) + content[place + 1 :]


def _without_a_line(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(lines[:-1]) if rng.random() < 0.5 else b"".join(lines[1:])


DAMAGES: Mapping[str, Damage] = {
    "emptied": lambda content, rng: b"",
    "cut in half": lambda content, rng: content[: len(content) // 2],
    "cut by a byte": lambda content, rng: content[:-1],
    "zeroed": lambda content, rng: bytes(len(content)),
    "a bit flipped": _flipped,
    "a digit changed": _other_digit,
    "a line lost": _without_a_line,
    "lines doubled": lambda content, rng: content + content,
    "deleted": lambda content, rng: None,
}
# Those of text files of records alone.
OF_LINES = ("a line lost", "lines doubled")
KINDS = {
    "truncated": ("emptied", "cut in half", "cut by a byte", *OF_LINES),
    "zeroed": ("zeroed",),
    "flipped": ("a bit flipped", "a digit changed"),
    "deleted": ("deleted",),
}


class Folders:
    """A finished and an interrupted folder of a run, and what its commands answer.

    Attributes:
      evaluated: what evaluate writes of the finished folder, and its tables.
    """

    def __init__(self, case: Case, server: Programs) -> None:
        self.case = case
        self.finished, self.interrupted = case.whole, _interrupted(case, server)
        self.evaluated = self.evaluate(server, self.finished)[1]()

    def evaluate(self, server: Programs, folder: pathlib.Path) -> tuple[Any, Callable[[], Any]]:
        """Evaluate a model; returns how that ended, and what reads metrics and tables."""
        output = folder.with_name(folder.name + ".json")
        argv = ["evaluate", f"--workdir={folder}", f"--output={output}"]
        (ended,) = server.run(Program(argv, tables=str(folder)))
        return ended, lambda: [json.loads(output.read_text()), ended.tables]


def _interrupted(case: Case, server: Programs) -> pathlib.Path:
    """Kill a run in its last save before the refit or the end, so that it has an older checkpoint.

    Runs do not save equally often: one that ends before the point is killed in an earlier save.
    """
    saves = [n for n, point in enumerate(case.points, 1) if "os.rename checkpoints" in point]
    for point in (*reversed(saves), len(case.points) // 2):
        folder = case.new_folder("stopped")
        ended = server.run(*case.programs(folder, Fault("kill", str(folder), point)))
        if ended[0].code == -9:
            return folder
    raise RuntimeError(f"{case.name}: no run could be killed at a write point")


def trials(folders: Folders, rng: random.Random) -> list[Trial]:
    """List a trial for every file, damage and command, in random order.

    At the front is one of each kind of damage for every file, so that none is left out where there
    is no time for all.
    """
    first, later = [], []
    for folder in (folders.interrupted, folders.finished):
        commands = ["train"] if folder == folders.interrupted else ["train", "evaluate"]
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            for kind in KINDS.values():
                tried = [
                    _damaged(folders, command, folder, (str(path.relative_to(folder)), name), seed)
                    for command in commands
                    for name in kind
                    if path.suffix == ".jsonl" or name not in OF_LINES
                    for seed in [rng.random()]
                ]
                rng.shuffle(tried)
                first += tried[:1]
                later += tried[1:]
        first += [_swapped(folders, command, folder, rng.random()) for command in commands * 6]
    rng.shuffle(first)
    rng.shuffle(later)
    return first + later


def _damaged(
    folders: Folders, command: str, folder: pathlib.Path, where: tuple[str, str], seed: float
) -> Trial:
    name, damage = where

    def change(copy: pathlib.Path) -> None:
        changed = DAMAGES[damage]((copy / name).read_bytes(), random.Random(seed))
        if changed is None:
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(changed)

    which = "finished" if folder == folders.finished else "interrupted"
    label = f"{which} folder, {name} {damage} (seed {seed}), then {command}"
    return Trial(label, lambda server: _tried(folders, server, command, folder, change))


def _swapped(folders: Folders, command: str, folder: pathlib.Path, seed: float) -> Trial:
    """Put the file of one array or table in another's place, as a bad copy may."""
    rng = random.Random(seed)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    one = rng.choice(files)
    others = [path for path in files if path.suffix == one.suffix and path != one]
    other = rng.choice(others or files)
    names = [str(path.relative_to(folder)) for path in (one, other)]

    def change(copy: pathlib.Path) -> None:
        shutil.copyfile(copy / names[0], copy / names[1])

    label = f"{command}, {names[1]} overwritten by {names[0]}"
    return Trial(label, lambda server: _tried(folders, server, command, folder, change))


def _tried(
    folders: Folders,
    server: Programs,
    command: str,
    folder: pathlib.Path,
    change: Callable[[pathlib.Path], None],
) -> Outcome:
    copy = folders.case.new_folder("damaged")
    shutil.copytree(folder, copy)
    change(copy)
    if command == "train":
        outcome = folders.case.finish(server, copy)
    else:
        ended, found = folders.evaluate(server, copy)
        outcome = judged(ended, folders.evaluated, found)
    shutil.rmtree(copy)
    return outcome


def identity(folders: Folders, other: Case) -> list[Trial]:
    """Take away what says whose folder it is, and ask for a run with another seed."""
    gone = (["config.json"], ["dataset.json"], ["config.json", "dataset.json", "metrics.jsonl"])
    return [
        _other_seed(folders, other, folder, names)
        for folder in (folders.interrupted, folders.finished)
        for names in gone
    ]


def _other_seed(folders: Folders, other: Case, folder: pathlib.Path, names: list[str]) -> Trial:
    def run(server: Programs) -> Outcome:
        copy = other.new_folder("others")
        shutil.copytree(folder, copy)
        for name in names:
            (copy / name).unlink(missing_ok=True)
        outcome = other.finish(server, copy)
        shutil.rmtree(copy)
        return outcome

    which = "finished" if folder == folders.finished else "interrupted"
    return Trial(f"{which} folder without {', '.join(names)}, another seed", run)


def shorter(longer: Case, other: Case, count: int, rng: random.Random) -> list[Trial]:
    """Kill a run in its last saves, then ask for one of fewer epochs in the same folder."""
    inside = [n for n, point in enumerate(longer.points, 1) if is_in_save(point)]
    last = inside[len(inside) // 2 :]
    return [_shorter(longer, other, n) for n in rng.sample(last, min(count, len(last)))]


def _shorter(longer: Case, other: Case, number: int) -> Trial:
    def run(server: Programs) -> Outcome:
        folder = longer.new_folder("shorter")
        server.run(*longer.programs(folder, Fault("kill", str(folder), number)))
        outcome = other.finish(server, folder)
        shutil.rmtree(folder, ignore_errors=True)
        return outcome

    return Trial(f"{longer.name}, killed at write point {number}, then fewer", run)
