"""The oracle against the outputs of the authors' TensorFlow code, and against hand-worked cases."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from oracles import Array, Params

GOLDEN_MODELS = ("cml", "lrml", "hlr", "hlrpp", "adacml", "transcf")
# float32 outputs: about 1e-7 relative an operation, over a few hundred operations.
FORWARD: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


# --- the golden files ----------------------------------------------------------------------------


def golden_folder() -> Path | None:
    explicit = os.environ.get("HLR_JAX_GOLDEN")
    if explicit:
        return Path(explicit)
    data = os.environ.get("HLR_JAX_DATA")
    return Path(data).parent / "reference" / "golden" if data else None


@functools.cache
def load_golden(model: str) -> dict[str, Any]:
    folder = golden_folder()
    if folder is None:
        pytest.skip("set HLR_JAX_GOLDEN or HLR_JAX_DATA to compare with the authors' outputs")
    path = folder / f"{model}.npz"
    if not path.is_file():
        pytest.skip(f"no authors' outputs at {path}")
    with np.load(path) as data:
        return {name: data[name] for name in data.files}


class Golden:
    """One golden file: parameters, batch and options in the oracle's form."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.data = load_golden(model)
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


@functools.cache
def three_steps(model: str) -> tuple[list[Params], list[Params]]:
    """Points visited by the oracle's three steps (the first one included), and their gradients."""
    golden = Golden(model)
    gradients: list[Params] = []

    def recorded_gradient(params: Params) -> Params:
        gradients.append(golden.gradient(params))
        return gradients[-1]

    start = golden.tables("param_")
    visited = oracles.adam_steps_dense(
        recorded_gradient, start, 3, golden.learning_rate, radius=golden.radius
    )
    return [start, *visited], gradients


@pytest.mark.parametrize("model", GOLDEN_MODELS)
def test_distances_match_the_authors(model: str) -> None:
    golden = Golden(model)
    d_pos, d_neg = oracles.batch_distances(
        golden.tables("param_"), golden.batch, model, golden.options
    )
    np.testing.assert_allclose(d_pos, golden.data["positive_distance"], **FORWARD)
    np.testing.assert_allclose(d_neg[:, 0], golden.data["negative_distance"], **FORWARD)


@pytest.mark.parametrize("model", GOLDEN_MODELS)
def test_loss_matches_the_authors(model: str) -> None:
    golden = Golden(model)
    np.testing.assert_allclose(golden.loss(golden.tables("param_")), golden.data["loss"], **FORWARD)


@pytest.mark.parametrize("model", GOLDEN_MODELS)
def test_gradient_matches_the_authors(model: str) -> None:
    """Central differences are good to 1e-8 here, the authors' float32 gradients to about 1e-6."""
    golden = Golden(model)
    visited, gradients = three_steps(model)
    assert np.abs(golden.hinges(visited[0])).min() > 1e-3, "a hinge is too near its kink"
    expected = golden.tables("grad_")
    assert expected.keys() == gradients[0].keys()
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(
            gradient, expected[name], rtol=1e-5, atol=3e-6, err_msg=f"{model}: {name}"
        )


@pytest.mark.parametrize("model", GOLDEN_MODELS)
def test_three_adam_steps_match_the_authors(model: str) -> None:
    golden = Golden(model)
    visited, _ = three_steps(model)
    for params in visited[:3]:
        assert np.abs(golden.hinges(params)).min() > 1e-4, "a hinge is too near its kink"
    losses = [golden.loss(params) for params in visited[:3]]
    np.testing.assert_allclose(losses, golden.data["losses_of_3_steps"], rtol=1e-5)
    expected = golden.tables("after3_")
    assert expected.keys() == visited[3].keys()
    for name, table in visited[3].items():
        np.testing.assert_allclose(
            table, expected[name], rtol=0.0, atol=1e-5, err_msg=f"{model}: {name}"
        )


@pytest.mark.parametrize("model", [model for model in GOLDEN_MODELS if model != "transcf"])
def test_scores_match_the_authors(model: str) -> None:
    golden = Golden(model)
    scores = oracles.rank_scores(
        golden.tables("param_"),
        golden.data["eval_users"].tolist(),
        golden.data["eval_history"].tolist(),
        model,
        golden.options,
    )
    if model == "lrml":  # published LRML ranks with the square root, which keeps the order
        scores = -np.sqrt(-scores)
    np.testing.assert_allclose(scores, golden.data["scores"], **FORWARD)


# --- hand-worked cases ---------------------------------------------------------------------------


def random_case(seed: int = 0, d: int = 4, slots: int = 3, n: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "u": rng.normal(size=d),
        "i": rng.normal(size=d),
        "history": [rng.normal(size=d) for _ in range(n)],
        "key": rng.normal(size=(d, slots)),
        "memory": rng.normal(size=(slots, d)),
    }


def random_params(seed: int = 0, d: int = 3, slots: int = 2) -> Params:
    rng = np.random.default_rng(seed)
    return {
        "user": rng.normal(size=(3, d)),
        "item": rng.normal(size=(7, d)),
        "key": rng.normal(size=(d, slots)),
        "memory": rng.normal(size=(slots, d)),
    }


BATCH: Mapping[str, Any] = {
    "users": [0, 1, 2],
    "positives": [0, 1, 2],
    "negatives": [[3, 4], [5, 6], [4, 6]],
    "history": [[1, 2, -1], [-1, -1, -1], [0, 1, 3]],
}


def test_projection_shortens_long_rows_only() -> None:
    projected = oracles.project([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], 1.0)
    np.testing.assert_allclose(projected, [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])


def test_memory_attention_is_a_softmax_and_stays_finite() -> None:
    s = oracles.memory_attention([1.0, 2.0], [[0.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(s, [1 / (1 + math.e**3), 1 / (1 + math.e**-3)])
    np.testing.assert_allclose(oracles.memory_attention([1.0], [[1e4, 0.0, -1e4]]), [1, 0, 0])


def test_smoothed_attention() -> None:
    weights = [0.3, -1.0, 2.0]
    exps = np.exp(weights)
    for beta in (0.0, 0.5, 1.0):
        np.testing.assert_allclose(
            oracles.smoothed_attention(weights, beta), exps / exps.sum() ** beta
        )
    np.testing.assert_allclose(oracles.smoothed_attention([1e4, 1e4], 1.0), [0.5, 0.5])


def test_hlr_without_history_is_lrml() -> None:
    case = random_case()
    hlr = oracles.hlr_relation(case["u"], case["i"], [], case["key"], case["memory"])
    lrml = oracles.lrml_relation(case["u"], case["i"], case["key"], case["memory"])
    np.testing.assert_allclose(hlr, lrml)


def test_relations_without_any_reference_are_zero() -> None:
    case = random_case()
    zero = oracles.hlr_relation(
        case["u"], case["i"], [], case["key"], case["memory"], include_user=False
    )
    np.testing.assert_array_equal(zero, np.zeros(4))
    np.testing.assert_array_equal(oracles.adacml_relation(case["u"], case["i"], []), np.zeros(4))
    # the second relation of HLR++ always has the item as a reference
    np.testing.assert_allclose(
        oracles.hlrpp_relation(case["u"], case["i"], [], case["key"], case["memory"]),
        oracles.lrml_relation(case["u"], case["i"], case["key"], case["memory"]),
    )


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_hlr_factorises(beta: float) -> None:
    """``w_k = s_k . (memory @ u)`` and ``r = (sum_k a_k s_k) @ memory``."""
    case = random_case(seed=1)
    u, i, key, memory = case["u"], case["i"], case["key"], case["memory"]
    s = np.stack([oracles.memory_attention(i * ref, key) for ref in [u, *case["history"]]])
    w = s @ (memory @ u)
    a = np.exp(w) / np.exp(w).sum() ** beta
    np.testing.assert_allclose(
        oracles.hlr_relation(u, i, case["history"], key, memory, beta=beta), (a @ s) @ memory
    )


def test_separate_user_memory_serves_the_user_reference_only() -> None:
    case, other = random_case(seed=2), random_case(seed=3)
    u, i, key, memory = case["u"], case["i"], case["key"], case["memory"]
    without_history = oracles.hlr_relation(
        u, i, [], key, memory, user_key=other["key"], user_memory=other["memory"]
    )
    np.testing.assert_allclose(
        without_history, oracles.lrml_relation(u, i, other["key"], other["memory"])
    )
    same = oracles.hlr_relation(
        u, i, case["history"], key, memory, user_key=key, user_memory=memory
    )
    np.testing.assert_allclose(same, oracles.hlr_relation(u, i, case["history"], key, memory))


def test_attentions_ignore_the_order_of_the_history() -> None:
    case = random_case(seed=4)
    u, i, history, key, memory = (case[n] for n in ("u", "i", "history", "key", "memory"))
    np.testing.assert_allclose(
        oracles.hlrpp_relation(u, i, history, key, memory),
        oracles.hlrpp_relation(u, i, history[::-1], key, memory),
    )


def test_adacml_by_hand() -> None:
    u, i = np.zeros(2), np.array([1.0, 0.0])
    history = [np.array([0.0, 2.0]), np.array([math.log(3.0), 0.0])]
    expected = 0.25 * history[0] + 0.75 * history[1]
    np.testing.assert_allclose(oracles.adacml_relation(u, i, history), expected)


def test_history_mean_by_hand() -> None:
    u, history = np.array([1.0, 0.0]), [np.array([1.0, 2.0]), np.array([3.0, 6.0])]
    # The mean is (2, 4), and half of it leads to (2, 2).
    found = oracles.history_mean_relation(u, history, 0.5, 10.0)
    np.testing.assert_allclose(found, [1.0, 2.0])
    on_ball = oracles.history_mean_relation(u, history, 0.5, 1.0)
    np.testing.assert_allclose(u + on_ball, [math.sqrt(0.5), math.sqrt(0.5)])
    np.testing.assert_array_equal(oracles.history_mean_relation(u, [], 0.5, 1.0), [0.0, 0.0])


def test_transcf_neighbours_are_means() -> None:
    params = {"user": np.array([[1.0], [2.0]]), "item": np.array([[3.0], [5.0], [7.0]])}
    user_mean, item_mean = oracles.transcf_neighbours(params, [(0, 0), (0, 1), (1, 1)])
    np.testing.assert_allclose(user_mean, [[4.0], [5.0]])
    np.testing.assert_allclose(item_mean, [[1.0], [1.5], [0.0]])


def test_copied_relation_serves_the_negatives() -> None:
    case = random_case(seed=5)
    u, i, key, memory = case["u"], case["i"], case["key"], case["memory"]
    params = {"key": key, "memory": memory}
    relation_fn = oracles.relation_function(params, "hlr", {})
    negatives = np.stack(case["history"][:2])
    history = case["history"][2:]
    d_pos, d_neg = oracles.triplet_distances(
        relation_fn, u, i, negatives, history, copy_relation=True
    )
    relation = oracles.hlr_relation(u, i, history, key, memory)
    assert d_pos == pytest.approx(oracles.squared_distance(u + relation, i))
    np.testing.assert_allclose(d_neg, ((u + relation - negatives) ** 2).sum(axis=1))
    recomputed = oracles.triplet_distances(relation_fn, u, i, negatives, history)
    assert recomputed[0] == d_pos
    assert np.abs(recomputed[1] - d_neg).min() > 1e-6


def test_hinge_sum_mean_and_mask() -> None:
    d_pos, d_neg = [1.0, 2.0, 9.0], [[1.0, 3.0], [1.0, 2.2], [0.0, 0.0]]
    # hinges: row 0: 0.5, 0; row 1: 1.5, 0.3; row 2 is padding
    mask = [True, True, False]
    assert oracles.hinge_loss(d_pos, d_neg, 0.5, row_mask=mask) == pytest.approx(2.3)
    assert oracles.hinge_loss(d_pos, d_neg, 0.5, "mean", mask) == pytest.approx(2.3 / 4)
    assert oracles.hinge_loss(d_pos, d_neg, 0.5, "mean", [0, 0, 0]) == 0.0


def test_hinge_with_rank_weight() -> None:
    d_pos, d_neg = [1.0, 2.0, 0.0], [[1.0, 3.0, 3.0], [1.0, 2.2, 4.0], [5.0, 5.0, 5.0]]
    # impostors: 1 of 3, 2 of 3, none; ranks of 10 items: floor(10/3) = 3, floor(20/3) = 6, 0
    expected = 0.5 * math.log(4.0) + 1.5 * math.log(7.0)
    loss = functools.partial(oracles.hinge_loss, d_pos, d_neg, 0.5, rank_weight=True, num_items=10)
    assert loss() == pytest.approx(expected)
    assert loss(reduction="mean") == pytest.approx(expected / 3)
    unfloored = 0.5 * math.log(1 + 10 / 3) + 1.5 * math.log(1 + 20 / 3)
    assert loss(rank_floor=False) == pytest.approx(unfloored)


def test_covariance_penalty_forms() -> None:
    rows = np.random.default_rng(6).normal(size=(9, 4))
    covariance = np.cov(rows, rowvar=False, bias=True)
    off = covariance - np.diag(np.diag(covariance))
    assert oracles.covariance_penalty(rows) == pytest.approx(off.sum())
    assert oracles.covariance_penalty(rows, "squares") == pytest.approx((off**2).sum())
    assert oracles.covariance_penalty(rows, "paper") == pytest.approx((off**2).sum() / 9)


@pytest.mark.parametrize("model", ["cml", "lrml", "hlr", "hlrpp", "adacml", "history_mean"])
def test_batch_loss_adds_up_over_rows_and_negatives(model: str) -> None:
    params = random_params()
    whole = oracles.batch_loss(params, BATCH, model, {"beta": 0.7}, margin=2.0)
    parts = 0.0
    for b in range(3):
        for k in range(2):
            one = {
                "users": BATCH["users"][b : b + 1],
                "positives": BATCH["positives"][b : b + 1],
                "negatives": [[BATCH["negatives"][b][k]]],
                "history": [[n for n in BATCH["history"][b] if n >= 0]],
            }
            parts += oracles.batch_loss(params, one, model, {"beta": 0.7}, margin=2.0)
    assert whole == pytest.approx(parts)
    masked = {**BATCH, "row_mask": [True, True, False]}
    without_last = {name: values[:2] for name, values in BATCH.items()}
    assert oracles.batch_loss(
        params, masked, model, {}, margin=2.0, reduction="mean"
    ) == pytest.approx(
        oracles.batch_loss(params, without_last, model, {}, margin=2.0, reduction="mean")
    )


def test_batch_loss_with_the_covariance_penalty() -> None:
    params = random_params()
    plain = oracles.batch_loss(params, BATCH, "cml", {}, rank_weight=True)
    penalised = oracles.batch_loss(
        params, BATCH, "cml", {}, rank_weight=True, covariance_weight=0.1
    )
    rows = np.concatenate([params["item"], params["user"]])
    assert penalised - plain == pytest.approx(0.1 * oracles.covariance_penalty(rows))


def test_numerical_gradient_of_a_known_function() -> None:
    params = {"a": np.array([1.0, -2.0]), "b": np.array([[0.5]])}

    def f(p: Params) -> float:
        return float((p["a"] ** 3).sum() * p["b"][0, 0])

    gradient = oracles.numerical_gradient(f, params)
    np.testing.assert_allclose(gradient["a"], 1.5 * params["a"] ** 2, rtol=1e-8)
    np.testing.assert_allclose(gradient["b"], [[-7.0]], rtol=1e-8)


def test_dense_adam_moves_rows_without_a_gradient() -> None:
    """Second step by hand: the moments of the first step still move the parameter."""
    gradients = iter([{"user": np.array([[2.0]])}, {"user": np.array([[0.0]])}])
    start = {"user": np.array([[0.5]])}
    first, second = oracles.adam_steps_dense(lambda _: next(gradients), start, 2, 0.1)
    assert first["user"][0, 0] == pytest.approx(0.4, abs=1e-7)
    m, v = 0.9 * 0.2, 0.999 * 0.004
    rate = 0.1 * math.sqrt(1 - 0.999**2) / (1 - 0.9**2)
    assert second["user"][0, 0] == pytest.approx(
        float(first["user"][0, 0]) - rate * m / (math.sqrt(v) + 1e-8)
    )


def test_adam_projects_the_named_tables_after_the_step() -> None:
    start = {"user": np.array([[3.0, 4.0]]), "key": np.array([[3.0, 4.0]])}
    zero = {name: np.zeros((1, 2)) for name in start}
    (after,) = oracles.adam_steps_dense(lambda _: zero, start, 1, 0.1)
    np.testing.assert_allclose(after["user"], [[0.6, 0.8]])
    np.testing.assert_allclose(after["key"], [[3.0, 4.0]])


def test_scores_are_minus_the_training_distance() -> None:
    params = random_params(seed=7)
    for model in ("cml", "lrml", "hlr", "hlrpp", "adacml", "history_mean"):
        d_pos, _ = oracles.batch_distances(params, BATCH, model, {})
        scores = oracles.rank_scores(params, BATCH["users"], BATCH["history"], model, {})
        for b, positive in enumerate(BATCH["positives"]):
            assert scores[b, positive] == pytest.approx(-d_pos[b])


def test_transcf_scores_and_loss_use_the_neighbours() -> None:
    params = random_params(seed=8)
    user_mean, item_mean = oracles.transcf_neighbours(params, [(0, 0), (1, 1), (2, 2), (2, 4)])
    negatives = np.asarray(BATCH["negatives"])
    batch = {
        **BATCH,
        "user_neighbours": user_mean,
        "positive_neighbours": item_mean[:3],
        "negative_neighbours": item_mean[negatives],
    }
    options = {"user_neighbours": user_mean, "item_neighbours": item_mean}
    d_pos, d_neg = oracles.batch_distances(params, batch, "transcf", {})
    scores = oracles.rank_scores(params, [0, 1, 2], [[], [], []], "transcf", options)
    np.testing.assert_allclose(d_pos, [-scores[b, b] for b in range(3)])
    np.testing.assert_allclose(d_neg, -np.take_along_axis(scores, negatives, axis=1))
    alphas = {"alpha_nbr": 0.0, "alpha_dist": 0.3}
    loss = oracles.batch_loss(params, batch, "transcf", alphas)
    assert loss == pytest.approx(oracles.hinge_loss(d_pos, d_neg, 0.5) + 0.3 * d_pos.sum())


def test_top_k_leaves_out_seen_items_and_breaks_ties_by_number() -> None:
    scores = [[0.1, 0.5, 0.5, 0.9], [1.0, 2.0, 3.0, 4.0]]
    np.testing.assert_array_equal(oracles.top_k(scores, [{3}, {0, 2, 3}], 2), [[1, 2], [1, -1]])
