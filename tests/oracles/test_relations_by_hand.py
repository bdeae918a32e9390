"""The oracles of attention and relations against hand-worked cases."""

import math
from typing import Any

import numpy as np
import pytest

import oracles


def random_case(seed: int = 0, d: int = 4, slots: int = 3, n: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "u": rng.normal(size=d),
        "i": rng.normal(size=d),
        "history": [rng.normal(size=d) for _ in range(n)],
        "memories": {
            "key": rng.normal(size=(d, slots)),
            "memory": rng.normal(size=(slots, d)),
        },
    }


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
    hlr = oracles.hlr_relation(case["u"], case["i"], [], case["memories"])
    np.testing.assert_allclose(hlr, oracles.lrml_relation(case["u"], case["i"], **case["memories"]))


def test_relations_without_any_reference_are_zero() -> None:
    case = random_case()
    u, i, memories = case["u"], case["i"], case["memories"]
    zero = oracles.hlr_relation(u, i, [], memories, include_user=False)
    np.testing.assert_array_equal(zero, np.zeros(4))
    np.testing.assert_array_equal(oracles.adacml_relation(u, i, []), np.zeros(4))
    # the second relation of HLR++ always has the item as a reference
    np.testing.assert_allclose(
        oracles.hlrpp_relation(u, i, [], memories), oracles.lrml_relation(u, i, **memories)
    )


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_hlr_factorises(beta: float) -> None:
    """``w_k = s_k . (memory @ u)`` and ``r = (sum_k a_k s_k) @ memory``."""
    case = random_case(seed=1)
    u, i, memories = case["u"], case["i"], case["memories"]
    key, memory = memories["key"], memories["memory"]
    s = np.stack([oracles.memory_attention(i * ref, key) for ref in [u, *case["history"]]])
    w = s @ (memory @ u)
    a = np.exp(w) / np.exp(w).sum() ** beta
    np.testing.assert_allclose(
        oracles.hlr_relation(u, i, case["history"], memories, beta), (a @ s) @ memory
    )


def test_separate_user_memory_serves_the_user_reference_only() -> None:
    case, other = random_case(seed=2), random_case(seed=3)["memories"]
    u, i, history, memories = (case[n] for n in ("u", "i", "history", "memories"))

    def with_user(of_user: dict[str, Any]) -> dict[str, Any]:
        return memories | {f"user_{name}": value for name, value in of_user.items()}

    without_history = oracles.hlr_relation(u, i, [], with_user(other))
    np.testing.assert_allclose(without_history, oracles.lrml_relation(u, i, **other))
    same = oracles.hlr_relation(u, i, history, with_user(memories))
    np.testing.assert_allclose(same, oracles.hlr_relation(u, i, history, memories))


def test_attentions_ignore_the_order_of_the_history() -> None:
    case = random_case(seed=4)
    u, i, history, memories = (case[n] for n in ("u", "i", "history", "memories"))
    np.testing.assert_allclose(
        oracles.hlrpp_relation(u, i, history, memories),
        oracles.hlrpp_relation(u, i, history[::-1], memories),
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


def test_items_only_by_hand() -> None:
    history = [np.array([1.0, 2.0]), np.array([3.0, 6.0])]
    found = oracles.items_only_relation(np.zeros(2), history, 0.5)
    np.testing.assert_allclose(found, [1.0, 2.0])
    np.testing.assert_array_equal(oracles.items_only_relation(np.ones(2), [], 0.5), [0.0, 0.0])


def test_nearest_items_by_hand() -> None:
    u, i = np.array([0.0, 1.0]), np.array([1.0, 0.0])
    history = [np.array([0.0, 2.0]), np.array([0.5 * math.log(3.0), 0.0])]
    # The second is three times as near, and half of the way is gone.
    expected = 0.5 * (0.25 * history[0] + 0.75 * history[1] - u)
    np.testing.assert_allclose(oracles.nearest_items_relation(u, i, history, 0.5, 0.5), expected)
    np.testing.assert_array_equal(oracles.nearest_items_relation(u, i, [], 0.5, 0.5), [0.0, 0.0])


def test_recent_items_by_hand() -> None:
    i, history = np.zeros(2), [np.array([1.0, 0.0]), np.array([0.0, 4.0]), np.array([8.0, 0.0])]
    expected = 2.0 * np.array([1.0 + 2.0, 2.0])
    np.testing.assert_allclose(oracles.recent_items_relation(i, history, 2.0, 0.5), expected)
    np.testing.assert_array_equal(oracles.recent_items_relation(i, [], 2.0, 0.5), [0.0, 0.0])


def test_rotation_by_hand() -> None:
    """The first of two planes is turned by a right angle, the second by none."""
    u, i = np.array([1.0, 2.0, 0.5, -1.0]), np.array([math.pi / 4, 0.0, 0.0, 0.0])
    key = np.array([[1.0, 4.0], [5.0, 5.0], [5.0, 5.0], [5.0, 5.0]])
    angles = np.array([[-2.0, -4.0], [1.0, 1.0]])
    rotated = u + oracles.rotation_relation(u, i, key, angles)
    np.testing.assert_allclose(rotated, [-0.5, 2.0, 1.0, -1.0], atol=1e-12)


def test_one_head_is_lrml_and_others_are_lrml_on_their_dimensions() -> None:
    case = random_case(seed=6)
    u, i, (key, memory) = case["u"], case["i"], (case["memories"][n] for n in ("key", "memory"))
    one = oracles.multi_head_relation(u, i, key, memory, 1)
    np.testing.assert_allclose(one, oracles.lrml_relation(u, i, key, memory))
    half = len(u) // 2
    two = oracles.multi_head_relation(u, i, key, memory, 2)
    of_first = oracles.lrml_relation(u[:half], i[:half], key[:half], memory[:, :half])
    np.testing.assert_allclose(two[:half], of_first)
    assert np.abs(two - one).max() > 1e-3


def test_transcf_neighbours_are_means() -> None:
    params = {"user": np.array([[1.0], [2.0]]), "item": np.array([[3.0], [5.0], [7.0]])}
    user_mean, item_mean = oracles.transcf_neighbours(params, [(0, 0), (0, 1), (1, 1)])
    np.testing.assert_allclose(user_mean, [[4.0], [5.0]])
    np.testing.assert_allclose(item_mean, [[1.0], [1.5], [0.0]])


@pytest.mark.parametrize("geometry", [oracles.BALL, oracles.Sphere(), oracles.Lorentz()])
def test_copied_relation_serves_the_negatives(geometry: oracles.Geometry) -> None:
    case = random_case(seed=5)
    u, i, memories = case["u"], case["i"], case["memories"]
    relation_fn = oracles.relation_function(memories, "hlr", {})
    negatives, history = np.stack(case["history"][:2]), case["history"][2:]
    d_pos, d_neg = oracles.triplet_distances(
        relation_fn, u, [i, *negatives], history, copy_relation=True, geometry=geometry
    )
    relation = oracles.hlr_relation(u, i, history, memories)
    assert d_pos == pytest.approx(geometry.distance(u + relation, i))
    np.testing.assert_allclose(d_neg, [geometry.distance(u + relation, j) for j in negatives])
    recomputed = oracles.triplet_distances(
        relation_fn, u, [i, *negatives], history, geometry=geometry
    )
    assert recomputed[0] == d_pos
    assert np.abs(recomputed[1] - d_neg).min() > 1e-6


def test_neighbours_and_the_closest_vector_are_those_of_points() -> None:
    """On the sphere a long vector is no farther than a short one of the same direction."""
    sphere = oracles.Sphere()
    params = {"user": np.array([[2.0, 0.0]]), "item": np.array([[0.0, 5.0], [3.0, 0.0]])}
    user_mean, item_mean = oracles.transcf_neighbours(params, [(0, 0), (0, 1)], sphere)
    np.testing.assert_allclose(user_mean, [[0.5, 0.5]])
    np.testing.assert_allclose(item_mean, [[1.0, 0.0], [1.0, 0.0]])
    two, item = np.array([0.6, 0.0, 0.0, 9.0]), np.array([0.2, 0.8])
    np.testing.assert_array_equal(oracles.dpcml_relation(two, item), [0.0, 0.0])
    np.testing.assert_array_equal(oracles.dpcml_relation(two, item, geometry=sphere), [-0.6, 9.0])
