"""A data set with more interactions, of users and items that it may not know."""

import dataclasses
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Array

from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.types import Params


def as_ids(dataset: Dataset, role: str, name: str, values: pl.Series) -> np.ndarray:
    """Convert a checked column of ids to those that a data set has.

    Args:
      role: user or item.
      name: of the column.

    Raises:
      InputError: texts cannot be among numbers.
    """
    known, ids = getattr(dataset, f"{role}_ids"), values.to_numpy()
    if known.dtype.kind == "U" or ids.dtype.kind == "O":
        ids = ids.astype(np.str_)
    if ids.dtype.kind != known.dtype.kind:
        raise InputError(
            f"{name}: ids are {values.dtype}, those of data set {dataset.name!r} like "
            f"{known[:1].tolist()[0]!r}; convert them"
        )
    return ids


def enlarged(dataset: Dataset, users: np.ndarray, items: np.ndarray) -> Dataset:
    """Add interactions to what is trained on, and take them out of validation and test.

    They count as the latest, in the order in which they stand. New items have no title, and zeros
    as features.

    Args:
      users, items: `[n]` ids, integers or texts as the data set's are.
    """
    user_ids, item_ids = (
        np.union1d(dataset.user_ids, users),
        np.union1d(dataset.item_ids, items),
    )
    of_users = np.searchsorted(user_ids, dataset.user_ids)
    of_items = np.searchsorted(item_ids, dataset.item_ids)
    sizes = len(user_ids), len(item_ids)
    new = np.searchsorted(user_ids, users), np.searchsorted(item_ids, items)
    more = Interactions.from_pairs(*new, *sizes, dataset.later(len(users)))

    def of_all(part: Interactions) -> Interactions:
        pairs = of_users[part.users], of_items[part.items]
        return Interactions.from_pairs(*pairs, *sizes, part.times)

    train = of_all(dataset.train)
    if more.times.size:
        train = train.without(more)  # What comes again is as late as the rest.
    found: dict[str, Any] = {}
    negatives = dataset.given_negatives
    if negatives is not None:
        found["given_negatives"] = np.full((sizes[0], negatives.shape[1]), -1, np.int32)
        found["given_negatives"][of_users] = np.where(negatives >= 0, of_items[negatives], -1)
    for name in ("item_titles", "features"):
        values = getattr(dataset, name)
        if values is not None:
            found[name] = moved(values, dataset.item_ids, item_ids)
    return dataclasses.replace(
        dataset,
        user_ids=user_ids,
        item_ids=item_ids,
        train=train.union(more),
        valid=of_all(dataset.valid).without(more),
        test=of_all(dataset.test).without(more),
        given=of_all(dataset.given),
        _stored=None,
        **found,
    )


def with_rows_for(
    dataset: Dataset, params: Params, users: np.ndarray, items: np.ndarray
) -> tuple[Dataset, Params]:
    """Add interactions, and rows of zeros to the tables for users and items that are new."""
    more = enlarged(dataset, users, items)
    tables = {
        "user": moved(params["user"], dataset.user_ids, more.user_ids),
        "item": moved(params["item"], dataset.item_ids, more.item_ids),
    }
    return more, params | tables


def replaced(table: np.ndarray, rows: np.ndarray, fitted: Array) -> np.ndarray:
    """Return a table with other rows at some places.

    Args:
      rows: the places.
      fitted: rows in the order of the places; what follows them fills up.
    """
    found = table.copy()
    found[rows] = np.asarray(fitted)[: len(rows)]
    return found


def moved(table: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Put rows of a table to where their ids are among more of these; others are zero or empty.

    Args:
      old, new: ids, increasing; the new ones have all of the old.
    """
    found = np.zeros((len(new), *table.shape[1:]), table.dtype)
    found[np.searchsorted(new, old)] = table
    return found
