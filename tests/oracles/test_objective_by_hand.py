"""The oracles of losses, objectives, optimizers and rankings against hand-worked cases."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import oracles
from oracles import Loss, Params


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


# Training interactions.
PAIRS = ((0, 0), (1, 1), (2, 2), (2, 4))
GEOMETRIES = (oracles.BALL, oracles.Sphere(1.3), oracles.Lorentz(0.7))


def test_hinge_sum_mean_and_mask() -> None:
    d_pos, d_neg = [1.0, 2.0, 9.0], [[1.0, 3.0], [1.0, 2.2], [0.0, 0.0]]
    # hinges: row 0: 0.5, 0; row 1: 1.5, 0.3; row 2 is padding
    mean, valid = Loss(reduction="mean"), [True, True, False]
    assert oracles.loss_of_distances(d_pos, d_neg, Loss(), weight=valid) == pytest.approx(2.3)
    found = oracles.loss_of_distances(d_pos, d_neg, mean, weight=valid)
    assert found == pytest.approx(2.3 / 4)
    assert oracles.loss_of_distances(d_pos, d_neg, mean, weight=[0, 0, 0]) == 0.0
    # without the second negative of row 1
    mask = [[True, True], [True, False], [True, True]]
    found = oracles.loss_of_distances(d_pos, d_neg, mean, mask, valid)
    assert found == pytest.approx(2.0 / 3)


def test_warp_weighs_the_hinge_of_the_closest_negative() -> None:
    d_pos, d_neg = [1.0, 2.0, 0.0], [[1.0, 3.0, 3.0], [1.0, 2.2, 4.0], [5.0, 5.0, 5.0]]
    # impostors: 1 of 3, 2 of 3, none; ranks of 10 items: floor(10/3) = 3, floor(20/3) = 6, 0
    expected = 0.5 * math.log(4.0) + 1.5 * math.log(7.0)

    def loss(**changes: Any) -> float:
        return oracles.loss_of_distances(d_pos, d_neg, Loss("warp", num_items=10, **changes))

    assert loss() == pytest.approx(expected)
    assert loss(reduction="mean") == pytest.approx(expected / 3)
    unfloored = 0.5 * math.log(1 + 10 / 3) + 1.5 * math.log(1 + 20 / 3)
    assert loss(rank_floor=False) == pytest.approx(unfloored)


@pytest.mark.parametrize(
    ("name", "expected", "terms"),
    [
        ("hinge", 0.7 + 0.2, 2),
        ("hardest", 0.7, 1),
        ("warp", 0.7 * math.log(1 + 10), 1),
        ("cpe", 0.7 + 0.2, 2),
        ("sfcml", (0.7**2 + 0.2**2) / 2, 1),
        ("contrastive", 1.0 + 4.0 * 0.0, 1),
        ("softmax", math.log(1 + math.exp(0.4) + math.exp(-0.6)), 1),
    ],
)
def test_losses_of_a_row_by_hand(name: str, expected: float, terms: int) -> None:
    """Of gaps -0.2 and 0.3 and a margin of 0.5; what is masked does not count, however close."""
    numbers = {"num_items": 10, "negative_weight": 4.0}
    for negatives, mask in (([0.8, 1.3], None), ([0.8, 0.1, 1.3], [True, False, True])):
        found = oracles.loss_of_row(name, 1.0, negatives, mask, **numbers)
        assert found == (pytest.approx(expected), terms)


def test_losses_without_a_negative_that_counts() -> None:
    """A positive is still pulled by the contrastive loss; a mean over terms has none of hinges."""
    names = ("hinge", "hardest", "warp", "cpe", "sfcml", "contrastive", "softmax")
    found = {name: oracles.loss_of_row(name, 2.0, [1.0], [False], num_items=9) for name in names}
    assert found == dict.fromkeys(names, (0.0, 1)) | {
        "hinge": (0.0, 0),
        "cpe": (0.0, 0),
        "contrastive": (2.0, 1),
    }
    with pytest.raises(ValueError, match="unknown loss"):
        oracles.loss_of_row("semi_hard", 1.0, [1.0])


def test_the_contrastive_loss_pushes_what_is_inside_the_margin() -> None:
    found, _ = oracles.loss_of_row("contrastive", 1.0, [0.1, 0.3, 9.0], negative_weight=3.0)
    assert found == pytest.approx(1.0 + 3.0 * (0.4 + 0.2) / 3)


def test_shared_negatives_count_once_and_only_unseen() -> None:
    assert oracles.unseen_negatives([4, 2, 4, 7], {2}).tolist() == [True, False, False, True]
    d_neg = [[1.0, 0.0, 0.0, 1.2], [1.1, 1.3, 0.0, 1.4]]
    loss, terms = oracles.shared_negatives_loss(
        [1.0, 1.0], d_neg, [4, 2, 4, 7], [{2}, {7}], [1.0, 0.5], Loss()
    )
    # Rows count negatives 0 and 3, then 0 and 1.
    assert loss == pytest.approx((0.5 + 0.3) + 0.5 * (0.4 + 0.2))
    assert terms == 2 + 0.5 * 2


def test_weights_of_users_and_of_negatives() -> None:
    assert oracles.user_weight(4, 0.5) == 0.5
    assert oracles.user_weight(0, 0.5) == oracles.user_weight(7, 0.0) == 1.0
    found = oracles.negative_probabilities([9, 4, 0, 1], {3}, 0.5)
    np.testing.assert_allclose(found, [3 / 6, 2 / 6, 1 / 6, 0])
    np.testing.assert_allclose(oracles.negative_probabilities([9, 4], set()), [0.5, 0.5])


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
    plain = oracles.batch_loss(params, BATCH, "cml", {}, name="warp")
    penalised = oracles.batch_loss(params, BATCH, "cml", {}, name="warp", covariance_weight=0.1)
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


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_scores_are_minus_the_training_distance(geometry: oracles.Geometry) -> None:
    params = random_params(seed=7)
    several = {**params, "user": np.random.default_rng(9).normal(size=(3, 6))}
    for model in ("cml", "cmlf", "lrml", "hlr", "hlrpp", "adacml", "history_mean", "dpcml"):
        tables = several if model == "dpcml" else params
        d_pos, _ = oracles.batch_distances(tables, BATCH, model, {}, geometry)
        scores = oracles.rank_scores(tables, BATCH["users"], BATCH["history"], model, {}, geometry)
        for b, positive in enumerate(BATCH["positives"]):
            assert scores[b, positive] == pytest.approx(-d_pos[b])


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_transcf_scores_and_loss_use_the_neighbours(geometry: oracles.Geometry) -> None:
    params = random_params(seed=8)
    user_mean, item_mean = oracles.transcf_neighbours(params, PAIRS, geometry)
    negatives = np.asarray(BATCH["negatives"])
    batch = {
        **BATCH,
        "user_neighbours": user_mean,
        "positive_neighbours": item_mean[:3],
        "negative_neighbours": item_mean[negatives],
    }
    options = {"user_neighbours": user_mean, "item_neighbours": item_mean}
    d_pos, d_neg = oracles.batch_distances(params, batch, "transcf", {}, geometry)
    scores = oracles.rank_scores(params, [0, 1, 2], [[], [], []], "transcf", options, geometry)
    np.testing.assert_allclose(d_pos, [-scores[b, b] for b in range(3)])
    np.testing.assert_allclose(d_neg, -np.take_along_axis(scores, negatives, axis=1))
    alphas = {"alpha_nbr": 0.0, "alpha_dist": 0.3}
    loss = oracles.batch_loss(params, batch, "transcf", alphas, geometry)
    assert loss == pytest.approx(
        oracles.loss_of_distances(d_pos, d_neg, Loss()) + 0.3 * d_pos.sum()
    )


def test_top_k_leaves_out_seen_items_and_breaks_ties_by_number() -> None:
    scores = [[0.1, 0.5, 0.5, 0.9], [1.0, 2.0, 3.0, 4.0]]
    np.testing.assert_array_equal(oracles.top_k(scores, [{3}, {0, 2, 3}], 2), [[1, 2], [1, -1]])
