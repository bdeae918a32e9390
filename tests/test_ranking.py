"""The best items of the whole catalogue: equal to scoring every pair by its definition."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from hlr_jax import models
from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation import ranking
from hlr_jax.kernels import tiled_scores as tiles
from hlr_jax.models import Relation
from hlr_jax.models import relation as base
from hlr_jax.models.memory import HistoryRelation
from hlr_jax.sampling import sources
from hlr_jax.training.step import Params, init_params

USERS, ITEMS, DIM = 12, 23, 6
LONGEST = 8
KEY = jax.random.key(0)

CASES = [
    pytest.param("cml", {}, id="cml"),
    pytest.param("dpcml", {"vectors": 3}, id="dpcml"),
    pytest.param("lrml", {"slots": 4}, id="lrml"),
    pytest.param("history_mean", {"history_weight": 0.8}, id="history_mean"),
    pytest.param("hlr", {"slots": 4, "beta": 0.7}, id="hlr"),
    pytest.param("hlr", {"slots": 3, "include_user": False}, id="hlr-without-user"),
    pytest.param("hlr", {"slots": 3, "include_user": False, "beta": 0.4}, id="hlr-smoothed"),
    pytest.param("hlr", {"slots": 3, "separate_user_memory": True}, id="hlr-separate"),
    pytest.param("hlr", {"slots": 3, "separate_user_memory": True, "beta": 0.6}, id="hlr-both"),
    pytest.param("hlrpp", {"slots": 4}, id="hlrpp-softmax"),
    pytest.param("hlrpp", {"slots": 4, "beta": 0.8}, id="hlrpp"),
]


def interactions(items_of: list[list[int]], num_items: int = ITEMS) -> Interactions:
    users = [user for user, items in enumerate(items_of) for _ in items]
    items = [item for items in items_of for item in items]
    return Interactions.from_pairs(
        np.array(users, int), np.array(items, int), len(items_of), num_items
    )


@functools.cache
def known() -> Interactions:
    """Up to 8 items a user; the first has none."""
    generator = np.random.default_rng(1)
    sizes = [0, LONGEST, 1, *generator.integers(1, LONGEST + 1, USERS - 3).tolist()]
    return interactions([generator.permutation(ITEMS)[:size].tolist() for size in sizes])


def build(name: str, options: dict[str, Any]) -> tuple[Relation, Params]:
    """A model whose relations are as long as its rows, so that they matter."""
    model = models.build(name, DIM, options)
    params = init_params(jax.random.key(2), model, USERS, ITEMS)
    return model, params | {"relation": jax.tree.map(lambda x: 2 * x, params["relation"])}


def in_float64(params: Params) -> oracles.Params:
    flat = {"user": params["user"], "item": params["item"], **params["relation"]}
    return {key: np.asarray(value, np.float64) for key, value in flat.items()}


def oracle_scores(
    name: str, options: dict[str, Any], params: Params, histories: list[list[int]]
) -> np.ndarray:
    return oracles.rank_scores(in_float64(params), range(USERS), histories, name, options)


def top_k(model: Relation, params: Params, users: np.ndarray, k: int, **kwargs: Any) -> Any:
    kwargs = {"history": known(), "seen": known(), "length": LONGEST, "key": KEY} | kwargs
    return ranking.top_k(model, params, users=users, k=k, **kwargs)


@pytest.mark.parametrize(("name", "options"), CASES)
# Catalogue, batches, tiles within tiles and blocks of users do not divide one another. Batches are
# small enough and large enough for both ways to look up slot weights.
@pytest.mark.parametrize(
    ("tile", "batch_size", "sizes"),
    [(8, 5, (1, 5)), (16, 12, (400, 7)), (512, 1, (2**17, 32))],
)
def test_top_k_is_the_pairwise_definition(name, options, tile, batch_size, sizes, monkeypatch):
    monkeypatch.setattr(ranking, "TILE", tile)
    monkeypatch.setattr(tiles, "sizes", lambda: tiles.Sizes(*sizes))
    monkeypatch.setattr(tiles, "table_tile", lambda rows, slots: sizes[1])
    jax.clear_caches()  # They do not know of these sizes.
    model, params = build(name, options)
    users, k = np.array([3, 0, 1, 2, 11, 5, 4, 7, 6, 10, 9, 8], np.int32), ITEMS
    ids, scores = top_k(model, params, users, k, batch_size=batch_size)
    histories = [known().of(user).tolist() for user in range(USERS)]
    wanted_scores = oracle_scores(name, options, params, histories)[users]
    wanted = oracles.top_k(wanted_scores, [histories[user] for user in users], k)
    np.testing.assert_array_equal(ids >= 0, wanted >= 0)
    for row, user in enumerate(users.tolist()):
        found = ids[row][ids[row] >= 0]
        assert sorted(found) == sorted(set(range(ITEMS)) - set(histories[user]))
        in_order = wanted_scores[row][wanted[row][wanted[row] >= 0]]
        np.testing.assert_allclose(scores[row][: len(found)], in_order, rtol=1e-4, atol=1e-5)
        # Each item has the score it was ranked by: only items nearer than rounding may swap.
        np.testing.assert_allclose(
            scores[row][: len(found)], wanted_scores[row][found], rtol=1e-4, atol=1e-5
        )
        assert (scores[row][len(found) :] == -np.inf).all()


@pytest.mark.parametrize("tile", [8, 512])
@pytest.mark.parametrize("k", [6, 23])
def test_equal_scores_come_in_the_order_of_items(tile, k, monkeypatch):
    monkeypatch.setattr(ranking, "TILE", tile)
    generator = np.random.default_rng(3)
    # Few different rows of halves: scores are exact, and many are equal.
    params = {
        "user": jnp.asarray(generator.integers(-1, 2, (USERS, DIM)) / 2, jnp.float32),
        "item": jnp.asarray(generator.integers(-1, 2, (3, DIM)) / 2, jnp.float32)[
            generator.integers(0, 3, ITEMS)
        ],
        "relation": {},
    }
    users = np.arange(USERS, dtype=np.int32)
    ids, scores = top_k(models.build("cml", DIM, {}), params, users, k)
    exact = oracle_scores("cml", {}, params, [[]] * USERS)
    wanted = oracles.top_k(exact, [known().of(user).tolist() for user in users.tolist()], k)
    np.testing.assert_array_equal(ids, wanted)
    rows, places = np.nonzero(ids >= 0)
    np.testing.assert_array_equal(scores[rows, places], exact[rows, ids[rows, places]])


def test_rows_are_multiplied_in_full_float32():
    """A GPU or a TPU multiplies less precisely by default; what a CPU computes would not tell."""
    program = jax.jit(tiles.product_scores).lower(jnp.zeros((2, DIM)), jnp.zeros((4, DIM)))
    products = [line for line in program.as_text().splitlines() if "dot_general" in line]
    assert len(products) == 1
    assert "[HIGHEST, HIGHEST]" in products[0]


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("users", [1, USERS])
def test_fast_scores_are_those_of_any_relation(name, options, users):
    """The overridden `scores`, the one for any `from_references`, and the one for any model."""
    model, params = build(name, options)
    rows, items = params["user"][:users], params["item"]
    histories = None
    if model.uses_history:
        ids = jnp.arange(users, dtype=jnp.int32)
        histories = ranking.user_histories(KEY, sources.Rows.of(known()), ids, LONGEST, None)

    def scores(method: Any) -> np.ndarray:
        args = rows, items, items, histories
        return np.asarray(model.apply({"params": params["relation"]}, *args, method=method))

    wanted = scores(Relation.scores)
    assert wanted.shape == (users, ITEMS)
    fast = base.scores(model, params["relation"], rows, items, items, histories)
    np.testing.assert_allclose(fast, wanted, rtol=1e-4, atol=1e-5)
    if isinstance(model, HistoryRelation):
        np.testing.assert_allclose(scores(HistoryRelation.scores), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "slots"), [(1, 1), (3_260, 20), (13_000, 20), (10**6, 64)])
def test_slot_weights_are_looked_up_in_tables_of_bounded_size(rows, slots):
    size = tiles.table_tile(rows, slots)
    assert 4 <= size <= tiles.sizes().items
    assert size == 4 or rows * slots * size <= 32 * tiles.sizes().floats


def test_seen_items_are_left_out_and_missing_ones_marked(monkeypatch):
    monkeypatch.setattr(ranking, "TILE", 8)
    seen_of = [list(range(ITEMS)), list(range(1, ITEMS)), [], [0, ITEMS - 1]] + [[]] * 8
    model, params = build("lrml", {"slots": 4})
    users = np.arange(4, dtype=np.int32)
    ids, scores = top_k(model, params, users, 3, seen=interactions(seen_of), batch_size=3)
    np.testing.assert_array_equal(ids[0], [-1, -1, -1])
    np.testing.assert_array_equal(ids[1], [0, -1, -1])
    assert (scores[0] == -np.inf).all()
    assert (scores[1, 1:] == -np.inf).all()
    assert np.isfinite(scores[2:]).all()
    for user in range(4):
        assert not set(ids[user].tolist()) & set(seen_of[user])


def test_nobody_to_rank_for():
    model, params = build("hlr", {"slots": 4})
    ids, scores = top_k(model, params, np.zeros(0, np.int32), 5)
    assert ids.shape == scores.shape == (0, 5)


@pytest.mark.parametrize(("name", "kind"), [("hlr", "uniform"), ("hlrpp", "unpopular")])
def test_drawn_histories_depend_on_key_and_user_alone(name, kind):
    model, params = build(name, {"slots": 4})
    log_weights = sources.history_log_weights(kind, known().popularity)
    users = np.arange(USERS, dtype=np.int32)
    rank = functools.partial(top_k, model, params, k=5, length=2, log_weights=log_weights)
    _, at_once = rank(users, batch_size=100)
    _, scores = rank(users, batch_size=5)
    np.testing.assert_allclose(scores, at_once, rtol=1e-4, atol=1e-5)
    _, reverse = rank(users[::-1].copy(), batch_size=5)
    np.testing.assert_allclose(reverse[::-1], at_once, rtol=1e-4, atol=1e-5)
    _, other = rank(users, key=jax.random.key(9))
    assert (abs(other - at_once) > 1e-3).any()


def test_a_drawn_history_is_a_part_of_the_own():
    model, params = build("hlr", {"slots": 4})
    drawn = ranking.user_histories(
        KEY, sources.Rows.of(known()), jnp.arange(USERS, dtype=jnp.int32), 2, None
    )
    parts = [
        items[mask].tolist()
        for items, mask in zip(np.asarray(drawn.items), np.asarray(drawn.mask), strict=True)
    ]
    for user, part in enumerate(parts):
        own = known().of(user).tolist()
        assert len(part) == min(2, len(own))
        assert set(part) <= set(own)
    users = np.arange(USERS, dtype=np.int32)
    ids, scores = top_k(model, params, users, 4, length=2)
    wanted = oracle_scores("hlr", {}, params, parts)
    np.testing.assert_allclose(scores, wanted[users[:, None], ids], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_scores_of_given_pairs_leave_the_target_out_of_its_history(name, options):
    model, params = build(name, options)
    users = np.array([4, 0, 1, 1, 9], np.int32)
    # All items: those of the history too.
    candidates = np.stack([np.roll(np.arange(ITEMS), user) for user in users])
    found = ranking.pair_scores(
        params,
        jnp.asarray(users),
        jnp.asarray(candidates, jnp.int32),
        sources.Rows.of(known()),
        None,
        KEY,
        model=model,
        length=LONGEST,
    )
    flat = in_float64(params)
    relation = oracles.relation_function(flat, name, options)
    wanted = np.zeros(candidates.shape)
    for row, place in np.ndindex(candidates.shape):
        user, item = users[row], candidates[row, place]
        others = [other for other in known().of(int(user)).tolist() if other != item]
        u, i = flat["user"][user], flat["item"][item]
        r = relation(u, i, oracles.history_vectors(flat["item"], others))
        wanted[row, place] = -oracles.squared_distance(oracles.user_vectors(u, DIM)[0] + r, i)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
