"""Items that were not trained on: which can be fitted, and by what."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from hlr_jax.config import Config
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.functional.losses.softmax import Softmax
from hlr_jax.models.relation import Relation
from hlr_jax.runs.enlarged import replaced
from hlr_jax.runs.new_users import TEMPERATURE
from hlr_jax.training.fold_in import Fitting
from hlr_jax.training.fold_in_items import ItemFitting, fit_items, prepare
from hlr_jax.training.objective import Objective


class Pairs(NamedTuple):
    """Interactions by ids as a data set has them.

    Attributes:
      users, items: `[n]`.
    """

    users: np.ndarray
    items: np.ndarray

    def of(self, chosen: Bool[np.ndarray, "n"]) -> "Pairs":
        return Pairs(self.users[chosen], self.items[chosen])


def item_fitting_of(config: Config, of_users: Fitting, dataset: Dataset) -> ItemFitting:
    """Choose what new items are fitted by: the softmax over the catalogue.

    Its temperature is that of training, if it is what was trained by.

    Args:
      of_users: what new users are fitted by.
    """
    model, loss = of_users.objective.model, of_users.objective.loss
    if not isinstance(loss, Softmax):
        loss = Softmax(temperature=TEMPERATURE)
    objective = Objective(model, loss, num_items=dataset.num_items)
    exponent = config.loss.user_weight_exponent
    return prepare(objective, of_users.params, of_users.draw, dataset.train, exponent)


def fittable(dataset: Dataset, model: Relation, pairs: Pairs, unknown: str) -> tuple[Pairs, Pairs]:
    """Say which pairs new items are fitted by, of those that any row can be fitted by.

    Args:
      unknown: `error`, or `popular` to leave out items of which nothing is known.

    Returns:
      What is left of the pairs; and those of them that are of new items with users of training.

    Raises:
      InputError: nobody who has a new item was trained on, or the model needs more of an item.
    """
    rows = dataset.item_rows(pairs.items.tolist())
    is_new = (rows < 0) | (dataset.popularity[rows] == 0)
    users = dataset.user_rows(pairs.users.tolist())
    says = is_new & (users >= 0) & (dataset.train.counts[users] > 0)
    if model.uses_features and is_new.any():
        raise InputError(
            f"item {_first(pairs.items, is_new)!r} was not trained on, and the model reads "
            "features of items, which a frame has none of; train with it"
        )
    lacks = is_new & ~np.isin(pairs.items, pairs.items[says])
    if lacks.any() and unknown == "error":
        raise InputError(
            f"item {_first(pairs.items, lacks)!r} was not trained on, nor was anybody who has it, "
            "so that nothing is known of it; leave it out, or use unknown='popular', which does"
        )
    return pairs.of(~lacks), pairs.of(says)


def _first(ids: np.ndarray, chosen: Bool[np.ndarray, "n"]) -> int | str:
    return ids[chosen].tolist()[0]


def with_rows_of(
    fitting: ItemFitting,
    table: Float[np.ndarray, "i d"],
    rows: Int[np.ndarray, "n"],
    who: Interactions,
) -> Float[np.ndarray, "i d"]:
    """Fit some items, and put their rows into a table.

    Args:
      rows: of these items.
      who: users of training who have them, of each of these items.
    """
    return replaced(table, rows, fit_items(fitting, who))
