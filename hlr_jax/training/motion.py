"""How far a step moves the rows of the tables: a learning rate that is too high shows in that.

A geometry bounds its points, so that the loss stays finite, and even falls, at any rate. What a
row has learned is lost where every step throws it far; where points are directions, as on the
sphere, rows become so long instead that no later step turns them. Measured on the step that ends an
epoch, for some thousand rows; on the embedded data set, where a step moves rows of items by, how
long they are beside their points, and NDCG@10 on validation after 4 epochs:

    rate     CML, ball          SFCML, sphere
    0.01     .01     1  .057    .007     1  .036
    0.1      .07     1  .049    .010     5  .066
    1        .22     1  .028    .009    43  .047
    100      .39     1  .017    .001   3e3  .026
    1e9      .39     1  .020    .000  3e10  .023

The loss tells less: CML's falls by 17% with 1e9, and by 4% with 1e-4. Nor does the share of rows on
the ball's surface, which is .95 of items and all users in a well-trained LRML too.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.models.relation import Relation, embed
from hlr_jax.training.objective import Objective
from hlr_jax.types import Params

# Of each table so many rows are looked at, or up to twice as many.
SAMPLE = 4096
# A step that moves rows by this part of their length, on average, moves them by all of it in 25
# that go different ways.
MOST_MOVEMENT = 0.2
# Rows this many times as long as their points: what a step adds turns them by less than this part.
MOST_STRETCH = 1000.0
# This part of a table at 0, where a row comes to whose length overflows.
MOST_AT_ZERO = 0.5
# An optimizer's first steps are its longest. After them the rate is highest, and so many epochs are
# watched.
SETTLED_STEPS, WATCHED_EPOCHS = 30, 3


class Motion(NamedTuple):
    """What a step did to the rows of a table, of those that were looked at.

    Attributes:
      movement: how far the points that moved did, to the mean length of all.
      stretch: length of rows to that of their points, by largest coordinates.
      at_zero: part of the points that are 0.
    """

    movement: Any
    stretch: Any
    at_zero: Any

    def fault(self, table: str) -> str:
        """Say what is wrong with it; nothing if nothing is."""
        if self.at_zero > MOST_AT_ZERO:
            return f"{self.at_zero:.0%} of the rows of the {table} table have become 0"
        if self.movement > MOST_MOVEMENT:
            return (
                f"a step moves rows of the {table} table by {self.movement:.2f} of their length, "
                "and they forget what they learned"
            )
        if self.stretch > MOST_STRETCH:
            return (
                f"rows of the {table} table are {self.stretch:.0e} times as long as the points "
                "they stand for, and steps do not turn them any more"
            )
        return ""


Rows = Mapping[str, Float[Array, "..."]]
NO_ROWS: Rows = MappingProxyType({})


def is_watched(step: int, steps_per_epoch: int, warmup_steps: float) -> bool:
    """Tell whether to look at the epoch that ends with this step."""
    first = max(SETTLED_STEPS, warmup_steps)
    return first <= step < first + WATCHED_EPOCHS * steps_per_epoch


def sampled(params: Params, frozen: tuple[str, ...]) -> Rows:
    """Copy rows of those tables that are trained, evenly spaced."""
    names = [name for name in ("user", "item") if name not in frozen and params[name].size]
    return _sampled({name: params[name] for name in names})


@jax.jit
def _sampled(tables: Params) -> Rows:
    return {name: x[:: max(1, len(x) // SAMPLE)] for name, x in tables.items()}


def fault(objective: Objective, before: Rows, params: Params) -> str:
    """Say what is wrong with a step; nothing if nothing is.

    Args:
      before: the `sampled` rows before it.
      params: after it.
    """
    after = sampled(params, objective.frozen)
    found = jax.device_get(_motions(objective.model, before, after))
    return next(filter(None, (of_table.fault(name) for name, of_table in found.items())), "")


@jax.jit
def _motions(model: Relation, before: Rows, after: Rows) -> dict[str, Motion]:
    return {name: _motion(model, rows, after[name]) for name, rows in before.items()}


def _motion(model: Relation, before: Array, after: Array) -> Motion:
    # A user's row may be several vectors.
    before, after = (x.reshape(-1, model.dim) for x in (before, after))
    old, new = (embed(model, x, model.dim) for x in (before, after))
    steps, lengths = (jnp.linalg.norm(x, axis=-1) for x in (new - old, old))
    moved = jnp.sum(steps > 0, dtype=jnp.float32)
    movement = _ratio(_ratio(jnp.sum(steps), moved), jnp.mean(lengths))
    # Squares of long rows overflow.
    of_rows, of_points = (jnp.mean(jnp.max(jnp.abs(x), axis=-1)) for x in (after, new))
    at_zero = jnp.mean(jnp.all(new == 0, axis=-1), dtype=jnp.float32)
    return Motion(movement, _ratio(of_rows, of_points), at_zero)


def _ratio(x: Array, y: Array) -> Array:
    return x / jnp.where(y > 0, y, 1)
