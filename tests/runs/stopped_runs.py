"""A run that is stopped before its last epoch, and what may happen to its files."""

import pathlib

from support.small_runs import config_of, train

from hlr_jax.types import Params

EPOCHS = 4


def goes_on(workdir: pathlib.Path) -> Params:
    return train(config_of(epochs=EPOCHS), workdir)


def newest(workdir: pathlib.Path, kind: str) -> pathlib.Path:
    folder = workdir / "checkpoints" / kind
    return folder / str(max(int(path.name) for path in folder.iterdir()))


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def all_of(workdir: pathlib.Path, kind: str) -> list[pathlib.Path]:
    return files_of(workdir / "checkpoints" / kind)


def truncated(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path: pathlib.Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def gone(path: pathlib.Path) -> None:
    path.unlink()


def flipped(path: pathlib.Path, place: int = 0, bit: int = 0) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(bytes(content))
