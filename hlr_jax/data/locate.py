"""Find the files of data sets on this machine, and download those that are missing.

There are two folders. The data folder, `$HLR_JAX_DATA`, is only read. The cache folder takes
downloads and prepared data; it is `$HLR_JAX_CACHE`, or else `hlr_jax` below `$XDG_CACHE_HOME` or
`~/.cache`. If `$HLR_JAX_DATA` is not set, the cache folder is the data folder as well.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from hlr_jax.cache import cache_folder
from hlr_jax.data import fetch
from hlr_jax.data.registry import DatasetSpec, Download, FeatureFile, TitleFile
from hlr_jax.errors import InputError

SPLIT_PARTS = ("train", "valid", "test")


class FoundFiles(NamedTuple):
    """The files of a data set on this machine.

    Attributes:
      files: as in `DatasetSpec.files`.
      unrated: whether the first is `DatasetSpec.unrated_file` instead of the first of `files`.
    """

    files: tuple[pathlib.Path, ...]
    unrated: bool = False


def data_folder() -> pathlib.Path:
    """Return the folder in which people keep data sets; nothing is written to it."""
    own = os.environ.get("HLR_JAX_DATA")
    return pathlib.Path(own).expanduser() if own else cache_folder()


def find_dataset(spec: DatasetSpec, needs_ratings: bool, progress: bool = True) -> FoundFiles:
    """Find the files of a public data set in the data folder or the cache, or download them.

    Args:
      spec: of the data set.
      needs_ratings: if false, `spec.unrated_file` is enough.
      progress: show a bar for downloads.

    Raises:
      InputError: the files are not there and cannot be downloaded; the message says which files to
        get from where, and where to put them.
    """
    found = find_here(spec, needs_ratings)
    if found:
        return found
    reason = "it cannot be downloaded automatically"
    if spec.downloads:
        reason = _download(spec, spec.downloads, progress)
        if not reason:
            found = find_here(spec, needs_ratings)
            if found:
                return found
            reason = "the download does not hold the files expected"
    raise InputError(_missing_files_message(spec, reason, needs_ratings))


def find_predefined(name: str) -> pathlib.Path:
    """Find the folder of train and test files that `config.data.predefined` names.

    Args:
      name: a path, or a folder in the data folder or in `splits` of the data folder.

    Raises:
      InputError: there is no such folder, or it has no train and test files.
    """
    root = data_folder()
    for folder in (pathlib.Path(name).expanduser(), root / "splits" / name, root / name):
        if _has_split(folder):
            return folder
    choices = sorted(path.name for path in root.glob("splits/*") if _has_split(path))
    raise InputError(
        f"config.data.predefined={name!r}: no folder of this name holds train and test files; "
        f"give a path, or one of those in {root / 'splits'}: {', '.join(choices) or 'none there'}"
    )


def split_files(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """List the files called train, valid and test in a folder, with whatever extension."""
    return tuple(path for part in SPLIT_PARTS for path in _files_called(folder, part))


def find_titles(spec: DatasetSpec) -> tuple[pathlib.Path, TitleFile] | None:
    """Find the first file with titles of a data set that is on this machine, if there is one."""
    for folder in _folders(spec):
        for titles in spec.titles:
            if (folder / titles.file).is_file():
                return folder / titles.file, titles
    return None


def find_features_here(spec: DatasetSpec, form: FeatureFile) -> pathlib.Path | None:
    """Find the file with features of a data set's items, if it is on this machine."""
    for folder in _folders(spec):
        if (folder / form.file).is_file():
            return folder / form.file
    return None


def find_features(spec: DatasetSpec, form: FeatureFile, progress: bool = True) -> pathlib.Path:
    """Find the file with features of a data set's items, or download it.

    Raises:
      InputError: the file is not there and cannot be downloaded.
    """
    present = find_features_here(spec, form)
    if present:
        return present
    reason, address = "it is not here", spec.homepage
    if form.download:
        reason, address = _download(spec, (form.download,), progress), form.download.url
        if not reason:
            return _download_folder(spec) / form.file
    raise InputError(
        f"config.data.features='own': needs {form.file} of data set {spec.name!r}, and {reason}; "
        f"get it from {address} and put it into {data_folder() / spec.folders[0]}"
    )


def _folders(spec: DatasetSpec) -> list[pathlib.Path]:
    """List the folders that the data set may be in."""
    roots = dict.fromkeys((data_folder(), cache_folder()))
    return [root / folder for root in roots for folder in spec.folders]


def _download_folder(spec: DatasetSpec) -> pathlib.Path:
    return cache_folder() / spec.folders[0]


def _download(spec: DatasetSpec, downloads: Sequence[Download], progress: bool) -> str:
    """Download into the data set's folder of the cache; returns why that failed, or ""."""
    try:
        fetch.fetch(downloads, _download_folder(spec), progress=progress, opener=fetch.open_https)
    except fetch.FetchError as error:
        return f"downloading it did not work ({error})"
    return ""


def find_here(spec: DatasetSpec, needs_ratings: bool) -> FoundFiles | None:
    """Find the files of a public data set, if they are on this machine; see `find_dataset`."""
    for folder in _folders(spec):
        files = [_present(folder, name) for name in spec.files]
        if None not in files:
            return FoundFiles(tuple(path for path in files if path))
    unrated = None if needs_ratings else _find_unrated(spec)
    if unrated is None:
        return None
    others = [_present(unrated.parent, name) for name in spec.files[1:]]
    return FoundFiles((unrated, *(path for path in others if path)), unrated=True)


def _find_unrated(spec: DatasetSpec) -> pathlib.Path | None:
    """Find the file without ratings, in a folder that has the data set's other files too."""
    for folder in _folders(spec) if spec.unrated_file else ():
        unrated = _present(folder, spec.unrated_file)
        if unrated and all(_present(folder, name) for name in spec.files[1:]):
            return unrated
    return None


def _present(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """Return the file's path, compressed or not, if there is such a file."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def _files_called(folder: pathlib.Path, part: str) -> list[pathlib.Path]:
    return sorted(path for path in folder.glob(f"{part}.*") if path.is_file())


def _has_split(folder: pathlib.Path) -> bool:
    return all(_files_called(folder, part) for part in ("train", "test"))


def _missing_files_message(spec: DatasetSpec, reason: str, needs_ratings: bool) -> str:
    # The files to download may be more than those required: a validation part may be left out.
    names = [download.file for download in spec.downloads if download.file] or spec.files
    addresses = [download.url for download in spec.downloads] or [spec.homepage]
    message = (
        f"config.data.name={spec.name!r}: the data set is not here, and {reason}; "
        f"get {', '.join(names)} from {', '.join(addresses)} ({spec.licence}) and put "
        f"them into {data_folder() / spec.folders[0]}, or set HLR_JAX_DATA to a folder that has "
        f"them in {spec.folders[0]}"
    )
    unrated = _find_unrated(spec) if needs_ratings else None
    if unrated:
        message += (
            f", or set config.data.min_rating=0 to count every rating as positive: {unrated} "
            "is enough for that"
        )
    return message
