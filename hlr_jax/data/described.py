"""What files say of a data set besides who has what: genres of items, ratings and times.

Files are read where they are on this machine; nothing is downloaded. They are those that the data
set was made of, so ids are the same.
"""

import dataclasses
import pathlib

import polars as pl

from hlr_jax.config import DataConfig
from hlr_jax.data import features, locate, preprocessing, raw, registry, synthetic
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.registry import DatasetSpec
from hlr_jax.data.resolve import ResolvedData


def genres(config: DataConfig, dataset: Dataset) -> dict[str, list[str]]:
    """Read the genres of items by raw id, as text; none where no file names any.

    Args:
      config: that the data set was loaded by.

    Raises:
      InputError: the file with genres cannot be read.
    """
    if not _is_of(config, dataset):
        return {}
    if config.name == registry.EMBEDDED:
        return {str(item): [genre] for item, genre in enumerate(synthetic.genres())}
    spec = _spec(config)
    form = None if spec is None else spec.features
    if spec is None or form is None or not form.is_named:
        return {}
    path = locate.find_features_here(spec, form)
    return {} if path is None else features.labels(path, form)


def interactions(config: DataConfig, dataset: Dataset) -> pl.DataFrame:
    """Read all interactions of the raw files, also those that filters drop.

    Args:
      config: that the data set was loaded by.

    Returns:
      Columns `user`, `item` and, as files have them, `rating` and `timestamp`, of which at least
      one is there; no rows where no file has either. Each pair stands once.

    Raises:
      InputError: a file cannot be read.
    """
    nothing = pl.DataFrame({"user": [], "item": []})
    whole = dataclasses.replace(config, predefined="", features="")
    resolved = _resolved(whole) if _is_of(config, dataset) else None
    if resolved is None:
        return nothing
    frame = preprocessing.merge_duplicates(raw.read(whole, resolved).frame)
    return frame if {"rating", "timestamp"} & set(frame.columns) else nothing


def _resolved(config: DataConfig) -> ResolvedData | None:
    """Say what to read, if it is here and has ratings or times."""
    if config.name == registry.EMBEDDED:
        return ResolvedData(config.name, "embedded")
    if config.name == registry.OWN_FILE:
        path = pathlib.Path(config.path).expanduser()
        return ResolvedData(path.name, "own", (path,)) if path.is_file() else None
    spec = _spec(config)
    if spec is None or spec.kind != "table":
        return None
    found = locate.find_here(spec, needs_ratings=True)
    return found and ResolvedData(spec.name, spec.kind, found.files, spec=spec)


def _spec(config: DataConfig) -> DatasetSpec | None:
    return registry.specs().get(config.name)


def _is_of(config: DataConfig, dataset: Dataset) -> bool:
    """Tell whether a configuration is that of a data set, whoever gave it to a model."""
    if config.predefined:
        # As for titles: a folder with a split is of the public data set that is named beside it.
        folder = pathlib.Path(config.predefined).expanduser().resolve()
        return _spec(config) is not None and folder.name == dataset.name
    own = pathlib.Path(config.path).name if config.name == registry.OWN_FILE else config.name
    return own == dataset.name
