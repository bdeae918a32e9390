"""Show what the cache folder holds, or clear it.

  hlr-jax cache
  hlr-jax cache --clear=programs,data   (and downloads, if you name them)

Everything there can be had again: programs are compiled again, data are prepared and downloads
fetched again. Programs and prepared data are bounded, each by HLR_JAX_CACHE_MB; those used longest
ago go first. Do not clear data that a run on another machine is using.
"""

import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence

from absl import flags

from hlr_jax import cache, cli, facts
from hlr_jax.errors import InputError

_KINDS = ("programs", "data", "downloads")
_CLEAR = flags.DEFINE_list("clear", [], f"What to remove: {', '.join(_KINDS)}, or some of them.")


def main() -> None:
    """Clear what is asked for, and say what there is."""
    cli.say(told(_CLEAR.value))


def told(kinds: Sequence[str] = ()) -> str:
    """Remove what is of these kinds, and describe what is left.

    Raises:
      InputError: there is no such kind, or downloads lie where the user keeps data sets.
      OSError: something cannot be removed.
    """
    for kind in kinds:
        if kind not in _KINDS:
            raise InputError(f"--clear={kind}: use {', '.join(_KINDS)}, or some of them")
    held, lines = _held(), []
    if "downloads" in kinds:
        _check_downloads()
    for kind in dict.fromkeys(kinds):
        lines.append(f"cleared {kind}: {_megabytes(held[kind])}")
        for path in held[kind]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    limit = f" of at most {cache.cache_limit() // 10**6} MB (HLR_JAX_CACHE_MB)"
    described = {
        kind: _megabytes(paths) + (limit if kind != "downloads" else "") + _counted(paths)
        for kind, paths in _held().items()
    }
    title = f"{cache.cache_folder()} (HLR_JAX_CACHE)"
    return "\n".join([*lines, facts.as_text(title, described)])


def _held() -> Mapping[str, list[pathlib.Path]]:
    """List the files and folders of each kind; what is of none is not the library's."""
    from hlr_jax.data import registry

    folder = cache.cache_folder()
    own = sorted(folder.iterdir()) if folder.is_dir() else []
    fetched = {folder / spec.folders[0] for spec in registry.specs().values()}
    unfinished = tuple(f".{path.name}-" for path in fetched)
    prepared = folder / cache.PREPARED
    return {
        "programs": [
            file for path in own if path.name.startswith(cache.COMPILED) for file in path.iterdir()
        ],
        "data": [
            *(prepared.iterdir() if prepared.is_dir() else []),
            *(path for path in own if path.name == cache.FINGERPRINTS),
        ],
        "downloads": [
            *sorted(path for path in fetched if path.is_dir()),
            # Of downloads that were interrupted.
            *(path for path in own if path.suffix == ".part" or path.name.startswith(unfinished)),
        ],
    }


def _check_downloads() -> None:
    from hlr_jax.data import locate

    own = os.environ.get("HLR_JAX_DATA")
    if own and locate.data_folder().resolve() == cache.cache_folder().resolve():
        raise InputError(
            f"--clear=downloads: HLR_JAX_DATA names {cache.cache_folder()} too; remove by hand "
            "what you do not need"
        )


def _megabytes(paths: Sequence[pathlib.Path]) -> str:
    return f"{sum(map(cache.disk_bytes, paths)) / 10**6:.1f} MB"


def _counted(paths: Sequence[pathlib.Path]) -> str:
    return f", {len(paths)} {'entry' if len(paths) == 1 else 'entries'}"
