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

from hlr_jax.config import Config, LossConfig, ModelConfig, OptimizerConfig
from hlr_jax.models import Relation, build
from hlr_jax.models import relation as base
from hlr_jax.models.relation import Histories
from hlr_jax.sampling.batches import Batch
from hlr_jax.training import objective, optimizers
from hlr_jax.training import step as training
from hlr_jax.training.objective import Params
from hlr_jax.training.step import TrainState


def assert_close(actual: ArrayLike, expected: ArrayLike, bound: float = 1e-5) -> None:
    """The largest error is below `bound` times the largest expected number."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= bound * np.abs(expected).max()


@dataclasses.dataclass(frozen=True)
class Golden:
    """One file of outputs, and the run that it describes."""

    data: dict[str, np.ndarray]
    model: Relation
    config: Config

    @classmethod
    def of(cls, name: str, folder: Path) -> "Golden":
        with np.load(folder / f"{name}.npz") as file:
            data = {key: file[key] for key in file.files}
        recorded = json.loads(str(data["config"]))
        options: dict[str, Any] = {}
        if "param_memory" in data:
            options["slots"] = len(data["param_memory"])
        if base.get(name).uses_history:
            options["beta"] = recorded["beta"]
        for weight in ("nbr", "dist"):
            if f"alpha_reg_{weight}" in recorded:
                options[f"alpha_{weight}"] = recorded[f"alpha_reg_{weight}"]
        dim = data["param_user"].shape[1]
        config = Config(
            model=ModelConfig(name=name, dim=dim, clip_norm=recorded["clip_norm"], options=options),
            loss=LossConfig(
                margin=recorded["margin"], reduction="sum", copy_relation=recorded["copy"]
            ),
            optimizer=OptimizerConfig(name="adam", learning_rate=recorded["learning_rate"]),
        )
        return cls(data, build(name, dim, options), config)

    def params(self, prefix: str) -> Params:
        """The parameters, or the gradients, stored under this prefix."""
        arrays = {
            key.removeprefix(prefix): jnp.asarray(value)
            for key, value in self.data.items()
            if key.startswith(prefix)
        }
        tables = {name: arrays.pop(name) for name in ("user", "item")}
        return {**tables, "relation": arrays}

    def histories(self, key: str) -> Histories | None:
        if not self.model.uses_history:
            return None
        items = self.data[key]
        return Histories(jnp.asarray(np.maximum(items, 0), jnp.int32), jnp.asarray(items >= 0))

    @property
    def batch(self) -> Batch:
        items = np.stack([self.data["positives"], self.data["negatives"]], axis=1)
        return Batch(
            jnp.asarray(self.data["users"], jnp.int32),
            jnp.asarray(items, jnp.int32),
            self.histories("history"),
            jnp.ones(len(items)),
        )

    def read(self, params: Params) -> tuple[Params, Batch]:
        """Parameters and batch as the model reads them.

        The means of neighbours were fed in for each use of a row, and differ between two uses of
        the same: then every use has a row of its own.
        """
        if not self.model.uses_neighbours:
            return params, self.batch
        user, item, batch = params["user"], params["item"], self.batch
        uses = {"user": user[batch.users], "item": item[batch.items.T.reshape(-1)]}
        fed = [self.data[f"{kind}_neighbors"] for kind in ("user", "pos", "neg")]
        means = {"user": fed[0], "item": np.concatenate(fed[1:])}
        rows = {name: jnp.concatenate([uses[name], means[name]], axis=1) for name in uses}
        numbers = jnp.arange(2 * len(batch.users), dtype=jnp.int32).reshape(2, -1)
        return params | rows, batch._replace(users=numbers[0], items=numbers.T)

    def loss(self, params: Params) -> jax.Array:
        num_items = len(params["item"])
        return objective.loss_of_batch(self.model, self.config.loss, num_items, *self.read(params))[
            0
        ]

    def step(self, state: TrainState, optimizer: optax.GradientTransformation) -> TrainState:
        """Of training; by hand where means are fed in that training would compute itself."""
        if not self.model.uses_neighbours:
            return training.train_step(state, self.batch, self.model, optimizer, self.config)[0]
        loss, gradient = jax.value_and_grad(self.loss)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params = training.constrain(params, self.model, self.config)
        return state.replace(params=params, opt_state=opt_state, loss_sum=loss)


@pytest.fixture(params=["cml", "lrml", "hlr", "hlrpp", "adacml", "transcf"])
def golden(request: pytest.FixtureRequest, golden_folder: Path) -> Golden:
    return Golden.of(request.param, golden_folder)


def test_distances(golden: Golden) -> None:
    copied = golden.config.loss.copy_relation
    distances = jax.jit(
        lambda params: objective.triplet_distances(golden.model, copied, *golden.read(params))
    )(golden.params("param_"))
    np.testing.assert_allclose(distances[:, 0], golden.data["positive_distance"], rtol=1e-5)
    np.testing.assert_allclose(distances[:, 1], golden.data["negative_distance"], rtol=1e-5)


def test_loss_and_gradients(golden: Golden) -> None:
    """The gradients are dense: rows that the batch does not touch have 0."""
    loss, gradients = jax.jit(jax.value_and_grad(golden.loss))(golden.params("param_"))
    np.testing.assert_allclose(loss, golden.data["loss"], rtol=1e-5)
    expected = golden.params("grad_")
    assert jax.tree.structure(gradients) == jax.tree.structure(expected)
    jax.tree.map(assert_close, gradients, expected)
    for table in ("user", "item"):
        untouched = np.all(np.asarray(expected[table]) == 0, axis=1)
        np.testing.assert_array_equal(np.asarray(gradients[table])[untouched], 0)


def test_scores(golden: Golden) -> None:
    if golden.model.uses_neighbours:
        assert "scores" not in golden.data
        return
    params, users = golden.params("param_"), golden.data["eval_users"]
    items, histories = params["item"], golden.histories("eval_history")
    scores = jax.jit(
        lambda users: base.scores(golden.model, params["relation"], users, items, items, histories)
    )(params["user"][users])
    if golden.config.model.name == "lrml":
        scores = -jnp.sqrt(-scores)  # The authors rank LRML by the root; the order is the same.
    np.testing.assert_allclose(scores, golden.data["scores"], rtol=1e-5)


def test_three_training_steps(golden: Golden) -> None:
    """Dense Adam, each step followed by the projection of the tables."""
    optimizer = optimizers.build(golden.config.optimizer, golden.config.training, 1)
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
