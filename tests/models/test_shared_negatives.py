"""Every registered model with negatives that a batch shares, against the oracle."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from cases import ITEMS, VARIANTS, Case, variants

from hlr_jax.config import LossConfig
from hlr_jax.models import History, Relation
from hlr_jax.models import relation as base
from hlr_jax.sampling.batches import Batch
from hlr_jax.training import objective
from hlr_jax.training.objective import Params

# Of a batch: an item twice, and some that users have seen. The last user but one has seen all.
POOLS = {"batch": [7, 3, 7, 0, 5, 2], "catalogue": list(range(ITEMS))}
SEEN = [{5, 7, 9}, {2}, {4, 1, 0}, set(range(ITEMS)), {6}]
WEIGHT = np.array([1.0, 0.5, 0.25, 0.75, 0.0])

LOSSES = [
    LossConfig(margin=1.5),
    LossConfig(name="closest", margin=1.5),
    LossConfig(name="closest", margin=1.5, rank_weight=True),
    LossConfig(name="semi_hard", margin=1.5),
    LossConfig(name="two_sided", margin=1.5),
    LossConfig(name="squared", margin=1.5),
    LossConfig(name="contrastive", margin=1.5),
    LossConfig(name="softmax", temperature=0.5),
]

# Those with a faster way than the definition, which the losses below are tested with.
FASTER = [
    variant
    for variant in VARIANTS
    if base.get(str(variant.values[0])).distances_to_all is not Relation.distances_to_all
]


def with_pool(case: Case, pool: list[int]) -> Case:
    """The same, whose rows all have the items of a pool as negatives."""
    case.batch["negatives"] = np.tile(pool, (len(case.users), 1))
    if case.model.uses_neighbours:
        case.batch |= case.neighbours_of(case.batch)
    return case


def pool_batch(case: Case, pool: list[int]) -> Batch:
    unseen = np.zeros((len(case.users), len(pool)), bool)
    for row, seen in enumerate(SEEN):
        unseen[row, oracles.places_that_count(pool, seen)] = True
    assert unseen.any(axis=1).tolist() == [True, True, True, False, True]
    return Batch(
        jnp.asarray(case.users, jnp.int32),
        jnp.asarray(case.batch["positives"], jnp.int32)[:, None],
        case.jax_histories(),
        jnp.asarray(WEIGHT, jnp.float32),
        jnp.asarray(pool, jnp.int32),
        jnp.asarray(unseen),
    )


@pytest.mark.parametrize(("name", "options"), FASTER)
def test_distances_to_all_are_the_oracle_s_and_have_the_gradient_of_the_definition(
    name: str, options: dict[str, Any]
) -> None:
    """The model's own, in double precision; three users with a history and one without."""
    case = with_pool(Case(name, options), POOLS["catalogue"])
    expected = case.distances(copy_relation=False)[:4, 1:]
    weights = np.random.default_rng(3).normal(size=expected.shape)

    def total(of_all: Any, relation: Params, users: Any, items: Any, rows: Any) -> Any:
        histories = case.jax_histories(slice(4))
        history = None if histories is None else History(rows, histories.mask)
        variables = {"params": relation}
        distances = case.model.apply(variables, users, items, history, method=of_all)
        return (distances * weights).sum(), distances

    def gradients(*arguments: Any) -> Any:
        """Of the definition, and of the model's own; and its distances."""
        of = jax.value_and_grad(total, (1, 2, 3, 4), has_aux=True)
        _, definition = of(Relation.distances_to_all, *arguments)
        (_, distances), own = of(type(case.model).distances_to_all, *arguments)
        return definition, own, distances

    with jax.enable_x64(True):
        params = case.read(case.jax_params(jnp.float64))
        users, items = params["user"][case.users[:4]], params["item"]
        rows = items[np.maximum(case.history[:4], 0)]
        found = jax.jit(gradients)(params["relation"], users, items, rows)
        definition, own, distances = jax.tree.map(np.asarray, found)
    np.testing.assert_allclose(distances, expected, rtol=1e-10)
    assert all(np.abs(x).max() > 0.1 for x in definition[1:3])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11), own, definition
    )


@pytest.mark.parametrize(("kind", "copy_relation"), [("batch", False), ("catalogue", True)])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_losses_with_a_pool_match_the_oracle(
    name: str, options: dict[str, Any], kind: str, copy_relation: bool
) -> None:
    """All losses for a model's default options, and one for others, which change distances only."""
    pool = POOLS[kind]
    case = with_pool(Case(name, options), pool)
    batch, distances = pool_batch(case, pool), case.distances(copy_relation)
    are_default = options == variants(name)[0]
    losses = [dataclasses.replace(loss, copy_relation=copy_relation) for loss in LOSSES]
    losses = losses if are_default else losses[-1:]

    @jax.jit
    def values(params: Params, batch: Batch) -> Any:
        found = objective.triplet_distances(case.model, copy_relation, params, batch)
        of_user, of_item = params["user"][batch.users][:, None], params["item"][batch.items]
        arguments = params["relation"], "penalty", of_user, of_item, found[:, :1]
        penalty = base.apply(case.model, *arguments)
        extra = jnp.zeros(()) if penalty is None else penalty @ batch.weight
        totals = [objective.loss_of_batch(case.model, x, ITEMS, params, batch) for x in losses]
        return found, extra, totals

    found, extra, totals = values(case.read_params(), batch)
    hidden = np.where(batch.unseen, distances[:, 1:], np.inf)
    np.testing.assert_allclose(found[:, 0], distances[:, 0], rtol=1e-5)
    np.testing.assert_allclose(found[:, 1:], hidden, rtol=1e-5, atol=1e-6)
    for loss, (total, terms) in zip(losses, totals, strict=True):
        expected = oracles.pool_loss(
            loss.name,
            distances[:, 0],
            distances[:, 1:],
            pool,
            SEEN,
            WEIGHT,
            loss.margin,
            loss.temperature,
            loss.rank_weight,
            ITEMS,
        )
        assert expected[0] > 0.1
        np.testing.assert_allclose(total, expected[0] + float(extra), rtol=1e-5)
        np.testing.assert_allclose(terms, expected[1], rtol=1e-6)
