"""Steps that take users with all of their interactions at once."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from support.cases import ITEMS, Case, as_oracle_params, loss_name, numbers_of
from support.interactions import (
    ITEMS_OF,
    TRAIN,
    assert_distributed,
    interactions,
    sampling_source,
)
from support.small_runs import (
    assert_same,
    config_of,
    interrupt_after,
    planted,
    read_log,
)

from hlr_jax.config import Config, LossConfig, SamplingConfig
from hlr_jax.functional.losses import LOSSES, Loss
from hlr_jax.functional.losses.contrastive import Contrastive
from hlr_jax.functional.losses.cpe import CPE
from hlr_jax.functional.losses.hinge import Hardest, Hinge, Warp
from hlr_jax.functional.losses.psl import PSL
from hlr_jax.functional.losses.sfcml import SFCML
from hlr_jax.functional.losses.softmax import Softmax
from hlr_jax.functional.losses.softmax_at_k import SoftmaxAtK
from hlr_jax.models import relation as relations
from hlr_jax.runs import experiment
from hlr_jax.runs.recommender import Recommender
from hlr_jax.sampling import samplers
from hlr_jax.sampling.batches import Drawing, draw_batch
from hlr_jax.sampling.samplers import FullCatalog, Sampler, Shared
from hlr_jax.sampling.sources import UserSource, union_of_splits
from hlr_jax.training import objective as objectives
from hlr_jax.training import rows
from hlr_jax.training.inputs import shuffled_rows, training_positives
from hlr_jax.training.objective import Objective
from hlr_jax.types import Params, UserBatch

# Some have one, several and all items; the third has none and is never a row.
LIKED = [[1, 4, 7], [3], [], list(range(ITEMS))]
PLACES = 3
# Of equal targets the first counts; item 7 is not among them.
POOL = [4, 1, 9, 4, 3, 0, 1]
CASES: list[tuple[str, str, Loss, float]] = [
    ("cml", "ball", Softmax(0.5), 0.5),
    ("cml", "ball", Contrastive(1.5, 3.0), 0.0),
    ("cml", "sphere", SFCML(1.5), 1.0),
    ("cmlf", "ball", Softmax(0.5), 0.5),
    ("dpcml", "ball", Hardest(0.5), 0.0),
    ("lrml", "ball", Softmax(0.5), 0.5),
    ("lrml", "lorentz", Softmax(0.5), 0.5),
    ("hlr", "ball", Softmax(0.5), 0.5),
    ("hlr", "ball", Hinge(0.5), 0.0),
    ("hlr", "lorentz", Softmax(0.5), 0.0),
    ("hlrpp", "ball", Contrastive(1.5, 3.0), 0.0),
    ("hlrpp", "sphere", Softmax(0.5), 0.0),
    ("adacml", "ball", SFCML(1.5), 0.5),
    ("history_mean", "ball", Softmax(0.5), 0.5),
    ("history_mean", "lorentz", Warp(0.5), 0.0),
    ("items_only", "ball", Softmax(0.5), 0.5),
    ("items_only", "lorentz", Contrastive(1.5, 3.0), 0.0),
    ("nearest_items", "ball", Softmax(0.5), 0.5),
    ("nearest_items", "sphere", Softmax(0.5), 0.0),
    ("rotation", "ball", Softmax(0.5), 0.5),
    ("multi_head", "ball", Softmax(0.5), 0.5),
    ("transcf", "ball", Softmax(0.5), 0.5),
    ("transcf", "ball", CPE(0.5), 0.0),
    ("cml", "ball", PSL("tanh", 0.5), 0.5),
    ("hlr", "lorentz", PSL("atan", 0.5), 0.0),
    ("cml", "sphere", PSL("relu", 0.5), 0.5),
    ("cml", "ball", SoftmaxAtK(2, 0.5, 0.3), 0.5),
    ("hlr", "ball", SoftmaxAtK(1, 0.5, 0.3), 0.0),
]
each_case = pytest.mark.parametrize(
    ("name", "geometry", "loss", "exponent"),
    [pytest.param(*case, id="-".join((*case[:2], loss_name(case[2])))) for case in CASES],
)
each_pool = pytest.mark.parametrize("sampler", [FullCatalog(), Shared(len(POOL))])


def drawing_of(case: Case, exponent: float, sampler: Sampler | None = None) -> Drawing:
    length = PLACES if case.model.uses_history else 0
    return Drawing(sampler or FullCatalog(), exponent, history_length=length)


@pytest.fixture(autouse=True)
def _known_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        samplers, "sample_items", lambda key, source, num: jnp.array(POOL[:num], jnp.int32)
    )


def loss_by_oracle(
    case: Case,
    batch: UserBatch,
    loss: Loss,
    exponent: float,
    held: Params | None = None,
) -> tuple[float, float]:
    """Of every positive among the targets, each target out of its own history, and the terms.

    Args:
      held: parameters that decide what the loss holds constant, instead of those of the case.
    """
    total = terms = 0.0
    num_targets = batch.is_positive.shape[1]
    items = np.asarray(batch.items)
    targets = items[:num_targets]
    first = np.array([list(targets).index(item) == n for n, item in enumerate(targets)])
    for row, user in enumerate(np.asarray(batch.users)):
        if not batch.weight[row]:
            continue
        drawn = items[np.asarray(batch.history.items[row])][np.asarray(batch.history.mask[row])]
        distances = np.array([distance(case, user, item, drawn) for item in targets])
        counts = first & ~np.isin(targets, LIKED[user])
        numbers: dict[str, Any] = numbers_of(loss)
        fixed = distances
        if held is not None and isinstance(loss, SoftmaxAtK):
            now, case.params = case.params, held
            fixed = np.array([distance(case, user, item, drawn) for item in targets])
            case.params = now
            last = oracles.top_k_threshold(fixed[counts].tolist(), num_targets, ITEMS, loss.cutoff)
        weight = oracles.user_weight(len(LIKED[user]), exponent)
        for place in np.flatnonzero(first & np.isin(targets, LIKED[user])):
            if held is not None and isinstance(loss, SoftmaxAtK):
                numbers["held"] = (fixed[place], last)
            of_row = oracles.loss_of_row(
                loss_name(loss),
                distances[place],
                distances,
                counts,
                num_items=ITEMS,
                **numbers,
            )
            own = penalty(case, user, targets[place], distances[place])
            total, terms = total + weight * (of_row[0] + own), terms + weight * of_row[1]
    return total, terms


def as_triplet(case: Case, user: int, item: int) -> dict[str, Any]:
    one = {
        "users": np.array([user]),
        "positives": np.array([item]),
        "negatives": np.zeros((1, 0), int),
    }
    return one | (case.neighbours_of(one) if case.neighbours else {})


def distance(case: Case, user: int, item: int, drawn: np.ndarray) -> float:
    history = {"history": drawn[drawn != item][None]} if case.model.uses_history else {}
    return float(case.distances(False, as_triplet(case, user, item) | history)[0, 0])


def penalty(case: Case, user: int, item: int, distance: float) -> float:
    """What a model adds to each positive."""
    batch = as_triplet(case, user, item)
    if case.name == "transcf":
        found = oracles.transcf_penalty(
            case.params, batch, np.array([distance]), case.options, case.geometry
        )
        return float(found)
    if case.name == "dpcml":
        return float(oracles.dpcml_penalty(case.params, batch, case.options, case.geometry))
    return 0.0


def batch_of(case: Case, exponent: float, sampler: Sampler) -> UserBatch:
    positives = interactions(LIKED, ITEMS)
    source = UserSource.of_training(sampling_source(positives), positives)
    chosen = jnp.asarray([-1, 0, 1, 2, -1], jnp.int32)
    batch = draw_batch(drawing_of(case, exponent, sampler), source, chosen, jax.random.key(0))
    assert isinstance(batch, UserBatch)
    assert batch.users.tolist() == [0, 0, 1, 3, 0]
    return batch


def case_of(name: str, geometry: str) -> Case:
    diverse = {"vectors": 2, "diversity_weight": 10.0, "min_diversity": 0.9, "max_diversity": 1.2}
    return Case(name, diverse if name == "dpcml" else {}, geometry)


def test_every_loss_is_among_the_cases() -> None:
    assert {loss_name(loss) for _, _, loss, _ in CASES} == set(LOSSES.names())


@each_pool
@each_case
def test_the_loss_is_that_of_every_positive_by_the_oracle(
    name: str, geometry: str, loss: Loss, exponent: float, sampler: Sampler
) -> None:
    case = case_of(name, geometry)
    batch = batch_of(case, exponent, sampler)
    objective = Objective(case.model, loss, num_items=ITEMS)
    with jax.enable_x64(True):
        exact = batch._replace(weight=batch.weight.astype(jnp.float64))
        found = jax.jit(rows.loss_of_batch)(objective, case.read_params(jnp.float64), exact)
    expected = loss_by_oracle(case, batch, loss, exponent)
    assert expected[0] > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@each_pool
@each_case
def test_the_gradient_is_that_of_the_loss(
    name: str,
    geometry: str,
    loss: Loss,
    exponent: float,
    sampler: Sampler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By differences of the oracle's loss along random directions.

    In slices of two users: of five rows, two are padding, and a sixth fills the last slice; and
    measured a few items at a time.
    """
    monkeypatch.setattr(rows, "user_slice", lambda users, places: 2)
    monkeypatch.setattr(objectives, "pair_tile", lambda floats: 3)
    monkeypatch.setattr(relations, "pair_tile", lambda floats: 4)
    case = case_of(name, geometry)
    batch = batch_of(case, exponent, sampler)
    objective = Objective(case.model, loss, num_items=ITEMS)

    def gradient_of(params: Params, read: Params, batch: UserBatch) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return rows.batch_gradient(objective, read, batch, batch.row_ids(), zeros)[0]

    with jax.enable_x64(True):
        exact = batch._replace(weight=batch.weight.astype(jnp.float64))
        args = case.jax_params(jnp.float64), case.read_params(jnp.float64), exact
        gradient = as_oracle_params(jax.jit(gradient_of)(*args))
    rng, before, step = np.random.default_rng(1), case.params, 1e-5
    for table in (name for name, x in gradient.items() if x.size):
        direction = rng.normal(size=before[table].shape)
        sides = []
        for sign in (1, -1):
            case.params = before | {table: before[table] + sign * step * direction}
            sides.append(loss_by_oracle(case, batch, loss, exponent, before)[0])
        slope = (sides[0] - sides[1]) / (2 * step)
        assert abs(slope) > 1e-3
        np.testing.assert_allclose(np.sum(gradient[table] * direction), slope, rtol=2e-5)


def test_a_loss_that_knows_of_one_positive_a_row_is_given_one(monkeypatch) -> None:
    class RowHinge(Loss):
        """The hinge, by axes that only a batch of interactions has."""

        def __call__(self, positive, negatives):
            gap = jax.nn.relu(positive[:, None] - negatives.values + 0.5)
            return jnp.sum(jnp.where(negatives.mask, gap, 0), axis=1)

    monkeypatch.setattr(objectives, "pair_tile", lambda floats: 3)
    case = case_of("cml", "ball")
    batch = batch_of(case, 0.5, FullCatalog())
    found = [
        rows.loss_of_batch(Objective(case.model, loss, num_items=ITEMS), case.jax_params(), batch)[
            0
        ]
        for loss in (RowHinge(), Hinge(0.5))
    ]
    assert found[0] > 1
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_a_catalogue_in_another_order_has_the_same_loss() -> None:
    class Backwards(FullCatalog):
        def targets(self, key, source):
            return super().targets(key, source)[::-1]

    case = case_of("hlr", "ball")
    objective = Objective(case.model, Softmax(0.5), num_items=ITEMS)
    found = [
        rows.loss_of_batch(objective, case.jax_params(), batch_of(case, 0.5, sampler))
        for sampler in (Backwards(), FullCatalog())
    ]
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_sampler_that_draws_otherwise_does_not_inherit_targets() -> None:
    class LowHalf(Shared):
        def draw(self, examples, source):
            return super().draw(examples, source)

    assert LowHalf.targets is Sampler.targets
    assert Shared.targets is not Sampler.targets


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
        batch = draw_batch(Drawing(FullCatalog(), 0.5), source, chosen, jax.random.key(0))
        assert isinstance(batch, UserBatch)
        assert batch.weight[-1] == 0
        assert batch.row_ids().items.shape == (len(wanted) + 1, 0)
        assert batch.items.tolist() == list(range(10))
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


def test_histories_of_users_are_drawn_uniformly_and_again_in_every_epoch() -> None:
    positives = interactions([[0, 2, 5, 6], [1]], ITEMS)
    source = UserSource.of_training(sampling_source(positives), positives)
    drawing = Drawing(FullCatalog(), history_length=2)
    draw = jax.jit(jax.vmap(lambda key: draw_batch(drawing, source, jnp.arange(2), key)))
    batch = draw(jax.random.split(jax.random.key(5), 1200))
    drawn = np.asarray(batch.history.items[:, 0])
    assert batch.history.mask[:, 0].all()
    assert (np.sort(drawn, axis=1)[:, 0] < np.sort(drawn, axis=1)[:, 1]).all()
    pairs = [tuple(sorted(x)) for x in drawn.tolist()]
    expected = list(itertools.combinations([0, 2, 5, 6], 2))
    assert_distributed(np.array([pairs.count(pair) for pair in expected]), np.full(6, 1 / 6))
    assert (np.asarray(batch.history.mask[:, 1]).sum(axis=1) == 1).all()


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


@pytest.mark.parametrize("model", ["lrml", "hlr"])
def test_a_resumed_run_is_the_uninterrupted_run(model, tmp_path, monkeypatch) -> None:
    config = of_users(model)

    def train(folder: str) -> Params:
        return experiment.train(config, tmp_path / folder, planted(), show_progress=False).params

    whole = train("whole")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 7)
        with pytest.raises(KeyboardInterrupt):
            train("parts")
    assert_same(train("parts"), whole)
