"""Steps, epochs, selection, and resuming: a run is a function of its configuration alone."""

import dataclasses
import functools
import itertools
import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hlr_jax import (
    batching,
    checkpoints,
    devices,
    experiment,
    files,
    fitting,
    models,
    objective,
    optimizers,
    sampling,
    sources,
    training,
)
from hlr_jax.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
)
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import DivergedError, InputError
from hlr_jax.fitting import MemoryStore, Progress
from hlr_jax.layout import REPLICATED
from hlr_jax.models import base
from hlr_jax.objective import Params
from hlr_jax.placement import Placement
from hlr_jax.training import Keys, TrainState

MODELS = ["cml", "cmlf", "lrml", "hlr", "hlrpp", "transcf", "dpcml", "history_mean"]


@pytest.fixture(autouse=True, scope="module")
def one_optimizer_per_configuration():
    """Programs are compiled for an optimizer object; tests of one configuration share it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(optimizers, "build", functools.cache(optimizers.build))
        yield


GROUPS, USERS, ITEMS = 3, 24, 30


@functools.cache
def planted() -> Dataset:
    """Users and items of three groups; a user likes 9 of the 10 items of its group."""
    generator = np.random.default_rng(0)
    splits: list[list[tuple[int, int]]] = [[], [], []]
    for user in range(USERS):
        own = generator.permutation(np.arange(user % GROUPS, ITEMS, GROUPS))[:9].tolist()
        for split, items in zip(splits, (own[:6], own[6:7], own[7:]), strict=True):
            split += [(user, item) for item in items]
    parts = [
        Interactions.from_pairs(*np.array(pairs).T, num_users=USERS, num_items=ITEMS)
        for pairs in splits
    ]
    return Dataset("planted", *parts, user_ids=np.arange(USERS), item_ids=np.arange(ITEMS))


def data_for(model: str) -> Dataset:
    """The planted data; with the group of each item for a model that reads features."""
    if not base.get(model).uses_features:
        return planted()
    groups = np.eye(GROUPS, dtype=np.float32)[np.arange(ITEMS) % GROUPS]
    return dataclasses.replace(planted(), features=groups)


# 144 training pairs: eleven full batches and one of a single row.
BATCH, STEPS = 13, 12


def config_of(
    model: str = "cml",
    options: dict[str, Any] | None = None,
    negatives: int = 2,
    learning_rate: float = 0.03,
    seed: int = 1,
    **fields: Any,
) -> Config:
    """A small model; `fields` are those of `training`."""
    fields = {"epochs": 3, "batch_size": BATCH, "patience": 0} | fields
    own = {"slots": 4} if "slots" in base.options(base.get(model)) else {}
    return Config(
        model=ModelConfig(name=model, dim=6, options=own | (options or {})),
        sampling=SamplingConfig(negatives=negatives, history_length=4),
        loss=LossConfig(margin=0.5),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
        training=TrainingConfig(**fields),
        seed=seed,
    )


draw_batch = jax.jit(sampling.draw_batch, static_argnames=("negatives", "history_length"))


def train(config: Config, workdir: pathlib.Path | None = None) -> Params:
    data = data_for(config.model.name)
    return experiment.train(config, workdir, data, show_progress=False).params


def assert_same(one: Any, two: Any) -> None:
    """Bitwise."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(left, right)


def differ(one: Params, two: Params) -> bool:
    return any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True))


def read_log(workdir: pathlib.Path) -> list[fitting.Record]:
    """What a run wrote of its epochs, without times."""
    records = files.read_json_lines(workdir / "metrics.jsonl")
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


@dataclasses.dataclass
class Run:
    """What `fit` puts together, for tests of its parts."""

    config: Config
    model: models.Relation
    optimizer: Any
    source: sources.Source

    @classmethod
    def of(cls, config: Config) -> "Run":
        model = models.build(config.model.name, config.model.dim, config.model.options)
        return cls(
            config,
            model,
            optimizers.build(config.optimizer, config.training, STEPS),
            sources.training_source(planted().train, features=data_for(config.model.name).features),
        )

    def params(self) -> Params:
        key = Keys.of(self.config.seed).init
        num_features = data_for(self.config.model.name).num_features
        return training.init_params(key, self.model, USERS, ITEMS, num_features)

    def state(self) -> TrainState:
        return TrainState.of(self.params(), self.optimizer)

    def order(self) -> np.ndarray:
        batch_size = self.config.training.batch_size
        return batching.epoch_order(jax.random.key(7), len(self.source.users), batch_size)

    def steps(
        self,
        state: TrainState,
        start: int,
        stop: int,
        order: np.ndarray | None = None,
        key: jax.Array | None = None,
        parts: int = 1,
    ) -> TrainState:
        """On so many devices."""
        mesh = Mesh(jax.local_devices()[:parts], REPLICATED.batch)
        state, source = jax.device_put((state, self.source), NamedSharding(mesh, PartitionSpec()))
        return training.train_steps(
            state,
            source,
            devices.split(self.order() if order is None else order, parts),
            jax.random.key(8) if key is None else key,
            start,
            stop,
            self.model,
            self.optimizer,
            self.config,
        )

    @property
    def placement(self) -> Placement:
        return Placement.of(self.config, self.model, USERS, ITEMS)

    def fit(
        self, validate: Callable[[Params], dict[str, float]], **kwargs: Any
    ) -> tuple[Params, Progress]:
        return fitting.fit(
            self.model,
            self.placement,
            self.placement.params(self.params()),
            self.placement.positives(planted().train.offsets, lambda users: self.source),
            self.config,
            validate,
            kwargs.pop("store", MemoryStore()),
            show_progress=False,
            **kwargs,
        )


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


# --- pretrained and frozen tables ----------------------------------------------------------------


NPY_HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"


@pytest.fixture
def tables(tmp_path):
    """Tables on disk; some rows are outside the unit ball."""
    generator = np.random.default_rng(3)
    arrays = {
        "user": generator.normal(size=(USERS, 6)).astype(np.float32),
        "item": generator.normal(size=(ITEMS, 6)).astype(np.float32),
    }
    np.savez(tmp_path / "tables.npz", **arrays)
    return tmp_path / "tables.npz", arrays


def test_a_frozen_pretrained_table_stays_as_it_is(tables):
    path, arrays = tables
    params = train(config_of("cml", pretrained=str(path), freeze_item=True))
    np.testing.assert_array_equal(params["item"], arrays["item"])
    assert (params["user"] != arrays["user"]).any(axis=1).all()
    both = train(config_of("lrml", pretrained=str(path), freeze_item=True, freeze_user=True))
    np.testing.assert_array_equal(both["item"], arrays["item"])
    np.testing.assert_array_equal(both["user"], arrays["user"])
    # Then only the relation learns.
    started = Run.of(config_of("lrml")).params()
    assert differ(both["relation"], started["relation"])


def test_a_pretrained_table_is_where_training_starts(tables):
    path, arrays = tables
    params = train(config_of(pretrained=str(path), learning_rate=1e-30, epochs=1))
    for name, table in arrays.items():
        norms = np.linalg.norm(table, axis=1, keepdims=True)
        np.testing.assert_allclose(params[name], table / np.maximum(norms, 1), rtol=1e-5)


def test_one_pretrained_table_will_do(tables, tmp_path):
    _, arrays = tables
    np.savez(tmp_path / "items.npz", item=arrays["item"])
    config = config_of(pretrained=str(tmp_path / "items.npz"), freeze_item=True, freeze_user=True)
    params = train(config)
    np.testing.assert_array_equal(params["item"], arrays["item"])
    run = Run.of(config)
    started = run.placement.new_params(Keys.of(config.seed).init, run.model, config)
    np.testing.assert_array_equal(params["user"], started["user"])
    np.testing.assert_allclose(started["user"], run.params()["user"], rtol=1e-6)


def test_pretrained_tables_of_another_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HLR_JAX_CACHE", str(tmp_path / "cache"))
    rows = [f"{u},{i}" for u in range(10) for i in range(12) if (u + i) % 3 and i != u]
    (tmp_path / "pairs.csv").write_text("user,item\n" + "\n".join(rows))
    data = DataConfig(name="file", path=str(tmp_path / "pairs.csv"), core=0)
    config = dataclasses.replace(config_of("cml", epochs=2), data=data)
    first = experiment.train(config, tmp_path / "first", show_progress=False)

    second = dataclasses.replace(
        config_of("lrml", pretrained=str(tmp_path / "first"), freeze_user=True, freeze_item=True),
        data=data,
    )
    after = experiment.train(second, tmp_path / "second", show_progress=False)
    for name in ("user", "item"):
        np.testing.assert_array_equal(after.params[name], first.params[name])

    (tmp_path / "others.csv").write_text("user,item\n" + "\n".join(rows).replace("0,", "77,"))
    others = dataclasses.replace(data, path=str(tmp_path / "others.csv"))
    with pytest.raises(InputError, match=r"config\.training\.pretrained=.* other user_ids"):
        experiment.train(dataclasses.replace(second, data=others), show_progress=False)


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"user": np.zeros((USERS, 5))}, r"user has shape \(24, 5\), expected \(24, 6\)"),
        ({"item": np.zeros((ITEMS + 1, 6))}, r"item has shape \(31, 6\), expected \(30, 6\)"),
        ({"users": np.zeros((USERS, 6))}, "neither an array 'user' nor 'item'"),
        ({"user": np.array(["words"] * USERS, object)}, "not a run's folder or an .npz file"),
    ],
)
def test_pretrained_tables_that_do_not_fit(tmp_path, arrays, fault):
    np.savez(tmp_path / "tables.npz", **arrays)
    with pytest.raises(InputError, match=fault) as caught:
        train(config_of(pretrained=str(tmp_path / "tables.npz")), tmp_path / "run")
    assert "config.training.pretrained" in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"not an archive", id="text"),
        pytest.param(b"PK\x03\x04 cut off", id="cut off"),
        pytest.param(b"\x93NUMPY\x01\x00v\x00" + NPY_HEADER + bytes(4), id="a bare array"),
    ],
)
def test_pretrained_files_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "tables.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.training\.pretrained") as caught:
        train(config_of(pretrained=str(tmp_path / "tables.npz")))
    assert "\n" not in str(caught.value)


# --- interruption --------------------------------------------------------------------------------


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Ask to stop after so many steps; the host looks after every single one."""

    class Impatient(fitting.StopRequest):
        looks = 0

        @property
        def received(self) -> bool:
            Impatient.looks += 1
            return Impatient.looks == steps

        @received.setter
        def received(self, value: bool) -> None:
            pass

    monkeypatch.setattr(fitting, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(fitting, "StopRequest", Impatient)


@pytest.mark.parametrize("model", ["cml", "cmlf", "hlr", "transcf"])
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(1, id="after the first step"),
        pytest.param(STEPS + 5, id="within an epoch"),
        pytest.param(2 * STEPS, id="at an epoch's end"),
        pytest.param(3 * STEPS, id="at the last epoch's end"),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_run(model, steps, tmp_path, monkeypatch):
    config = config_of(model)
    whole = train(config, tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupt_after(patched, steps)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts")
    assert len(read_log(tmp_path / "parts")) == (steps - 1) // STEPS
    assert_same(train(config, tmp_path / "parts"), whole)
    log = read_log(tmp_path / "parts")
    assert [record["epoch"] for record in log] == [1, 2, 3]
    assert log == read_log(tmp_path / "whole")


def test_a_run_interrupted_again_and_again(tmp_path, monkeypatch):
    config = config_of("hlr")
    whole = train(config, tmp_path / "whole")
    with monkeypatch.context() as patched:
        for steps in (3, 9, 5, 12):
            interrupt_after(patched, steps)
            with pytest.raises(KeyboardInterrupt):
                train(config, tmp_path / "parts")
    assert_same(train(config, tmp_path / "parts"), whole)
    assert read_log(tmp_path / "parts") == read_log(tmp_path / "whole")


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8)])
def test_a_run_goes_on_with_another_number_of_devices(before, after, tmp_path, monkeypatch):
    config = config_of("hlr", epochs=2)
    monkeypatch.setattr(devices, "count", lambda: after)
    whole = train(config, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(devices, "count", lambda: before)
        interrupt_after(patched, STEPS + 5)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts")
    parts = train(config, tmp_path / "parts")
    assert jax.tree.structure(parts) == jax.tree.structure(whole)
    for x, y in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    log, whole_log = read_log(tmp_path / "parts"), read_log(tmp_path / "whole")
    assert [record["step"] for record in log] == [STEPS, 2 * STEPS]
    for record, expected in zip(log, whole_log, strict=True):
        assert record == pytest.approx(expected, rel=1e-4)


class Killed(Exception):
    pass


def test_a_run_killed_between_its_two_saves_logs_no_epoch_twice(tmp_path, monkeypatch):
    config = config_of()
    whole = train(config, tmp_path / "whole")

    def kill(store: Any, state: TrainState, progress: Progress) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        interrupt_after(patched, STEPS + 2)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts")
        patched.undo()
        # The epoch is logged and its best parameters are saved; the state is not.
        patched.setattr(checkpoints.Checkpoints, "save", kill)
        with pytest.raises(Killed):
            train(config, tmp_path / "parts")
    assert [record["epoch"] for record in read_log(tmp_path / "parts")] == [1, 2]
    assert_same(train(config, tmp_path / "parts"), whole)
    assert read_log(tmp_path / "parts") == read_log(tmp_path / "whole")


def test_a_finished_run_is_not_trained_on(tmp_path, monkeypatch):
    config = config_of()
    first = train(config, tmp_path)

    def step(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained on")

    monkeypatch.setattr(Placement, "advance", step)
    assert_same(train(config, tmp_path), first)


def test_more_epochs_go_on_where_the_run_ended(tmp_path):
    train(config_of(epochs=1), tmp_path / "parts")
    longer = train(config_of(epochs=3), tmp_path / "parts")
    assert_same(longer, train(config_of(epochs=3), tmp_path / "whole"))
    assert read_log(tmp_path / "parts") == read_log(tmp_path / "whole")


def test_fewer_epochs_than_a_run_has_are_refused_and_nothing_changes(tmp_path):
    train(config_of(epochs=2), tmp_path)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(InputError, match=r"a run of 2 epochs.*training\.epochs=2 or more, not 1"):
        train(config_of(epochs=1), tmp_path)
    assert (tmp_path / "config.json").read_text() == before


def with_cosine(epochs: int, schedule_epochs: int) -> Config:
    config = config_of(epochs=epochs)
    cosine = {"schedule": "cosine", "schedule_epochs": schedule_epochs}
    optimizer = dataclasses.replace(config.optimizer, **cosine)
    return dataclasses.replace(config, optimizer=optimizer)


def test_a_cosine_over_epochs_of_its_own_goes_on_where_the_run_ended(tmp_path):
    train(with_cosine(2, 8), tmp_path / "parts")
    longer = train(with_cosine(3, 8), tmp_path / "parts")
    assert_same(longer, train(with_cosine(3, 8), tmp_path / "whole"))
    assert differ(longer, train(with_cosine(3, 0)))


def test_a_cosine_over_all_epochs_is_not_stretched(tmp_path):
    train(with_cosine(2, 0), tmp_path)
    with pytest.raises(InputError, match=r"config\.training\.epochs=2, not 3; use another folder"):
        train(with_cosine(3, 0), tmp_path)


def test_the_state_is_saved_within_a_long_epoch(tmp_path, monkeypatch):
    saved: list[int] = []

    class Recording(MemoryStore):
        def save(self, state: TrainState, progress: Progress) -> None:
            saved.append(int(state.step))

    monkeypatch.setattr(fitting, "CHUNK_SECONDS", 0.0)
    run = Run.of(config_of(epochs=1, checkpoint_minutes=1e-9))
    run.fit(lambda params: {}, store=Recording())
    assert saved == [*range(1, STEPS + 1), STEPS]


def test_another_configuration_is_refused_in_the_same_folder(tmp_path):
    train(config_of(epochs=1), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for other, field in [
        (config_of(epochs=1, seed=5), "config.seed=1, not 5"),
        (config_of("lrml", epochs=1), "config.model."),
        (config_of(epochs=1, learning_rate=0.5), "config.optimizer.learning_rate=0.03, not 0.5"),
    ]:
        with pytest.raises(InputError) as caught:
            train(other, tmp_path)
        assert field in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_signals_are_noted_and_afterwards_handled_as_before():
    previous = signal.getsignal(signal.SIGTERM)
    with fitting.StopRequest() as request:
        assert not request.received
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.received
    assert signal.getsignal(signal.SIGTERM) is previous
