"""Steps, epochs, and selection: a run is a function of its configuration alone."""

import dataclasses
import itertools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from small_runs import (
    BATCH,
    ITEMS,
    STEPS,
    USERS,
    Run,
    assert_same,
    config_of,
    differ,
    draw_batch,
    planted,
    read_log,
    train,
)

from hlr_jax import files, models
from hlr_jax.config import LossConfig, SamplingConfig, TrainingConfig
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import DivergedError
from hlr_jax.runs import experiment
from hlr_jax.sampling import batches as sampling
from hlr_jax.sampling import epoch_order as batching
from hlr_jax.sampling import sources
from hlr_jax.training import loop as fitting
from hlr_jax.training import objective
from hlr_jax.training import step as training
from hlr_jax.training.objective import Params
from hlr_jax.training.step import Keys, TrainState

pytestmark = pytest.mark.usefixtures("one_optimizer_per_configuration")

MODELS = ["cml", "cmlf", "lrml", "hlr", "hlrpp", "transcf", "dpcml", "history_mean"]


# --- the start -----------------------------------------------------------------------------------


def test_tables_start_from_a_normal_distribution_of_the_embedding_size():
    model = models.build("cml", 16, {})
    params = training.init_params(jax.random.key(0), model, 3000, 2000)
    assert params["user"].shape == (3000, 16)
    assert params["item"].shape == (2000, 16)
    for table in (params["user"], params["item"]):
        assert abs(np.mean(table)) < 0.01
        np.testing.assert_allclose(np.std(table), 0.25, rtol=0.02)
    assert not np.array_equal(params["user"][:2000], params["item"])


def test_rows_start_and_stay_in_the_ball():
    config = config_of("lrml", {"clip_memory": 0.4, "clip_key": 0.3}, learning_rate=0.5)
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, clip_norm=0.7), training=TrainingConfig()
    )
    run = Run.of(config)
    started = training.constrain(run.params(), run.model, config)
    moved = run.steps(run.state(), 0, 3).params
    for params in (started, moved):
        bounds = {"user": (params["user"], 0.7), "item": (params["item"], 0.7)}
        bounds |= {"memory": (params["relation"]["memory"], 0.4)}
        bounds |= {"key": (params["relation"]["key"], 0.3)}
        for name, (rows, bound) in bounds.items():
            norms = np.linalg.norm(rows, axis=1)
            assert norms.max() <= bound * (1 + 1e-6), name
            assert norms.max() > 0.9 * bound, name


def test_rows_start_and_stay_on_the_sphere():
    config = config_of("cml")
    on_sphere = dataclasses.replace(config.model, clip_norm=0.7, surface="sphere")
    run = Run.of(dataclasses.replace(config, model=on_sphere))
    started = training.constrain(run.params(), run.model, run.config)
    moved = run.steps(run.state(), 0, 3).params
    assert differ(started, moved)
    for params in (started, moved):
        for name in ("user", "item"):
            norms = np.linalg.norm(params[name], axis=1)
            np.testing.assert_allclose(norms, 0.7, rtol=1e-6)


def test_without_sampling_the_squared_margin_is_sfcml_s_loss():
    """Users alike and all their pairs: one batch of everything, against the oracle's loops."""
    config = dataclasses.replace(
        config_of("cml"),
        sampling=SamplingConfig(pool="catalogue"),
        loss=LossConfig(name="squared", margin=0.4, balance=1.0),
    )
    run = Run.of(config)
    rows = jnp.arange(len(run.source.users), dtype=jnp.int32)
    params = run.params()

    @jax.jit
    def total(params: Params) -> jax.Array:
        batch = training.draw_batch(jax.random.key(0), run.source, rows, 0, run.model, config)
        return objective.loss_of_batch(run.model, config.loss, ITEMS, params, batch)[0]

    liked = [set(planted().train.of(user).tolist()) for user in range(USERS)]
    expected = oracles.sampling_free_loss(params["user"], params["item"], liked, 0.4)
    np.testing.assert_allclose(total(params), expected, rtol=1e-5)


# --- steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_falls_on_planted_data(model):
    records: list[fitting.Record] = []
    Run.of(config_of(model, epochs=10)).fit(lambda params: {}, on_epoch=records.append)
    losses = [record["train_loss"] for record in records]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("batch_size", "negatives"), [(13, 2), (144, 1), (1000, 3), (1, 1)])
def test_every_triplet_counts_once_per_epoch(batch_size, negatives):
    run = Run.of(config_of(batch_size=batch_size, negatives=negatives))
    state = run.steps(run.state(), 0, batching.num_steps(144, batch_size))
    assert float(state.triplets) == 144 * negatives
    assert int(state.step) == -(-144 // batch_size)
    assert float(state.with_new_sums().triplets) == 0
    assert float(state.with_new_sums().loss_sum) == 0


@pytest.mark.parametrize("model", ["cml", "hlr"])
def test_steps_in_pieces_are_steps_at_once(model):
    run = Run.of(config_of(model))
    whole = run.steps(run.state(), 0, STEPS)
    for cuts in ([0, 5, STEPS], [0, 1, 1, 2, 7, STEPS], list(range(STEPS + 1))):
        state = run.state()
        for start, stop in itertools.pairwise(cuts):
            state = run.steps(state, start, stop)
        assert_same(state, whole)


@pytest.mark.parametrize("model", MODELS)
def test_the_compiled_loop_is_single_steps(model):
    run = Run.of(config_of(model))
    length = training.history_length(run.model, run.config)
    order, read = jnp.asarray(run.order()), training.reader(run.model, run.source)

    @jax.jit
    def one(state: TrainState, step: jax.Array) -> TrainState:
        batch = sampling.draw_batch(jax.random.key(8), run.source, order[step], 2, length)
        return training.train_step(
            *(state, batch, run.model, run.optimizer, run.config),
            read=read(state.params),
            features=run.source.features,
        )[0]

    state = run.state()
    for step in range(STEPS):
        state = one(state, jnp.asarray(step))
    looped = run.steps(run.state(), 0, STEPS)
    for left, right in zip(jax.tree.leaves(state), jax.tree.leaves(looped), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "options", "loss"),
    [
        ("cml", {}, {}),
        ("cml", {}, {"rank_weight": True}),
        ("lrml", {}, {"margin": 1.5}),
        ("hlr", {"beta": 0.7}, {}),
        ("hlr", {"separate_user_memory": True}, {"copy_relation": True}),
        ("hlrpp", {}, {}),
    ],
)
def test_mean_loss_is_the_mean_of_what_is_drawn(model, options, loss):
    config = dataclasses.replace(config_of(model, options, negatives=3), loss=LossConfig(**loss))
    run = Run.of(config)
    params, key, negatives = run.params(), jax.random.key(3), 3
    source = sources.validation_source(planted().train, planted().valid)
    positives = run.placement.positives(planted().valid.offsets, lambda users: source)
    found = run.placement.mean_loss(run.placement.params(params), positives, key, run.model, config)

    length = training.history_length(run.model, config)
    flat = {"user": params["user"], "item": params["item"], **params["relation"]}
    flat = {name: np.asarray(value, np.float64) for name, value in flat.items()}
    rows = np.full(2 * BATCH, -1, np.int32)
    rows[:USERS] = np.arange(USERS)  # One validation pair per user.
    total = 0.0
    for part in rows.reshape(2, BATCH):
        drawn = draw_batch(key, source, jnp.asarray(part), negatives, length)
        batch = {
            "users": np.asarray(drawn.users),
            "positives": np.asarray(drawn.items[:, 0]),
            "negatives": np.asarray(drawn.items[:, 1:]),
            "row_mask": np.asarray(drawn.weight),
        }
        if drawn.history is not None:
            batch["history"] = np.where(drawn.history.mask, drawn.history.items, -1)
        total += oracles.batch_loss(
            flat,
            batch,
            model,
            options | {"copy_relation": config.loss.copy_relation},
            margin=config.loss.margin,
            rank_weight=config.loss.rank_weight,
        )
    terms = USERS * (1 if config.loss.rank_weight else negatives)
    np.testing.assert_allclose(float(found), total / terms, rtol=1e-4)


# --- the same configuration gives the same run ---------------------------------------------------


@pytest.mark.parametrize("model", ["cml", "hlr"])
def test_the_seed_decides_the_run(model):
    first, again = train(config_of(model)), train(config_of(model))
    assert_same(first, again)
    assert differ(first, train(config_of(model, seed=2)))


def test_epochs_draw_anew_and_tell_their_own_loss():
    # With a step size of nothing only the draws change the loss from epoch to epoch.
    records: list[fitting.Record] = []
    config = config_of(learning_rate=1e-30)
    wide = dataclasses.replace(config.model, clip_norm=10.0)
    run = Run.of(dataclasses.replace(config, model=wide))
    run.fit(lambda params: {}, on_epoch=records.append)
    losses = [record["train_loss"] for record in records]
    assert len(set(losses)) == 3
    for epoch, loss in enumerate(losses):
        key = jax.random.fold_in(Keys.of(run.config.seed).train, epoch)
        order_key, draw_key = jax.random.split(key)
        order = batching.epoch_order(order_key, len(run.source.users), BATCH)
        state = run.steps(run.state(), 0, STEPS, order, draw_key)
        np.testing.assert_allclose(loss, state.mean_loss(), rtol=1e-5)


def test_how_often_the_host_looks_does_not_matter(monkeypatch):
    usual = train(config_of("hlr"))
    monkeypatch.setattr(fitting, "CHUNK_SECONDS", 0.0)
    assert_same(train(config_of("hlr")), usual)


# --- selection -----------------------------------------------------------------------------------


class Scripted:
    """Validation values from a list; keeps the parameters it was shown."""

    def __init__(self, name: str, values: list[float]) -> None:
        self.name, self.values = name, values
        self.seen: list[Params] = []

    def __call__(self, params: Params) -> dict[str, float]:
        self.seen.append(jax.tree.map(np.array, params))
        value = self.values[len(self.seen) - 1]
        return {"loss": value} if self.name == "loss" else {"loss": 1.0, self.name: value}


@pytest.mark.parametrize(
    ("select", "values", "patience", "epochs", "best"),
    [
        pytest.param("loss", [5.0, 4.0, 3.0, 3.5, 3.2], 0, 5, 3, id="lowest loss"),
        pytest.param(
            "ndcg@10", [0.1, 0.3, 0.2, 0.3], 0, 4, 2, id="highest metric, first of equals"
        ),
        pytest.param(
            "loss", [5.0, 4.0, 6.0, 6.0, 1.0], 2, 4, 2, id="two epochs without a better loss"
        ),
        pytest.param("loss", [5.0, 6.0, 4.0, 5.0, 3.0, 9.0], 2, 6, 5, id="patience starts anew"),
        pytest.param("ndcg@10", [0.5, 0.5, 0.9], 1, 2, 1, id="equal is not better"),
        pytest.param("loss", [3.0, 2.0, 1.0], 1, 3, 3, id="better every time"),
    ],
)
def test_the_best_epoch_is_returned(select, values, patience, epochs, best):
    config = config_of(select=select, epochs=len(values), patience=patience)
    validate = Scripted(select, values)
    records: list[fitting.Record] = []
    params, progress = Run.of(config).fit(validate, on_epoch=records.append)
    assert len(validate.seen) == progress.epochs == epochs
    assert progress.best_epoch == best
    assert progress.best[select] == values[best - 1]
    assert_same(params, validate.seen[best - 1])
    assert [record["epoch"] for record in records] == list(range(1, epochs + 1))
    assert [record["step"] for record in records] == [STEPS * n for n in range(1, epochs + 1)]
    assert [record[f"valid_{select}"] for record in records] == values[:epochs]


def test_a_real_metric_selects():
    records: list[fitting.Record] = []
    config = config_of(select="ndcg@5", epochs=4)
    dataset = planted()
    run = Run.of(config)
    validate = experiment._validation(config, run.model, dataset, run.placement)
    params, progress = run.fit(validate, on_epoch=records.append)
    metrics = [record["valid_ndcg@5"] for record in records]
    assert progress.best_epoch == 1 + int(np.argmax(metrics))
    assert validate(params)["ndcg@5"] == max(metrics)


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    nothing = Interactions.from_pairs(np.zeros(0), np.zeros(0), USERS, ITEMS)
    dataset = dataclasses.replace(planted(), valid=nothing)
    config = config_of(epochs=4, patience=1)
    kept = experiment.train(config, tmp_path, dataset, show_progress=False).params
    assert len(read_log(tmp_path)) == 4
    shorter = experiment.train(config_of(epochs=3), None, dataset, show_progress=False).params
    assert differ(kept, shorter)


# --- what callers are told -----------------------------------------------------------------------


@pytest.mark.parametrize("keeps_files", [False, True])
def test_a_caller_is_told_of_every_epoch_and_may_end_the_training(keeps_files, tmp_path):
    workdir = tmp_path / "run" if keeps_files else None
    config, told = config_of(epochs=3), []
    before = signal.getsignal(signal.SIGINT)

    def stop(record: fitting.Record) -> None:
        told.append(record)
        if record["epoch"] == 2:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        experiment.train(config, workdir, planted(), show_progress=False, on_epoch=stop)
    assert [record["epoch"] for record in told] == [1, 2]
    if workdir:
        assert files.read_json_lines(workdir / "metrics.jsonl") == told
    # Signals mean again what they meant before.
    assert signal.getsignal(signal.SIGINT) is before

    whole: list[fitting.Record] = []
    experiment.train(config, None, planted(), show_progress=False, on_epoch=whole.append)
    losses = [record["valid_loss"] for record in whole]
    assert len(losses) == 3
    assert losses[:2] == [record["valid_loss"] for record in told]


# --- divergence ----------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_the_learning_rate():
    config = config_of(learning_rate=3e38)
    config = dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, name="sgd")
    )
    with pytest.raises(DivergedError) as caught:
        train(config)
    message = str(caught.value)
    assert "\n" not in message
    assert "in epoch 1" in message
    assert "config.optimizer.learning_rate (now 3e+38)" in message
    assert "config.optimizer.gradient_clip" in message
