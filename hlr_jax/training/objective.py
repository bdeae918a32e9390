"""What training minimises: the loss of a batch, and penalties on whole tables."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Key

from hlr_jax.errors import InputError
from hlr_jax.functional import covariance_divergence, covariance_penalty, translate, uniformity
from hlr_jax.functional.losses import Loss, NegativeDistances
from hlr_jax.kernels.sizes import pair_tile
from hlr_jax.kernels.tiled_scores import tilewise
from hlr_jax.models.relation import Relation, apply, embed, embed_tables
from hlr_jax.registry import path_of
from hlr_jax.sampling import epoch_order
from hlr_jax.types import Batch, History, Params, RowIds, SharedNegatives, TripletBatch, UserBatch


class Covariance(struct.PyTreeNode):
    """A penalty on the covariance of all rows.

    Attributes:
      weight: of the penalty.
      form: off_diagonal (CML, eq. 7) or log_det (CPE, eq. 12).
    """

    weight: Any
    form: str = struct.field(pytree_node=False)

    def __call__(self, model: Relation, params: Params, step: Int[Array, ""]) -> Float[Array, ""]:
        """Compute the weighted penalty."""
        of_rows = covariance_divergence if self.form == "log_det" else covariance_penalty
        points = embed_tables(model, params)
        # A user's row may be several vectors.
        vectors = [points[name].reshape(-1, model.dim) for name in ("user", "item")]
        return self.weight * of_rows(jnp.concatenate(vectors))


class Uniformity(struct.PyTreeNode):
    """A penalty on points that are close to others: `weight` times the mean of two `uniformity`.

    DirectAU's (Wang et al., KDD 2022), of the users and of the items. Of a large table each step
    takes other vectors, drawn uniformly without replacement, the same on all devices.

    Attributes:
      weight: of the penalty, `gamma`.
      key_data: of the key that vectors are drawn by.
      most: vectors of a table that a step takes; all where it has no more.
    """

    weight: Any
    key_data: Any
    most: int = struct.field(pytree_node=False, default=1024)

    def __call__(self, model: Relation, params: Params, step: Int[Array, ""]) -> Float[Array, ""]:
        """Compute the weighted penalty."""
        points = embed_tables(model, params)
        key = jax.random.fold_in(jax.random.wrap_key_data(self.key_data), step)
        total = jnp.zeros(())
        for name, of_table in zip(("user", "item"), jax.random.split(key), strict=True):
            # A user's row may be several vectors, or none.
            chosen = self._drawn(of_table, points[name].reshape(-1, model.dim))
            if len(chosen) > 1:
                total = total + uniformity(model.geometry.pairwise(chosen, chosen))
        return self.weight / 2 * total

    def _drawn(self, key: Key[Array, ""], vectors: Float[Array, "n d"]) -> Float[Array, "m d"]:
        if len(vectors) <= self.most:
            return vectors
        bounds = jnp.asarray([0, len(vectors)], jnp.int32)
        return vectors[epoch_order.shuffled(key, jnp.arange(self.most, dtype=jnp.int32), bounds)]


class FeaturesPenalty(struct.PyTreeNode):
    """`Relation.features_penalty`, for a model that reads features of items.

    Attributes:
      features: `[I, F]` float32.
    """

    features: Any

    def __call__(self, model: Relation, params: Params, step: Int[Array, ""]) -> Float[Array, ""]:
        """Compute the penalty, which the model weighs."""
        items = embed(model, params["item"], model.dim)
        found = apply(model, params["relation"], "features_penalty", items, self.features)
        assert isinstance(found, jax.Array)
        return found


Regularizer = Covariance | Uniformity | FeaturesPenalty


class Objective(struct.PyTreeNode):
    """What training minimises. Its numbers are traced.

    Attributes:
      model, loss: of the run.
      regularizers: penalties on the parameters, added once in each step.
      num_items: size of the catalogue.
      copy_relation: whether negatives take the positive's relation instead of one of their own.
      reduction: sum over the batch, or mean over the terms of its loss.
      frozen: tables that stay as they start.
    """

    model: Relation
    loss: Loss
    regularizers: tuple[Regularizer, ...] = ()
    num_items: int = struct.field(pytree_node=False, default=0)
    copy_relation: bool = struct.field(pytree_node=False, default=False)
    reduction: str = struct.field(pytree_node=False, default="sum")
    frozen: tuple[str, ...] = struct.field(pytree_node=False, default=())


def losses_of_rows(
    objective: Objective, relation: Params, rows: RowIds, batch: Batch
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """Compute the loss of each row of a batch, and count its terms, both weighted.

    Args:
      relation: the model's own parameters.
      rows: of the tables, for each use in the batch; followed by means of neighbours, for a model
        that reads them.
    """
    points = _embedded(objective.model, rows)
    if isinstance(batch, UserBatch):
        losses, terms = _loss_of_users(objective, relation, points, batch)
    else:
        losses, terms = _loss_of_triplets(objective, relation, points, batch)
    return losses * batch.weight, terms * batch.weight


def triplet_distances(
    objective: Objective, relation: Params, points: RowIds, batch: TripletBatch
) -> tuple[Float[Array, "b n"], NegativeDistances]:
    """Measure distances of translated users: to items of their own, and to their negatives.

    The first of those is the positive.
    """
    model, user = objective.model, points.user[:, None]
    history = History(points.history, batch.history.mask)
    targets = points.items[:, :1] if objective.copy_relation else points.items
    found = apply(model, relation, "__call__", user, targets, history.for_targets())
    own = model.distances_by(found, user, points.items)
    if not isinstance(batch.negatives, SharedNegatives):
        return own, NegativeDistances(own[:, 1:], batch.negatives.mask, objective.num_items)
    if objective.copy_relation:
        translated = translate(model.first(points.user), found[:, 0])
        shared = model.geometry.pairwise(translated, model.first(points.shared))
    else:
        shared = apply(model, relation, "pairwise_distances", points.user, points.shared, history)
    return own, NegativeDistances(shared, batch.negatives.mask, objective.num_items)


def _loss_of_triplets(
    objective: Objective, relation: Params, points: RowIds, batch: TripletBatch
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """Compute the loss of each positive, and count the terms it is the sum of."""
    own, negatives = triplet_distances(objective, relation, points, batch)
    losses, terms = _of_distances(objective.loss, own[:, 0], negatives)
    user = points.user[:, None]
    return losses + apply(objective.model, relation, "penalty", user, points.items, own), terms


def _loss_of_users(
    objective: Objective, relation: Params, points: RowIds, batch: UserBatch
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """Sum the loss over all positives of each user, and count them.

    Each distance is computed once, however many positives a user has.
    """
    users, items, number = points.user, points.shared, batch.is_positive.shape[1]
    found = apply(
        objective.model, relation, "target_distances", users, items, batch.history, number
    )
    return losses_of_distances(objective, relation, users, items[:number], found, batch)


def losses_of_distances(
    objective: Objective,
    relation: Params,
    users: Float[Array, "b a"],
    targets: Float[Array, "n c"],
    distances: Float[Array, "b n"],
    batch: UserBatch,
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """Sum the loss over all positives of each user, and count them, by known distances.

    Args:
      users, targets: points, which the model's penalty is of.
      distances: of every user to every target, each left out of its own history.
      batch: says what each target is to a user; unweighted.
    """
    losses, terms = _losses_of_targets(objective, distances, batch)
    losses = losses + penalties(objective.model, relation, users, targets, distances)
    losses, terms = (jnp.where(batch.is_positive, x, 0) for x in (losses, terms))
    return jnp.sum(losses, axis=1), jnp.sum(terms, axis=1)


def _losses_of_targets(
    objective: Objective, distances: Float[Array, "b n"], batch: UserBatch
) -> tuple[Float[Array, "b n"], Float[Array, "b n"]]:
    """Compute the loss of each target as a positive, and count the terms it is the sum of."""
    loss = objective.loss
    negatives = NegativeDistances(
        distances[:, None], batch.is_negative[:, None], objective.num_items
    )
    if loss.shares_negatives:
        return _of_distances(loss, distances, negatives)

    def of_one(positive: Float[Array, "b"]) -> tuple[Array, Array]:
        of_each = NegativeDistances(distances, batch.is_negative, objective.num_items)
        return _of_distances(loss, positive, of_each)

    # A loss that has each positive beside all negatives, [b, t, n], takes some positives at a time.
    @jax.checkpoint
    def of_some(positives: Float[Array, "t b"]) -> tuple[Array, Array]:
        return jax.vmap(of_one, 0, 1)(positives)

    return tilewise(of_some, distances.T, pair_tile(distances.size))


def penalties(
    model: Relation,
    relation: Params,
    users: Float[Array, "b a"],
    targets: Float[Array, "n c"],
    distances: Float[Array, "b n"],
) -> Float[Array, "b n"]:
    """Compute `Relation.penalty` of every user with every target alone."""
    if type(model).penalty is Relation.penalty:
        return jnp.zeros_like(distances)

    def of_pair(user: Array, target: Array, distance: Array) -> Array:
        args = user[None, None], target[None, None], distance[None, None]
        found = apply(model, relation, "penalty", *args)
        assert isinstance(found, jax.Array)
        return found[0]

    # What depends on the user or the target alone is computed once for each.
    of_user = jax.vmap(of_pair, (None, 0, 0))
    return jax.vmap(of_user, (0, None, 0))(users, targets, distances)


def _of_distances(
    loss: Loss, positive: Float[Array, "*b"], negatives: NegativeDistances
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    losses, terms = loss(positive, negatives), loss.num_terms(positive, negatives)
    for name, found in (("loss", losses), ("num_terms", terms)):
        if jnp.shape(found) != positive.shape:
            raise InputError(
                f"config.loss.name: {path_of(type(loss))} returned a "
                f"{name} of shape {jnp.shape(found)}, not {positive.shape}; return one number for "
                "each positive"
            )
    return losses, terms


def _embedded(model: Relation, rows: RowIds) -> RowIds:
    """Map rows to the points that they stand for."""
    items = (embed(model, x, model.dim) for x in (rows.items, rows.history, rows.shared))
    return RowIds(embed(model, rows.user, model.user_width), *items)


def completed_gradient(
    objective: Objective,
    gradient: Params,
    terms: Float[Array, ""],
    params: Params,
    step: Int[Array, ""],
) -> Params:
    """Make the gradient of the objective from that of the summed loss: mean, penalties.

    Args:
      terms: how many the loss is the sum of.
      step: since the run began; what penalties draw depends on it.
    """
    if objective.reduction == "mean":
        # Very unequal parts of users can leave a batch empty.
        gradient = jax.tree.map(lambda x: x / jnp.where(terms > 0, terms, 1), gradient)
    for regularizer in objective.regularizers:
        more = jax.grad(lambda x, of=regularizer: of(objective.model, x, step))(params)
        gradient = jax.tree.map(jnp.add, gradient, more)
    if type(objective.model).parameter_penalty is Relation.parameter_penalty:
        return gradient
    # Of the module's own parameters alone, whichever rows of the tables a step updates.
    more = jax.grad(objective.model.parameter_penalty)(params["relation"])
    return gradient | {"relation": jax.tree.map(jnp.add, gradient["relation"], more)}


def project(objective: Objective, params: Params) -> Params:
    """Bring parameters back to where they may be: tables by the geometry, unless frozen."""
    model = objective.model

    def projected(name: str) -> Array:
        table = params[name]
        if name in objective.frozen:
            return table
        vectors = table.reshape(-1, model.dim)  # a user's row may be several
        return model.geometry.project(vectors).reshape(table.shape)

    tables = {name: projected(name) for name in ("user", "item")}
    return {**tables, "relation": model.project(params["relation"])}
