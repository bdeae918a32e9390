"""Every registered model with negatives that a batch shares, against the oracle."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from support.cases import (
    GEOMETRIES,
    ITEMS,
    VARIANTS,
    Case,
    as_oracle_params,
    loss_name,
    numbers_of,
    with_options,
)

from hlr_jax.functional.losses import LOSSES
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.models import RELATIONS
from hlr_jax.models.relation import apply, embed_tables
from hlr_jax.training.objective import Objective, triplet_distances
from hlr_jax.training.rows import batch_gradient, gather_rows
from hlr_jax.types import Params, TripletBatch

# An item twice, and some that users have seen. The last user but one has seen all.
SHARED = [7, 3, 7, 0, 5, 2]
SEEN = [{5, 7, 9}, {2}, {4, 1, 0}, set(range(ITEMS)), {6}]
MASK = np.array([oracles.unseen_negatives(SHARED, seen) for seen in SEEN])
WEIGHT = np.array([1.0, 0.5, 0.25, 0.75, 0.0])
CATALOGUE = list(range(ITEMS))


@jax.jit
def distances_of(
    objectives: list[Objective], params: Params, batches: list[TripletBatch]
) -> list[Any]:
    found = []
    for objective, batch in zip(objectives, batches, strict=True):
        rows = gather_rows(embed_tables(objective.model, params), batch.row_ids())
        own, negatives = triplet_distances(objective, params["relation"], rows, batch)
        found.append((own, negatives.values))
    return found


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_distances_to_shared_negatives_match_the_oracle(name: str, options: dict[str, Any]) -> None:
    """Some items with relations of their own; the whole catalogue by the positive's relation."""
    case = Case(name, options)
    objectives = [Objective(case.model, Hinge(), copy_relation=copies) for copies in (False, True)]
    batches = [
        case.shared_batch(SHARED, MASK, WEIGHT),
        case.shared_batch(CATALOGUE, np.ones((5, ITEMS)), WEIGHT),
    ]
    found = distances_of(objectives, case.read_params(), batches)
    for items, copies, (own, shared) in zip((SHARED, CATALOGUE), (False, True), found, strict=True):
        expected = case.distances(copies, case.with_shared(items))
        np.testing.assert_allclose(own[:, 0], expected[:, 0], rtol=1e-5)
        np.testing.assert_allclose(shared, expected[:, 1:], rtol=1e-5, atol=1e-6)


# A model without and one with a penalty, one of a pool's own distances, one with histories.
SOME = [
    with_options(*case)
    for case in (
        ("cml", {}, "ball"),
        ("lrml", {}, "lorentz"),
        ("dpcml", {"vectors": 2, "min_diversity": 0.9, "max_diversity": 1.2}, "ball"),
        ("transcf", {}, "sphere"),
        ("hlr", {}, "ball"),
    )
]


@pytest.mark.parametrize(("name", "options", "geometry"), SOME)
def test_losses_and_gradients_with_shared_negatives_match_the_oracle(
    name: str, options: dict[str, Any], geometry: str
) -> None:
    """All losses in double precision; one gradient in a random direction."""
    case = Case(name, options, geometry)
    losses = [
        LOSSES.build(name, {"margin": 1.5} if "margin" in LOSSES.options(name) else {})
        for name in LOSSES.names()
    ]
    objectives = [Objective(case.model, loss, num_items=ITEMS) for loss in losses]

    @jax.jit
    def values(params: Params, means: Params, batch: TripletBatch) -> Any:
        read = params | {k: jnp.concatenate([params[k], x], axis=1) for k, x in means.items()}
        zeros = jax.tree.map(jnp.zeros_like, params)
        rows = gather_rows(embed_tables(case.model, read), batch.row_ids())
        own, negatives = triplet_distances(objectives[0], params["relation"], rows, batch)
        of_penalty = rows.user[:, None], rows.items, own
        penalty = apply(case.model, params["relation"], "penalty", *of_penalty) @ batch.weight
        of_losses = []
        for loss in losses:
            losses_of_rows = loss(own[:, 0], negatives), loss.num_terms(own[:, 0], negatives)
            of_losses.append([x @ batch.weight for x in losses_of_rows])
        gradient, sums = batch_gradient(objectives[0], read, batch, batch.row_ids(), zeros)
        return of_losses, penalty, gradient, sums

    with jax.enable_x64(True):
        batch = case.shared_batch(SHARED, MASK, WEIGHT, jnp.float64)
        found = values(case.jax_params(jnp.float64), case.means(jnp.float64), batch)
        of_losses, penalty, gradient, sums = jax.tree.map(np.asarray, found)
    distances = case.distances(False, case.with_shared(SHARED))
    for loss, (total, terms) in zip(losses, of_losses, strict=True):
        settings = oracles.Loss(loss_name(loss), num_items=ITEMS, **numbers_of(loss))
        expected = oracles.shared_negatives_loss(
            distances[:, 0], distances[:, 1:], SHARED, SEEN, WEIGHT, settings
        )
        assert expected[0] > 0.1
        np.testing.assert_allclose((total, terms), expected, rtol=1e-9)
    np.testing.assert_allclose(sums, (of_losses[0][0] + penalty, of_losses[0][1]), rtol=1e-9)

    if penalty:
        return  # its gradient is tested with own negatives
    direction = {k: np.random.default_rng(1).normal(size=x.shape) for k, x in case.params.items()}

    def along(t: dict[str, np.ndarray]) -> float:
        moved = Case(name, options, geometry)
        moved.params = {k: x + t["t"][0] * direction[k] for k, x in case.params.items()}
        distances = moved.distances(False, moved.with_shared(SHARED))
        settings = oracles.Loss(loss_name(losses[0]), num_items=ITEMS, **numbers_of(losses[0]))
        return oracles.shared_negatives_loss(
            distances[:, 0], distances[:, 1:], SHARED, SEEN, WEIGHT, settings
        )[0]

    expected_slope = oracles.numerical_gradient(along, {"t": np.zeros(1)})["t"]
    own = as_oracle_params(gradient)
    slope = sum((own[k] * direction[k]).sum() for k in own)
    np.testing.assert_allclose(slope, expected_slope[0], rtol=1e-6)


def test_these_are_all_losses_and_geometries() -> None:
    assert {str(case.values[2]) for case in SOME} == set(GEOMETRIES)
    assert {str(case.values[0]) for case in SOME} < set(RELATIONS.names())
