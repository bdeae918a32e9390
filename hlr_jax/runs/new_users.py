"""Users that were not trained on: fit their rows, and join them with a trained model."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from hlr_jax.config import Config, build
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation.device_groups import DeviceGroups
from hlr_jax.evaluation.ranker import PlacedRanker
from hlr_jax.evaluation.ranking import Tables
from hlr_jax.functional.losses.loss import Loss
from hlr_jax.functional.losses.softmax import Softmax
from hlr_jax.models.relation import Relation, embed
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
    return Fitting(Objective(model, loss, num_items=len(params["item"])), params, draw)


def ranker_of(
    fitting: Fitting, like: PlacedRanker, interactions: Interactions
) -> tuple[PlacedRanker, Float[np.ndarray, "u a"]]:
    """Fit new users, and place what ranks for them; return their rows too.

    Args:
      like: ranks for users that were trained.
      interactions: what the new users have.
    """
    model = fitting.objective.model
    rows = fit_users(fitting, interactions)
    points = np.asarray(embed(model, jnp.asarray(rows), model.user_width))
    if model.uses_neighbours:
        counts = np.maximum(interactions.counts, 1)[:, None]
        items = np.asarray(like.tables.params["item"])[:, : model.dim]
        sums = np.zeros((len(rows), model.dim), np.float32)
        np.add.at(sums, interactions.users, items[interactions.items])
        points = np.concatenate([points, sums / counts], axis=1)
    size = 1 << max(len(points) - 1, 0).bit_length()
    points = np.pad(points, ((0, size - len(points)), (0, 0)))
    placement = Placement.replicated(1, size, len(like.tables.params["item"]))
    groups = DeviceGroups.of(placement)
    tables = Tables(
        like.tables.model,
        like.tables.params | {"user": groups.everywhere(points)},
        groups.everywhere(DeviceInteractions.rounded(interactions)),
        like.tables.draw,
    )
    return PlacedRanker(groups, tables, like.batch_size), rows


def joined(
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
