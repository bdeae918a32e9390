"""Users that were not trained on: what their rows are fitted by, and what ranks for them."""

import numpy as np
from jaxtyping import Float, Int

from hlr_jax.config import Config, build
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation.device_groups import DeviceGroups
from hlr_jax.evaluation.ranker import PlacedRanker
from hlr_jax.functional.losses.loss import Loss
from hlr_jax.functional.losses.softmax import Softmax
from hlr_jax.models.relation import Relation
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs.enlarged import replaced
from hlr_jax.sampling.histories import HistoryDraw
from hlr_jax.sampling.samplers import build_sampler
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.training.fold_in import Fitting, fit_users
from hlr_jax.training.objective import Objective
from hlr_jax.types import Params

# Of the softmax that rows are fitted by where training saw a few negatives at a time.
TEMPERATURE = 0.25


def fitting_of(config: Config, model: Relation, params: Params, draw: HistoryDraw) -> Fitting:
    """Choose what new users are fitted by.

    That is the loss they would be trained by, if training has the whole catalogue as negatives; and
    the softmax over it otherwise, whose minimum does not depend on what is drawn.

    Args:
      params: with rows followed by means of neighbours, for a model that reads these.
    """
    loss: Loss = Softmax(temperature=TEMPERATURE)
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


def with_rows_of(
    fitting: Fitting, dataset: Dataset, table: Float[np.ndarray, "u a"], rows: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "u a"]:
    """Fit some users by all that they are trained on, and put their rows into a table.

    Args:
      rows: of these users, increasing.
    """
    return replaced(table, rows, fit_users(fitting, dataset.train.of_rows(rows)).rows)
