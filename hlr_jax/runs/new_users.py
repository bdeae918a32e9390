"""Users that were not trained on: fit their rows, and join them with a trained model."""

import dataclasses
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int

from hlr_jax.config import Config, build
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation.device_groups import DeviceGroups
from hlr_jax.evaluation.ranker import PlacedRanker
from hlr_jax.functional.losses.loss import Loss
from hlr_jax.functional.losses.softmax import Softmax
from hlr_jax.models.relation import Relation
from hlr_jax.parallel.placement import Placement
from hlr_jax.sampling.histories import HistoryDraw
from hlr_jax.sampling.samplers import build_sampler
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.training.fold_in import Fitting, fit_users
from hlr_jax.training.objective import Objective
from hlr_jax.types import Params

# Of the softmax that rows are fitted by where training saw a few negatives at a time.
_TEMPERATURE = 0.25


def fitting_of(config: Config, model: Relation, params: Params, draw: HistoryDraw) -> Fitting:
    """Choose what new users are fitted by.

    That is the loss they would be trained by, if training has the whole catalogue as negatives; and
    the softmax over it otherwise, whose minimum does not depend on what is drawn.

    Args:
      params: with rows followed by means of neighbours, for a model that reads these.
    """
    loss: Loss = Softmax(temperature=_TEMPERATURE)
    if build_sampler(config).is_full_catalog:
        loss = build.build_loss(config)
    objective = Objective(model, loss, num_items=len(params["item"]))
    return Fitting.of(objective, params, draw)


def ranker_of(fitting: Fitting, like: PlacedRanker, interactions: Interactions) -> PlacedRanker:
    """Fit new users, and place what ranks for them.

    Args:
      like: ranks for users that were trained.
      interactions: what the new users have.
    """
    points = fit_users(fitting, interactions).points
    placement = Placement.replicated(1, len(points), interactions.num_items)
    groups = DeviceGroups.of(placement)
    tables = like.tables._replace(
        params=like.tables.params | {"user": groups.everywhere(points)},
        history=groups.everywhere(DeviceInteractions.rounded(interactions)),
    )
    return PlacedRanker(groups, tables, like.batch_size)


def as_ids(dataset: Dataset, name: str, values: pl.Series) -> np.ndarray:
    """Convert a checked column of ids to those of a data set's users.

    Raises:
      InputError: texts cannot be among numbers.
    """
    ids = values.to_numpy()
    if dataset.user_ids.dtype.kind == "U" or ids.dtype.kind == "O":
        ids = ids.astype(np.str_)
    if ids.dtype.kind != dataset.user_ids.dtype.kind:
        raise InputError(
            f"{name}: ids are {values.dtype}, those of data set {dataset.name!r} like "
            f"{dataset.user_ids[:1].tolist()[0]!r}; convert them"
        )
    return ids


def folded(
    fitting: Fitting,
    dataset: Dataset,
    params: Params,
    pairs: tuple[np.ndarray, Int[np.ndarray, "n"]],
) -> tuple[Dataset, Params]:
    """Fit the rows of users anew, and put them among those that are known.

    Args:
      params: of the model, on the host.
      pairs: ids of users, and rows of the items that they have besides what the data set says.
    """
    changed, rows = _joined(dataset, *pairs)
    table = np.zeros((changed.num_users, params["user"].shape[1]), np.float32)
    table[np.searchsorted(changed.user_ids, dataset.user_ids)] = params["user"]
    fitted = fit_users(fitting, changed.train.of_rows(rows)).rows
    table[rows] = np.asarray(fitted)[: len(rows)]
    return changed, params | {"user": table}


def _joined(
    dataset: Dataset, users: Any, items: Int[np.ndarray, "n"]
) -> tuple[Dataset, Int[np.ndarray, "m"]]:
    """Add interactions to what is trained on, of users whom the data set may not know.

    Args:
      users: `[n]` ids, integers or texts as the data set's are.
      items: rows.

    Returns:
      The data set, and the rows of these users in it.
    """
    ids = np.union1d(dataset.user_ids, users)
    moved, new = np.searchsorted(ids, dataset.user_ids), np.searchsorted(ids, users)
    sizes = len(ids), dataset.num_items
    more = Interactions.from_pairs(new, items, *sizes)

    def of_all(part: Interactions) -> Interactions:
        return Interactions.from_pairs(moved[part.users], part.items, *sizes)

    negatives = dataset.given_negatives
    if negatives is not None:
        negatives = np.full((len(ids), negatives.shape[1]), -1, np.int32)
        negatives[moved] = dataset.given_negatives
    changed = dataclasses.replace(
        dataset,
        user_ids=ids,
        train=of_all(dataset.train).union(more),
        valid=of_all(dataset.valid).without(more),
        test=of_all(dataset.test).without(more),
        given=of_all(dataset.given),
        given_negatives=negatives,
        _stored=None,
    )
    return changed, np.unique(new)
