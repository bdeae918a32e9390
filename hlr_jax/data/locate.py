"""Where data lies on this machine, and fetching what is not there yet.

The data folder is `$HLR_JAX_DATA`; it is only read. The cache folder takes downloads and prepared
data: `$HLR_JAX_CACHE`, else `hlr_jax` below `$XDG_CACHE_HOME` or `~/.cache`. Without
`$HLR_JAX_DATA` the cache folder is the data folder too.
"""

import csv
import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

from hlr_jax.data import fetch
from hlr_jax.data.registry import Download, Features, Source, Titles
from hlr_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Found:
    """The files of a data set.

    Attributes:
      files: as in `Source.files`.
      unrated: the first of them is the data set's stand-in without ratings, an adjacency list.
    """

    files: tuple[pathlib.Path, ...]
    unrated: bool = False


def cache_folder() -> pathlib.Path:
    """Where downloads and prepared data go."""
    if own := os.environ.get("HLR_JAX_CACHE"):
        return pathlib.Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(shared).expanduser() / "hlr_jax"


def data_folder() -> pathlib.Path:
    """Where people keep data sets; never written to."""
    own = os.environ.get("HLR_JAX_DATA")
    return pathlib.Path(own).expanduser() if own else cache_folder()


def find(source: Source, needs_ratings: bool, progress: bool = True) -> Found:
    """The files of a public data set: in the data folder, in the cache, or else downloaded.

    Raises:
      InputError: they are nowhere and cannot be downloaded; the message says where to get which
        files and where to put them.
    """
    found = _find_local(source, needs_ratings)
    if found:
        return found
    reason = "it cannot be downloaded automatically"
    if source.downloads:
        reason = _fetch(source, source.downloads, progress)
        if not reason:
            found = _find_local(source, needs_ratings)
            if found:
                return found
            reason = "the download does not hold the files expected"
    raise InputError(_not_found(source, reason, needs_ratings))


def find_predefined(name: str) -> pathlib.Path:
    """The folder of predefined train and test files that `config.data.predefined` names.

    Args:
      name: a path, or a folder below `splits` of the data folder or of the data folder itself.

    Raises:
      InputError: there is no such folder, or it holds no train and test files.
    """
    root = data_folder()
    for folder in (pathlib.Path(name).expanduser(), root / "splits" / name, root / name):
        if holds_split(folder):
            return folder
    choices = sorted(path.name for path in root.glob("splits/*") if holds_split(path))
    raise InputError(
        f"config.data.predefined={name!r}: no folder of this name holds train and test files; "
        f"give a path, or one of those in {root / 'splits'}: {', '.join(choices) or 'none there'}"
    )


def holds_split(folder: pathlib.Path) -> bool:
    """Whether a folder has a train and a test file."""
    return all(split_files(folder, part) for part in ("train", "test"))


def split_files(folder: pathlib.Path, part: str) -> list[pathlib.Path]:
    """The files of `folder` called `part` and any extension."""
    return sorted(path for path in folder.glob(f"{part}.*") if path.is_file())


def find_titles(source: Source) -> tuple[pathlib.Path, Titles] | None:
    """The first table of item names of a data set that lies on this machine."""
    for folder in _candidates(source):
        for titles in source.titles:
            if (folder / titles.file).is_file():
                return folder / titles.file, titles
    return None


def find_features(source: Source, form: Features, progress: bool = True) -> pathlib.Path:
    """The file with features of a data set's items, downloaded if need be.

    Raises:
      InputError: it is nowhere and cannot be downloaded.
    """
    for folder in _candidates(source):
        if (folder / form.file).is_file():
            return folder / form.file
    reason, address = "it is not here", source.homepage
    if form.download:
        reason, address = _fetch(source, (form.download,), progress), form.download.url
        if not reason:
            return _cache_of(source) / form.file
    raise InputError(
        f"config.data.features='own': needs {form.file} of data set {source.name!r}, and {reason}; "
        f"get it from {address} and put it into {data_folder() / source.folders[0]}"
    )


def read_titles(path: pathlib.Path, form: Titles) -> dict[str, str]:
    """Titles by raw item id; lines without them are passed over.

    Raises:
      InputError: the file cannot be read.
    """
    found = {}
    try:
        with open(path, encoding=form.encoding, errors="replace", newline="") as file:
            lines = iter(file)
            if form.header:
                next(lines, None)
            # Only comma-separated tables quote their fields.
            rows = csv.reader(lines) if form.separator == "," else map(str.rstrip, lines)
            for row in rows:
                if isinstance(row, str):
                    fields = json.loads(row) if form.separator == "json" else _split(row, form)
                else:
                    fields = dict(enumerate(row))
                if form.item in fields and form.title in fields:
                    found[str(fields[form.item])] = " ".join(str(fields[form.title]).split())
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: item titles cannot be read ({error})") from error
    return found


def _split(line: str, form: Titles) -> dict[int | str, str]:
    return dict(enumerate(line.split(form.separator)))


def _cache_of(source: Source) -> pathlib.Path:
    return cache_folder() / source.folders[0]


def _fetch(source: Source, downloads: Sequence[Download], progress: bool) -> str:
    """Download into the data set's folder of the cache; why that did not work, or ""."""
    try:
        fetch.fetch(downloads, _cache_of(source), progress=progress, opener=fetch.open_https)
    except fetch.FetchError as error:
        return f"downloading it did not work ({error})"
    return ""


def _candidates(source: Source) -> list[pathlib.Path]:
    roots = dict.fromkeys((data_folder(), cache_folder()))
    return [root / folder for root in roots for folder in source.folders]


def _find_local(source: Source, needs_ratings: bool) -> Found | None:
    for folder in _candidates(source):
        files = [_present(folder, name) for name in source.files]
        if None not in files:
            return Found(tuple(path for path in files if path))
    stand_in = None if needs_ratings else _find_unrated(source)
    if stand_in is None:
        return None
    others = [_present(stand_in.parent, name) for name in source.files[1:]]
    return Found((stand_in, *(path for path in others if path)), unrated=True)


def _find_unrated(source: Source) -> pathlib.Path | None:
    for folder in _candidates(source) if source.unrated else ():
        stand_in = _present(folder, source.unrated)
        if stand_in and all(_present(folder, name) for name in source.files[1:]):
            return stand_in
    return None


def _present(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """The file, maybe compressed."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def _not_found(source: Source, reason: str, needs_ratings: bool) -> str:
    # Single files to download may be more than those that there must be, as a validation split.
    names = [download.file for download in source.downloads if download.file] or source.files
    addresses = [download.url for download in source.downloads] or [source.homepage]
    message = (
        f"config.data.name={source.name!r}: the data set is not here, and {reason}; "
        f"get {', '.join(names)} from {', '.join(addresses)} ({source.licence}) and put "
        f"them into {data_folder() / source.folders[0]}, or set HLR_JAX_DATA to a folder that has "
        f"them in {source.folders[0]}"
    )
    stand_in = _find_unrated(source) if needs_ratings else None
    if stand_in:
        message += (
            f", or set config.data.min_rating=0 to count every rating as positive: {stand_in} "
            "is enough for that"
        )
    return message
