"""Batches of a relation whose gradients are written down in a line, and updates row by row."""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import oracles
from jaxtyping import Array, Float
from support.quadratic import Tables

from hlr_jax.config import OptimizerConfig
from hlr_jax.models import Relation
from hlr_jax.types import History, HistoryIds, PerExampleNegatives, TripletBatch


class MeanOfHistory(Relation):
    """`r = shift + mean of the history's rows`: gradients of it are written down in a line."""

    uses_history: ClassVar[bool] = True

    @nn.compact
    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        shift = self.param("shift", nn.initializers.zeros, (1, self.dim), jnp.float32)
        count = jnp.maximum(history.mask.sum(-1, dtype=jnp.float32), 1)
        mean = jnp.where(history.mask[..., None], history.rows, 0).sum(-2) / count[..., None]
        shift = shift.reshape((1,) * (mean.ndim - 1) + (-1,))
        return jnp.broadcast_to(shift + mean, jnp.broadcast_shapes(user.shape, item.shape))


DIM, ROWS, PLACES, RADIUS, MARGIN = 4, 5, 3, 1.0, 0.6
# A batch uses 5 users and up to 30 items. The tables have fewer rows than that, or more.
SIZES = {"small": (4, 12), "large": (40, 70)}


def batches(size: str, steps: int = 6) -> list[dict[str, np.ndarray]]:
    """With repeated rows. Padding and masked places say 0; row 0 itself is used in step 3 alone."""
    rng = np.random.default_rng(8)
    num_users, num_items = SIZES[size]
    found = []
    for step in range(steps):
        # From few rows, so that they come again in later steps.
        users = rng.integers(1, min(num_users, 8), size=ROWS)
        items = rng.integers(1, min(num_items, 16), size=(ROWS, 3))
        users[1] = users[0]
        items[0, 2] = items[0, 1]  # negatives that coincide
        items[1] = items[0, ::-1]  # the negatives of one row are the positive of another
        mask = rng.random((ROWS, PLACES)) < 0.6
        mask[0], mask[2] = True, False
        history = rng.integers(1, min(num_items, 16), size=mask.shape)
        weight = np.ones(ROWS)
        if step == 3:
            users[3], items[3, 1] = 0, 0
        else:
            users[4], items[4], history[4], weight[4] = 0, 0, 0, 0
            mask[4] = step % 2 == 0  # A place counts for nothing in a row that does not.
        history = np.where(mask, history, 0)
        parts = {"users": users, "items": items, "history": history, "mask": mask, "weight": weight}
        found.append(parts)
    return found


def as_batch(batch: dict[str, np.ndarray]) -> TripletBatch:
    users, items, history = (
        jnp.asarray(batch[name], jnp.int32) for name in ("users", "items", "history")
    )
    negatives = PerExampleNegatives(items[:, 1:], jnp.ones((ROWS, 2), bool))
    histories = HistoryIds(history, jnp.asarray(batch["mask"]))
    weight = jnp.asarray(batch["weight"], jnp.float32)
    return TripletBatch(users, items[:, 0], negatives, histories, weight)


RowId = tuple[str, int]


def row_gradients(rows: dict[RowId, np.ndarray], batch: dict[str, np.ndarray]) -> dict[RowId, Any]:
    """The gradient of each row that the batch uses, 0 where no hinge is active."""
    found: dict[RowId, Any] = {("shift", 0): np.zeros(DIM)}

    def add(row: RowId, gradient: np.ndarray | float) -> None:
        found[row] = found.get(row, np.zeros(DIM)) + gradient

    for b in range(ROWS):
        if not batch["weight"][b]:
            continue
        user, positive = ("user", batch["users"][b]), ("item", batch["items"][b, 0])
        places = [("item", item) for item in batch["history"][b][batch["mask"][b]]]
        moved = rows[user] + rows["shift", 0]
        if places:
            moved = moved + np.mean([rows[place] for place in places], axis=0)
        for row in [user, positive, *places]:
            add(row, 0.0)
        for j in batch["items"][b, 1:]:
            near, far = moved - rows[positive], moved - rows["item", j]
            active = near @ near - far @ far + MARGIN > 0
            add(("item", j), active * 2 * far)
            add(positive, active * -2 * near)
            for row in (user, ("shift", 0)):
                add(row, active * 2 * (near - far))
            for place in places:
                add(place, active * 2 * (near - far) / len(places))
    return found


def counts_of(tables: Tables) -> dict[str, np.ndarray]:
    """Made-up numbers of interactions of each row: 0 to 6."""
    return {name: np.arange(len(table)) * 5 % 7 for name, table in tables.items()}


def row_wise(
    config: OptimizerConfig, start: Tables, batches: list[Any], frozen: str = ""
) -> list[Tables]:
    """Tables after each step; each row has a state of its own, changed when it is used."""
    rows = {(name, n): row for name, table in start.items() for n, row in enumerate(table)}
    counts = counts_of({name: x for name, x in start.items() if name != "shift"})
    factors = {
        (name, n): factor
        for name, of_rows in counts.items()
        for n, factor in enumerate(oracles.decay_factors(of_rows, config.weight_decay_exponent))
    }
    states: dict[RowId, np.ndarray] = {}
    visited = []
    for t, batch in enumerate(batches):
        gradients = row_gradients(rows, batch)
        gradients = {row: g for row, g in gradients.items() if row[0] != frozen}
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        scale = min(1.0, config.gradient_clip / norm) if config.gradient_clip else 1.0
        rate = config.learning_rate
        if config.schedule == "exponential":
            rate *= config.decay_rate ** (t // 2)
        for row, g in gradients.items():
            g, x = scale * g, rows[row]
            if config.name == "sgd":
                step = g
            elif config.name == "adagrad":
                states[row] = states.get(row, np.full(DIM, 0.1)) + g**2
                step = g / np.sqrt(states[row] + 1e-7)
            else:
                m, v = states.get(row, np.zeros((2, DIM)))
                states[row] = np.stack([0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2])
                m, v = states[row] / [[1 - 0.9 ** (t + 1)], [1 - 0.999 ** (t + 1)]]
                step = m / (np.sqrt(v) + 1e-8)
                if config.name == "adamw":
                    step = step + config.weight_decay * factors.get(row, 1.0) * x
            moved = x - rate * step
            rows[row] = moved if row[0] == "shift" else oracles.project(moved, RADIUS)
        visited.append(
            {name: np.array([rows[name, n] for n in range(len(x))]) for name, x in start.items()}
        )
    return visited


def tables_of_size(size: str, scale: float = 0.6) -> Tables:
    """Some rows are outside of the ball, where they stay until they are used."""
    rng = np.random.default_rng(9)
    sizes = dict(zip(("user", "item"), SIZES[size], strict=True)) | {"shift": 1}
    tables = {name: scale * rng.normal(size=(number, DIM)) for name, number in sizes.items()}
    return {name: table.astype(np.float32).astype(np.float64) for name, table in tables.items()}
