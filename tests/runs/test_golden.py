"""The library against the outputs of the HLR authors' own code."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.typing import ArrayLike

from hlr_jax.config import (
    Config,
    GeometryConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    build,
)
from hlr_jax.models import RELATIONS, Relation
from hlr_jax.models.relation import apply
from hlr_jax.parallel.layout import ALONE
from hlr_jax.training.exchange import DenseExchange
from hlr_jax.training.inputs import make_objective
from hlr_jax.training.neighbours import NoNeighbours
from hlr_jax.training.objective import Objective, project, triplet_distances
from hlr_jax.training.optimizers import NamedOptimizer, Optimizer
from hlr_jax.training.rows import gather_rows, loss_of_batch
from hlr_jax.training.state import TrainState
from hlr_jax.training.step import train_step
from hlr_jax.types import HistoryIds, Params, PerExampleNegatives, TripletBatch


def assert_close(actual: ArrayLike, expected: ArrayLike, bound: float = 1e-5) -> None:
    """The largest error is below `bound` times the largest expected number."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= bound * np.abs(expected).max()


@dataclasses.dataclass(frozen=True)
class Golden:
    """One file of outputs, and the run that it describes."""

    data: dict[str, np.ndarray]
    config: Config
    objective: Objective

    @classmethod
    def of(cls, name: str, folder: Path) -> "Golden":
        with np.load(folder / f"{name}.npz") as file:
            data = {key: file[key] for key in file.files}
        recorded = json.loads(str(data["config"]))
        options: dict[str, Any] = {}
        if "param_memory" in data:
            options["slots"] = len(data["param_memory"])
        if RELATIONS.get(name).uses_history:
            options["beta"] = recorded["beta"]
        for weight in ("nbr", "dist"):
            if f"alpha_reg_{weight}" in recorded:
                options[f"alpha_{weight}"] = recorded[f"alpha_reg_{weight}"]
        config = Config(
            model=ModelConfig(name=name, dim=data["param_user"].shape[1], options=options),
            geometry=GeometryConfig(options={"radius": recorded["clip_norm"]}),
            loss=LossConfig(
                reduction="sum",
                copy_relation=recorded["copy"],
                options={"margin": recorded["margin"]},
            ),
            optimizer=OptimizerConfig(name="adam", learning_rate=recorded["learning_rate"]),
        )
        model = build.build_model(config)
        return cls(data, config, make_objective(config, model, len(data["param_item"]), None))

    @property
    def model(self) -> Relation:
        return self.objective.model

    def params(self, prefix: str) -> Params:
        """The parameters, or the gradients, stored under this prefix."""
        arrays = {
            key.removeprefix(prefix): jnp.asarray(value)
            for key, value in self.data.items()
            if key.startswith(prefix)
        }
        tables = {name: arrays.pop(name) for name in ("user", "item")}
        return {**tables, "relation": arrays}

    def histories(self, key: str, count: int) -> HistoryIds:
        """The histories stored under a key; none for a model that reads none."""
        if not self.model.uses_history:
            return HistoryIds.empty(count)
        items = self.data[key]
        return HistoryIds(jnp.asarray(np.maximum(items, 0), jnp.int32), jnp.asarray(items >= 0))

    @property
    def batch(self) -> TripletBatch:
        users, positives, negatives = (
            jnp.asarray(self.data[name], jnp.int32) for name in ("users", "positives", "negatives")
        )
        return TripletBatch(
            users,
            positives,
            PerExampleNegatives(negatives[:, None], jnp.ones((len(users), 1), bool)),
            self.histories("history", len(users)),
            jnp.ones(len(users)),
        )

    def read(self, params: Params) -> tuple[Params, TripletBatch]:
        """Parameters and batch as the model reads them.

        The means of neighbours were fed in for each use of a row, and differ between two uses of
        the same: then every use has a row of its own.
        """
        batch = self.batch
        if not self.model.uses_neighbours:
            return params, batch
        user, item, ids = params["user"], params["item"], batch.row_ids()
        uses = {"user": user[ids.user], "item": item[ids.items.T.reshape(-1)]}
        fed = [self.data[f"{kind}_neighbors"] for kind in ("user", "pos", "neg")]
        means = {"user": fed[0], "item": np.concatenate(fed[1:])}
        rows = {name: jnp.concatenate([uses[name], means[name]], axis=1) for name in uses}
        places = jnp.arange(2 * len(batch.users), dtype=jnp.int32).reshape(2, -1)
        batch = batch.with_items(ids._replace(items=places.T))._replace(users=places[0])
        return params | rows, batch

    def loss(self, params: Params) -> jax.Array:
        return loss_of_batch(self.objective, *self.read(params))[0]

    def step(self, state: TrainState, optimizer: Optimizer) -> TrainState:
        """Of training; by hand where means are fed in that training would compute itself."""
        if not self.model.uses_neighbours:
            exchange = DenseExchange(ALONE)
            args = (state, self.batch, self.objective, optimizer, exchange, NoNeighbours())
            return train_step(*args)[0]
        loss, gradient = jax.value_and_grad(self.loss)(state.params)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.transformation().update(
                gradient, state.opt_state, state.params
            )
            params = project(self.objective, optax.apply_updates(state.params, updates))
        return state.replace(params=params, opt_state=opt_state, loss_sum=loss)


@pytest.fixture(params=["cml", "lrml", "hlr", "hlrpp", "adacml", "transcf"])
def golden(request: pytest.FixtureRequest, golden_folder: Path) -> Golden:
    return Golden.of(request.param, golden_folder)


def test_distances(golden: Golden) -> None:

    @jax.jit
    def distances(params: Params) -> jax.Array:
        read, batch = golden.read(params)
        points = gather_rows(read, batch.row_ids())
        return triplet_distances(golden.objective, params["relation"], points, batch)[0]

    found = distances(golden.params("param_"))
    np.testing.assert_allclose(found[:, 0], golden.data["positive_distance"], rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], golden.data["negative_distance"], rtol=1e-5)


def test_loss_and_gradients(golden: Golden) -> None:
    """The gradients are dense: rows that the batch does not use have 0."""
    loss, gradients = jax.jit(jax.value_and_grad(golden.loss))(golden.params("param_"))
    np.testing.assert_allclose(loss, golden.data["loss"], rtol=1e-5)
    expected = golden.params("grad_")
    assert jax.tree.structure(gradients) == jax.tree.structure(expected)
    jax.tree.map(assert_close, gradients, expected)
    for table in ("user", "item"):
        unused = np.all(np.asarray(expected[table]) == 0, axis=1)
        np.testing.assert_array_equal(np.asarray(gradients[table])[unused], 0)


def test_scores(golden: Golden) -> None:
    if golden.model.uses_neighbours:
        assert "scores" not in golden.data
        return
    params, users = golden.params("param_"), golden.data["eval_users"]
    items, histories = params["item"], golden.histories("eval_history", len(users))
    scores = jax.jit(
        lambda users: apply(
            golden.model, params["relation"], "scores", users, items, items, histories
        )
    )(params["user"][users])
    if golden.config.model.name == "lrml":
        scores = -jnp.sqrt(-scores)  # The authors rank LRML by the root; the order is the same.
    np.testing.assert_allclose(scores, golden.data["scores"], rtol=1e-5)


def test_three_training_steps(golden: Golden) -> None:
    """Dense Adam, each step followed by the projection of the tables."""
    optimizer = NamedOptimizer.of(golden.config, 1)
    step = jax.jit(lambda state: golden.step(state, optimizer))
    state = TrainState.of(golden.params("param_"), optimizer)
    losses = []
    for _ in range(3):
        state = step(state.with_new_sums())
        losses.append(state.loss_sum)
    np.testing.assert_allclose(losses, golden.data["losses_of_3_steps"], rtol=1e-5)
    expected = golden.params("after3_")
    assert jax.tree.structure(state.params) == jax.tree.structure(expected)
    jax.tree.map(lambda x, y: assert_close(x, y, 1e-4), state.params, expected)
    # The projection was needed.
    assert np.linalg.norm(np.asarray(expected["user"]), axis=1).max() > 1 - 1e-6
