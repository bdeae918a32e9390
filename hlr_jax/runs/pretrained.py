"""Read the tables that training starts from, out of another run or an .npz file."""

import pathlib
import zipfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from hlr_jax.config import Config
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.models.relation import Relation
from hlr_jax.runs.recommender import Recommender


def pretrained_tables(config: Config, model: Relation, dataset: Dataset) -> dict[str, jax.Array]:
    """Read the tables `user` and `item` that `config.training.pretrained` holds.

    That is the working directory of another run on the same data, or an .npz file with
    arrays `user [U, d]` and/or `item [I, d]`, rows in the order of the data set's ids. Where users
    have no rows, in that run or in this one, `user` is left out.

    Raises:
      InputError: it cannot be read, or users, items or embedding size differ.
    """
    path = pathlib.Path(config.training.pretrained)
    field = f"config.training.pretrained={str(path)!r}"
    if path.is_dir():
        # What is chosen on validation must not have been trained on it.
        other = Recommender.load(path, refitted=config.data.join_valid)
        for kind in ("user_ids", "item_ids"):
            if not np.array_equal(getattr(other.dataset, kind), getattr(dataset, kind)):
                raise InputError(f"{field}: that run has other {kind}; use one on the same data")
        for part, held_out in (("validation", dataset.valid), ("test", dataset.test)):
            # A split that a data set ships may overlap with itself.
            if _common(other.dataset.train, held_out) > _common(dataset.train, held_out):
                raise InputError(
                    f"{field}: that run was trained on {part} interactions of this one; use one on "
                    "the same split, without config.data.join_valid"
                )
        found = {name: np.asarray(other.params[name]) for name in ("user", "item")}
        found = {name: table for name, table in found.items() if table.size}
    else:
        try:
            # Opened here: NumPy leaves a damaged archive open. What is not an archive, an .npy
            # file for one, raises TypeError.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in ("user", "item") if name in arrays}
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{field}: not a run's folder or an .npz file ({error})") from None
    sizes = {"user": (dataset.num_users, model.user_width), "item": (dataset.num_items, model.dim)}
    found = {name: table for name, table in found.items() if sizes[name][1]}
    if not found:
        raise InputError(f"{field}: it holds neither an array 'user' nor 'item' of this model")
    for name, wanted in sizes.items():
        if name in found and found[name].shape != wanted:
            raise InputError(f"{field}: {name} has shape {found[name].shape}, expected {wanted}")
    return {name: jnp.asarray(table, jnp.float32) for name, table in found.items()}


def _common(one: Interactions, two: Interactions) -> int:
    """Count the pairs that are in both."""
    return len(one) + len(two) - len(one.union(two))
