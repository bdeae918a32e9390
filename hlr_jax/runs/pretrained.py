"""The tables that training starts from: of another run, an .npz file, or a trained model."""

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
from hlr_jax.types import Params


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
        _check_held_out(field, other.dataset.train, dataset)
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


def carried_over(params: Params, model: Relation, other: Recommender, dataset: Dataset) -> Params:
    """Start with what a trained model knows: rows of its users and items by id, and its relation.

    Rows of users and items that it does not know, or was not trained on, stay as they are drawn.

    Args:
      params: as they are drawn for the data set.
      dataset: what is trained on.

    Raises:
      InputError: the other is of another model, or was trained on what is held out here.
    """
    field = "start_from"
    shapes = {
        "model": (type(other.model).__name__, type(model).__name__),
        "config.model.dim": (other.model.dim, model.dim),
        "config.geometry.name": (*(type(x.geometry).__name__ for x in (other.model, model)),),
    }
    for name, (old, new) in shapes.items():
        if old != new:
            raise InputError(f"{field}: its {name} is {old}, not {new}; use the same")
    found = dict(params)
    known = {}
    for kind, popularity in (("user", "counts"), ("item", "popularity")):
        ids, others = (getattr(data, f"{kind}_ids") for data in (dataset, other.dataset))
        rows = getattr(dataset, f"{kind}_rows")(others.tolist())
        trained = getattr(other.dataset.train, popularity) > 0
        known[kind] = np.where(trained, rows, -1)
        is_known = known[kind] >= 0
        table = np.array(params[kind])
        table[known[kind][is_known]] = np.asarray(other.params[kind])[: len(others)][is_known]
        found[kind] = jnp.asarray(table)
        if not is_known.any():
            like = f"{ids[:1].tolist()[0]!r} and {others[:1].tolist()[0]!r}"
            raise InputError(f"{field}: no {kind} is in both data sets; ids are like {like}")
    old, new = (jax.tree.map(jnp.shape, tree["relation"]) for tree in (other.params, params))
    if old != new:
        raise InputError(f"{field}: its relation has parameters of other shapes; use its options")
    found["relation"] = jax.tree.map(jnp.copy, other.params["relation"])
    train = other.dataset.train
    users, items = known["user"][train.users], known["item"][train.items]
    both = (users >= 0) & (items >= 0)
    sizes = dataset.num_users, dataset.num_items
    _check_held_out(field, Interactions.from_pairs(users[both], items[both], *sizes), dataset)
    return found


def _check_held_out(field: str, trained: Interactions, dataset: Dataset) -> None:
    """Raise InputError where another model was trained on what is held out."""
    for part, held_out in (("validation", dataset.valid), ("test", dataset.test)):
        # A split that a data set ships may overlap with itself.
        if _common(trained, held_out) > _common(dataset.train, held_out):
            raise InputError(
                f"{field}: that run was trained on {part} interactions of this one; use one on "
                "the same split, without config.data.join_valid; or train on everything "
                "(config.data.split='none')"
            )


def _common(one: Interactions, two: Interactions) -> int:
    """Count the pairs that are in both."""
    return len(one) + len(two) - len(one.union(two))
