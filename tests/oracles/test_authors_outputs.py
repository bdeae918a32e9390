"""The oracles against the outputs of the authors' TensorFlow code."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oracles
from oracles import Array, Params

MODELS = ("cml", "lrml", "hlr", "hlrpp", "adacml", "transcf")
# float32 outputs: about 1e-7 relative an operation, over a few hundred operations.
FORWARD: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


class Golden:
    """One golden file: parameters, batch and options in the oracle's form."""

    def __init__(self, model: str, folder: Path) -> None:
        self.model = model
        with np.load(folder / f"{model}.npz") as file:
            self.data = {name: file[name] for name in file.files}
        config = json.loads(str(self.data["config"]))
        self.margin = float(config["margin"])
        self.learning_rate = float(config["learning_rate"])
        self.radius = float(config["clip_norm"])
        self.options: dict[str, Any] = {
            "beta": config["beta"],
            "include_user": True,
            "copy_relation": config["copy"],
            "alpha_nbr": config.get("alpha_reg_nbr", 0.0),
            "alpha_dist": config.get("alpha_reg_dist", 0.0),
        }
        self.batch = {
            "users": self.data["users"],
            "positives": self.data["positives"],
            "negatives": self.data["negatives"][:, None],
            "history": self.data["history"],
        }
        if model == "transcf":
            self.batch["user_neighbours"] = self.data["user_neighbors"]
            self.batch["positive_neighbours"] = self.data["pos_neighbors"]
            self.batch["negative_neighbours"] = self.data["neg_neighbors"][:, None]

    def tables(self, prefix: str) -> Params:
        return {
            name.removeprefix(prefix): np.asarray(value, np.float64)
            for name, value in self.data.items()
            if name.startswith(prefix)
        }

    def loss(self, params: Params) -> float:
        return oracles.batch_loss(
            params, self.batch, self.model, self.options, margin=self.margin, reduction="sum"
        )

    def gradient(self, params: Params) -> Params:
        return oracles.numerical_gradient(self.loss, params)

    def hinges(self, params: Params) -> Array:
        d_pos, d_neg = oracles.batch_distances(params, self.batch, self.model, self.options)
        return np.asarray(d_pos[:, None] - d_neg + self.margin)

    @functools.cached_property
    def three_steps(self) -> tuple[list[Params], list[Params]]:
        """Points visited by three steps (the first one included), and their gradients."""
        gradients: list[Params] = []

        def recorded_gradient(params: Params) -> Params:
            gradients.append(self.gradient(params))
            return gradients[-1]

        start = self.tables("param_")
        visited = oracles.adam_steps_dense(
            recorded_gradient, start, 3, self.learning_rate, radius=self.radius
        )
        return [start, *visited], gradients


@pytest.fixture(scope="module", params=MODELS)
def golden(request: pytest.FixtureRequest, golden_folder: Path) -> Golden:
    return Golden(request.param, golden_folder)


def test_distances_match_the_authors(golden: Golden) -> None:
    d_pos, d_neg = oracles.batch_distances(
        golden.tables("param_"), golden.batch, golden.model, golden.options
    )
    np.testing.assert_allclose(d_pos, golden.data["positive_distance"], **FORWARD)
    np.testing.assert_allclose(d_neg[:, 0], golden.data["negative_distance"], **FORWARD)


def test_loss_matches_the_authors(golden: Golden) -> None:
    np.testing.assert_allclose(golden.loss(golden.tables("param_")), golden.data["loss"], **FORWARD)


def test_gradient_matches_the_authors(golden: Golden) -> None:
    """Central differences are good to 1e-8 here, the authors' float32 gradients to about 1e-6."""
    visited, gradients = golden.three_steps
    assert np.abs(golden.hinges(visited[0])).min() > 1e-3, "a hinge is too near its kink"
    expected = golden.tables("grad_")
    assert expected.keys() == gradients[0].keys()
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(
            gradient, expected[name], rtol=1e-5, atol=3e-6, err_msg=f"{golden.model}: {name}"
        )


def test_three_adam_steps_match_the_authors(golden: Golden) -> None:
    visited, _ = golden.three_steps
    for params in visited[:3]:
        assert np.abs(golden.hinges(params)).min() > 1e-4, "a hinge is too near its kink"
    losses = [golden.loss(params) for params in visited[:3]]
    np.testing.assert_allclose(losses, golden.data["losses_of_3_steps"], rtol=1e-5)
    expected = golden.tables("after3_")
    assert expected.keys() == visited[3].keys()
    for name, table in visited[3].items():
        np.testing.assert_allclose(
            table, expected[name], rtol=0.0, atol=1e-5, err_msg=f"{golden.model}: {name}"
        )


def test_scores_match_the_authors(golden: Golden) -> None:
    if golden.model == "transcf":
        assert "scores" not in golden.data
        return
    scores = oracles.rank_scores(
        golden.tables("param_"),
        golden.data["eval_users"].tolist(),
        golden.data["eval_history"].tolist(),
        golden.model,
        golden.options,
    )
    if golden.model == "lrml":  # published LRML ranks with the square root, which keeps the order
        scores = -np.sqrt(-scores)
    np.testing.assert_allclose(scores, golden.data["scores"], **FORWARD)
