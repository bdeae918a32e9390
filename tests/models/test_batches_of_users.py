"""Steps that take users with all of their interactions at once."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from cases import ITEMS, Case
from small_runs import assert_same, config_of, interrupt_after, planted, read_log
from test_sampling import ITEMS_OF, TRAIN, interactions

from hlr_jax.config import Config, LossConfig, ModelConfig, SamplingConfig, TrainingConfig
from hlr_jax.errors import InputError
from hlr_jax.runs import experiment, recommender
from hlr_jax.runs.recommender import Recommender
from hlr_jax.sampling import batches as sampling
from hlr_jax.sampling import sources
from hlr_jax.sampling.batches import Batch
from hlr_jax.training import objective
from hlr_jax.training import step as training
from hlr_jax.training.objective import Params, row_ids

# Some have one, several and all items; the third has none and is never a row.
LIKED = [[1, 4, 7], [3], [], list(range(ITEMS))]
LOSSES = [
    LossConfig(name="softmax", temperature=0.5, balance=0.5),
    LossConfig(name="contrastive", margin=1.5, negative_weight=3.0),
    LossConfig(name="squared", margin=1.5, balance=1.0),
]
CASES = [("cml", loss) for loss in LOSSES] + [("cmlf", LOSSES[0]), ("lrml", LOSSES[0])]
each_case = pytest.mark.parametrize(
    ("name", "loss"), [pytest.param(*case, id=f"{case[0]}-{case[1].name}") for case in CASES]
)


def config_of_loss(name: str, loss: LossConfig) -> Config:
    return Config(
        model=ModelConfig(name=name),
        sampling=SamplingConfig(pool="catalogue"),
        loss=loss,
        training=TrainingConfig(batch_of="users"),
    )


def gradient_of(case: Case, config: Config, params: Params, batch: Batch) -> Any:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return objective.loss_gradient(case.model, config.loss, params, batch, row_ids(batch), zeros)


@each_case
def test_the_loss_is_that_of_every_positive_by_the_oracle(name: str, loss: LossConfig) -> None:
    case, config = Case(name, {}), config_of_loss(name, loss)
    positives = interactions(LIKED, ITEMS)
    source = sources.training_source(positives).of_users(positives.counts)
    rows = jnp.asarray([0, 1, 2, -1], jnp.int32)
    batch = training.draw_batch(jax.random.key(0), source, rows, 0, case.model, config)
    assert batch.users.tolist() == [0, 1, 3, 0]
    found = jax.jit(objective.loss_of_batch, static_argnums=(0, 1, 2))(
        case.model, config.loss, ITEMS, case.jax_params(), batch
    )
    total = terms = 0.0
    for user, liked in enumerate(LIKED):
        to_all = {
            **case.batch,
            "users": np.array([user]),
            "positives": np.array([0]),
            "negatives": np.arange(ITEMS)[None],
        }
        distances = oracles.batch_distances(case.params, to_all, name, {})[1][0]
        others = [distances[item] for item in range(ITEMS) if item not in liked]
        weight = oracles.balance_weight(len(liked), loss.balance)
        for item in liked:
            of_row = oracles.loss_of_row(
                *(loss.name, distances[item], others, loss.margin),
                *(loss.temperature, loss.negative_weight),
            )
            total, terms = total + weight * of_row[0], terms + weight * of_row[1]
    assert total > 0.1
    np.testing.assert_allclose(found, (total, terms), rtol=2e-5)


@each_case
def test_the_gradient_is_that_of_the_same_interactions(name, loss, monkeypatch):
    """Which goes another way: each interaction by itself, with the rest of a whole catalogue.

    In slices of two users: of five rows, two are padding, and a sixth fills the last slice.
    """
    monkeypatch.setattr(objective, "POOL_SLICE", 2)
    case, positives = Case(name, {}), interactions(LIKED, ITEMS)
    one_by_one, config = sources.training_source(positives), config_of_loss(name, loss)
    batches = []
    for source, number in (
        (one_by_one.of_users(positives.counts), 3),
        (one_by_one, len(positives)),
    ):
        rows = jnp.asarray([-1, *range(number), -1], jnp.int32)
        batch = training.draw_batch(jax.random.key(0), source, rows, 0, case.model, config)
        batches.append(batch)

    @jax.jit
    def gradients(params: Params, batches: list[Batch]) -> list[Any]:
        return [gradient_of(case, config, params, batch) for batch in batches]

    with jax.enable_x64(True):
        exact = [batch._replace(weight=batch.weight.astype(jnp.float64)) for batch in batches]
        found, expected = gradients(case.jax_params(jnp.float64), exact)
        gradient = jax.tree.map(np.asarray, found[0])
    assert np.abs(gradient["user"][[0, 1, 3]]).max(axis=1).all() == (loss.name == "contrastive")
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11), found, expected
    )


def test_rows_are_users_with_positives_and_their_other_items_are_no_negatives() -> None:
    """Of validation, that leaves out what a user has in training too."""
    valid = interactions([[1], [5, 6], [0, 9], [], [2], [7]], 10)
    pool = jnp.arange(10, dtype=jnp.int32)
    for positives, source in (
        (TRAIN, sources.training_source(TRAIN).of_users(TRAIN.counts)),
        (valid, sources.validation_source(TRAIN, valid).of_users(valid.counts, valid)),
    ):
        wanted = [user for user in range(6) if positives.counts[user]]
        assert source.users.tolist() == wanted
        rows = jnp.asarray([*range(len(wanted)), -1], jnp.int32)
        batch = sampling.batch_of_users(source, rows, pool, balance=0.5)
        assert batch.positives is not None
        assert batch.unseen is not None
        assert batch.weight[-1] == 0
        assert batch.items.shape == (len(wanted) + 1, 0)
        for row, user in enumerate(wanted):
            np.testing.assert_array_equal(np.flatnonzero(batch.positives[row]), positives.of(user))
            seen = set(ITEMS_OF[user]) | set(positives.of(user).tolist())
            np.testing.assert_array_equal(np.flatnonzero(~batch.unseen[row]), sorted(seen))
            weight = oracles.balance_weight(len(ITEMS_OF[user]), 0.5)
            np.testing.assert_allclose(batch.weight[row], weight, rtol=1e-6)


def of_users(name: str = "cml", **changes: Any) -> Config:
    config = config_of(name)
    sections: dict[str, Any] = {
        "sampling": SamplingConfig(pool="catalogue", history_length=4),
        "loss": LossConfig(name="softmax"),
        "training": dataclasses.replace(config.training, batch_size=5, batch_of="users"),
    }
    return dataclasses.replace(config, **sections | changes)


def test_the_validation_loss_is_that_of_interactions():
    config = of_users()
    alike = dataclasses.replace(
        config, training=dataclasses.replace(config.training, batch_of="interactions")
    )
    run = experiment.train(config, None, planted(), show_progress=False)
    other = Recommender(alike, run.dataset, run.model, run.params, run.placement)
    np.testing.assert_allclose(run.validation_loss(), other.validation_loss(), rtol=1e-5)


def test_every_positive_counts_once_an_epoch_and_the_loss_falls(tmp_path):
    config = of_users()
    run = experiment.train(config, tmp_path, planted(), show_progress=False)
    steps = -(-24 // 5)
    assert [record["step"] for record in read_log(tmp_path)] == [steps, 2 * steps, 3 * steps]
    losses = [record["train_loss"] for record in read_log(tmp_path)]
    assert losses[2] < 0.95 * losses[0]
    positives = recommender.training_positives(run.placement, planted(), config)
    assert len(positives) == 24
    order = run.placement.order(jax.random.key(0), positives, 5)
    assert sorted(np.asarray(order)[order >= 0].tolist()) == list(range(24))


def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, monkeypatch):
    config = of_users("lrml")

    def train(folder: str) -> Params:
        return experiment.train(config, tmp_path / folder, planted(), show_progress=False).params

    whole = train("whole")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 7)
        with pytest.raises(KeyboardInterrupt):
            train("parts")
    assert_same(train("parts"), whole)


@pytest.mark.parametrize(
    ("section", "values", "fault"),
    [
        ("sampling", SamplingConfig(), "a user's negatives are all others; set config.sampling.po"),
        ("loss", LossConfig(), "set config.loss.name to one of squared, contrastive, softmax"),
        ("loss", LossConfig(name="softmax", copy_relation=True), "share its negatives; set config"),
    ],
)
def test_what_needs_triplets_is_refused(section, values, fault):
    with pytest.raises(InputError, match=rf"config\.training\.batch_of='users': .*{fault}"):
        of_users(**{section: values})


@pytest.mark.parametrize(
    ("name", "fault"),
    [("hlr", "reads histories"), ("adacml", "reads histories"), ("transcf", "adds a penalty")],
)
def test_models_whose_loss_is_not_one_of_distances_to_all_are_refused(name, fault, tmp_path):
    with pytest.raises(InputError, match=rf"batch_of='users': model '{name}' {fault}"):
        experiment.train(of_users(name), tmp_path / "run", planted(), show_progress=False)
    assert not (tmp_path / "run").exists()
