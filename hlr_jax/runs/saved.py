"""Save a trained model as one file, with all that ranking takes, and load it anywhere."""

import dataclasses
import pathlib
import sys
from typing import Any

import jax
import numpy as np

from hlr_jax import archive
from hlr_jax import config as configs
from hlr_jax.config import Config, ShardingConfig, build
from hlr_jax.data.arrays import from_arrays, to_arrays
from hlr_jax.data.dataset import Dataset
from hlr_jax.errors import InputError
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.training.state import param_shapes
from hlr_jax.types import Params

KIND = "recommender"
_DATA, _PARAMS = "data/", "params/"


def save(path: pathlib.Path, config: Config, dataset: Dataset, params: Params) -> None:
    """Write a model, its data set and its configuration.

    Raises:
      InputError: the file cannot be written, or several processes have the tables.
    """
    if processes.count() > 1:
        raise InputError(
            "a model of several processes is saved by one; load its working directory alone, and "
            "save that"
        )
    rows = {"user": dataset.num_users, "item": dataset.num_items}
    leaves = jax.tree_util.tree_leaves_with_path(params)
    arrays = {_DATA + name: array for name, array in to_arrays(dataset).items()}
    for keys, leaf in leaves:
        name = "/".join(key.key for key in keys)
        # Sharded tables have rows that fill their shards up.
        arrays[_PARAMS + name] = np.asarray(leaf)[: rows[name]] if name in rows else leaf
    description = {"kind": KIND, "data": dataset.name, "config": configs.as_dict(config)}
    archive.write(path, description, arrays)


def load(path: pathlib.Path) -> tuple[Config, Dataset, Relation, Params, Placement]:
    """Read a model, and place it on the devices of this process.

    Raises:
      InputError: the file cannot be used, or the model is of a module that is not imported.
    """
    description, arrays = archive.read(path, KIND)
    config = _config(path, description)
    dataset = dataset_of(path, description, arrays)
    model = build.build_model(config)
    users, items = dataset.num_users, dataset.num_items
    placement = Placement.for_ranking(config.sharding, model, users, items)
    shapes = param_shapes(model, placement, dataset.num_features)

    def stored(keys: Any, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        array = arrays.get(_PARAMS + "/".join(key.key for key in keys))
        if array is None or array.shape != shape.shape:
            raise InputError(f"{path}: does not fit the model that it names; save it again")
        return array

    params = jax.tree_util.tree_map_with_path(stored, shapes)
    return config, dataset, model, placement.params(params), placement


def dataset_of(
    path: pathlib.Path, description: dict[str, Any], arrays: dict[str, np.ndarray]
) -> Dataset:
    """Rebuild the data set that a file holds.

    Raises:
      InputError: arrays are missing, or do not fit each other.
    """
    try:
        dataset = from_arrays(str(description.get("data")), archive.below(_DATA, arrays))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if dataset is None:
        raise archive.damaged(path)
    return dataset


def _config(path: pathlib.Path, description: dict[str, Any]) -> Config:
    """Read the configuration, but import nothing that a file names."""
    values = description.get("config")
    imports = values.get("imports", ()) if isinstance(values, dict) else None
    if not isinstance(imports, list | tuple) or not all(isinstance(x, str) for x in imports):
        raise archive.damaged(path)
    missing = [name for name in imports if name not in sys.modules]
    if missing:
        raise InputError(
            f"{path}: the model is of {', '.join(missing)}, which is not imported; import it "
            f"first (--import={','.join(missing)})"
        )
    try:
        config = configs.from_config_dict(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    # The devices that it was trained on are not those of this machine.
    return dataclasses.replace(config, sharding=ShardingConfig())
