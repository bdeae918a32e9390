"""Steps that take users with all of their interactions at once."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from support.cases import ITEMS, Case, loss_name, numbers_of
from support.interactions import ITEMS_OF, TRAIN, interactions, sampling_source
from support.small_runs import (
    assert_same,
    config_of,
    interrupt_after,
    planted,
    read_log,
)

from hlr_jax.config import Config, LossConfig, SamplingConfig
from hlr_jax.functional.losses import Loss
from hlr_jax.functional.losses.contrastive import Contrastive
from hlr_jax.functional.losses.sfcml import SFCML
from hlr_jax.functional.losses.softmax import Softmax
from hlr_jax.runs import experiment
from hlr_jax.runs.recommender import Recommender
from hlr_jax.sampling.batches import Drawing, draw_batch
from hlr_jax.sampling.samplers import FullCatalog
from hlr_jax.sampling.sources import TripletSource, UserSource, union_of_splits
from hlr_jax.training import rows
from hlr_jax.training.inputs import shuffled_rows, training_positives
from hlr_jax.training.objective import Objective
from hlr_jax.types import Params, UserBatch

# Some have one, several and all items; the third has none and is never a row.
LIKED = [[1, 4, 7], [3], [], list(range(ITEMS))]
CASES: list[tuple[str, str, Loss, float]] = [
    ("cml", "ball", Softmax(0.5), 0.5),
    ("cml", "ball", Contrastive(1.5, 3.0), 0.0),
    ("cml", "sphere", SFCML(1.5), 1.0),
    ("cmlf", "ball", Softmax(0.5), 0.5),
    ("lrml", "ball", Softmax(0.5), 0.5),
    ("lrml", "lorentz", Softmax(0.5), 0.5),
]
each_case = pytest.mark.parametrize(
    ("name", "geometry", "loss", "exponent"),
    [pytest.param(*case, id="-".join((*case[:2], loss_name(case[2])))) for case in CASES],
)


def drawing_of(exponent: float) -> Drawing:
    return Drawing(FullCatalog(), exponent)


@each_case
def test_the_loss_is_that_of_every_positive_by_the_oracle(
    name: str, geometry: str, loss: Loss, exponent: float
) -> None:
    case, positives = Case(name, {}, geometry), interactions(LIKED, ITEMS)
    source = UserSource.of_training(sampling_source(positives), positives)
    chosen = jnp.asarray([0, 1, 2, -1], jnp.int32)
    batch = draw_batch(drawing_of(exponent), source, chosen, jax.random.key(0))
    assert isinstance(batch, UserBatch)
    assert batch.users.tolist() == [0, 1, 3, 0]
    objective = Objective(case.model, loss, num_items=ITEMS)
    found = jax.jit(rows.loss_of_batch)(objective, case.jax_params(), batch)
    total = terms = 0.0
    for user, liked in enumerate(LIKED):
        to_all = {
            "users": np.array([user]),
            "positives": np.array([0]),
            "negatives": np.arange(ITEMS)[None],
        }
        distances = case.distances(False, to_all)[0, 1:]
        others = [item not in liked for item in range(ITEMS)]
        weight = oracles.user_weight(len(liked), exponent)
        for item in liked:
            of_row = oracles.loss_of_row(
                loss_name(loss), distances[item], distances, others, **numbers_of(loss)
            )
            total, terms = total + weight * of_row[0], terms + weight * of_row[1]
    assert total > 0.1
    np.testing.assert_allclose(found, (total, terms), rtol=2e-5)


@each_case
def test_the_gradient_is_that_of_the_same_interactions(
    name: str, geometry: str, loss: Loss, exponent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which goes another way: each interaction by itself, with the rest of a whole catalogue.

    In slices of two users: of five rows, two are padding, and a sixth fills the last slice.
    """
    monkeypatch.setattr(rows, "user_slice", lambda _: 2)
    case, positives = Case(name, {}, geometry), interactions(LIKED, ITEMS)
    base = sampling_source(positives)
    batches = []
    for source, number in (
        (UserSource.of_training(base, positives), 3),
        (TripletSource.of_training(base, positives), len(positives)),
    ):
        chosen = jnp.asarray([-1, *range(number), -1], jnp.int32)
        batches.append(draw_batch(drawing_of(exponent), source, chosen, jax.random.key(0)))
    objective = Objective(case.model, loss, num_items=ITEMS)

    @jax.jit
    def gradients(params: Params, batches: list[Any]) -> list[Any]:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return [
            rows.batch_gradient(objective, params, batch, batch.row_ids(), zeros)
            for batch in batches
        ]

    with jax.enable_x64(True):
        exact = [batch._replace(weight=batch.weight.astype(jnp.float64)) for batch in batches]
        found, expected = gradients(case.jax_params(jnp.float64), exact)
        gradient = jax.tree.map(np.asarray, found[0])
    moved = np.abs(gradient["user"][[0, 1, 3]]).max(axis=1)
    assert moved.all() == isinstance(loss, Contrastive)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11), found, expected
    )


def test_rows_are_users_with_positives_and_their_other_items_are_no_negatives() -> None:
    """Of validation, that leaves out what a user has in training too."""
    valid = interactions([[1], [5, 6], [0, 9], [], [2], [7]], 10)
    seen_too = sampling_source(TRAIN, union_of_splits(TRAIN, valid))
    for positives, source in (
        (TRAIN, UserSource.of_training(sampling_source(TRAIN), TRAIN)),
        (valid, UserSource.of_validation(seen_too, valid)),
    ):
        wanted = [user for user in range(6) if positives.counts[user]]
        assert source.users.tolist() == wanted
        chosen = jnp.asarray([*range(len(wanted)), -1], jnp.int32)
        batch = draw_batch(drawing_of(0.5), source, chosen, jax.random.key(0))
        assert isinstance(batch, UserBatch)
        assert batch.weight[-1] == 0
        assert batch.row_ids().items.shape == (len(wanted) + 1, 0)
        assert batch.targets.tolist() == list(range(10))
        for row, user in enumerate(wanted):
            own = np.flatnonzero(batch.is_positive[row])
            np.testing.assert_array_equal(own, positives.of(user))
            seen = set(ITEMS_OF[user]) | set(positives.of(user).tolist())
            np.testing.assert_array_equal(np.flatnonzero(~batch.is_negative[row]), sorted(seen))
            weight = oracles.user_weight(len(ITEMS_OF[user]), 0.5)
            np.testing.assert_allclose(batch.weight[row], weight, rtol=1e-6)


def of_users(name: str = "cml") -> Config:
    config = config_of(name)
    return dataclasses.replace(
        config,
        sampling=SamplingConfig(negatives="full_catalog", history_length=4),
        loss=LossConfig(name="softmax"),
        training=dataclasses.replace(config.training, batch_size=5, batch_of="users"),
    )


def test_a_run_takes_every_positive_once_an_epoch_and_its_loss_falls(tmp_path) -> None:
    """And its validation loss is that of interactions."""
    config = of_users()
    run = experiment.train(config, tmp_path, planted(), show_progress=False)
    steps = -(-24 // 5)
    assert [record["step"] for record in read_log(tmp_path)] == [steps, 2 * steps, 3 * steps]
    losses = [record["train_loss"] for record in read_log(tmp_path)]
    assert losses[2] < 0.95 * losses[0]
    positives = training_positives(run.placement, planted(), config)
    assert len(positives) == 24
    order = shuffled_rows(positives, 5, jax.random.key(0)).order
    assert sorted(np.asarray(order)[order >= 0].tolist()) == list(range(24))

    alike = dataclasses.replace(
        config, training=dataclasses.replace(config.training, batch_of="interactions")
    )
    other = Recommender(alike, run.dataset, run.model, run.params, run.placement)
    np.testing.assert_allclose(run.validation_loss(), other.validation_loss(), rtol=1e-5)


def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, monkeypatch) -> None:
    config = of_users("lrml")

    def train(folder: str) -> Params:
        return experiment.train(config, tmp_path / folder, planted(), show_progress=False).params

    whole = train("whole")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 7)
        with pytest.raises(KeyboardInterrupt):
            train("parts")
    assert_same(train("parts"), whole)
