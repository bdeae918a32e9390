"""The best items of the whole catalogue: equal to scoring every pair by its definition."""

import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles.rows import embedded_tables
from support.interactions import interactions
from support.ranked import BALL, CASES, DIM, ITEMS, MODELS, USERS, Case, build, known, ranker

from hlr_jax.evaluation import ranking
from hlr_jax.functional.geometry import GEOMETRIES
from hlr_jax.functional.geometry.lorentz import Lorentz
from hlr_jax.functional.geometry.sphere import Sphere
from hlr_jax.kernels import sizes as kernel_sizes
from hlr_jax.kernels.sizes import Sizes
from hlr_jax.models import RELATIONS, Relation
from hlr_jax.models.memory import HistoryRelation
from hlr_jax.sampling.histories import history_choice, user_histories
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.types import Params

OTHER_KEY = jax.random.key(9)

ORACLE_BALL = oracles.BALL
SPHERE, ORACLE_SPHERE = Sphere(radius=1.3), oracles.Sphere(1.3)
LORENTZ, ORACLE_LORENTZ = Lorentz(curvature=0.7), oracles.Lorentz(0.7)


def in_float64(params: Params) -> oracles.Params:
    flat = {"user": params["user"], "item": params["item"], **params["relation"]}
    return {key: np.asarray(value, np.float64) for key, value in flat.items()}


def oracle_scores(
    case: Case,
    params: Params,
    histories: list[list[int]],
    geometry: oracles.Geometry = ORACLE_BALL,
) -> np.ndarray:
    (name, options), flat = case, in_float64(params)
    if name == "transcf":
        pairs = list(zip(known().users.tolist(), known().items.tolist(), strict=True))
        means = oracles.transcf_neighbours(flat, pairs, geometry)
        options = {"user_neighbours": means[0], "item_neighbours": means[1]}
    return oracles.rank_scores(flat, range(USERS), histories, name, options, geometry)


@pytest.fixture(scope="module", autouse=True)
def _programs() -> Iterator[None]:
    """Leave no program behind that was compiled with sizes of a test."""
    yield
    ranking.top_k.clear_cache()


# Catalogue, batches, tiles within tiles and blocks of users do not divide one another. Batches are
# small enough and large enough for both ways to look up slot weights.
SIZES = {
    "small": (8, 5, Sizes(1, 32, 5)),
    "medium": (16, 6, Sizes(400, 12_800, 7)),
    "usual": (kernel_sizes.RANKING_TILE, USERS, None),
}


@pytest.fixture(scope="module")
def sizes(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many items and users are scored together; the size of a batch."""
    tile, batch_size, scoring = SIZES[request.param]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kernel_sizes, "RANKING_TILE", tile)
        if scoring is not None:
            for name, module in sys.modules.items():
                if name.startswith("hlr_jax.") and hasattr(module, "scoring_sizes"):
                    patched.setattr(module, "scoring_sizes", lambda: scoring)
        ranking.top_k.clear_cache()  # It does not know of these sizes.
        yield batch_size


# Other geometries score by the relation itself, whatever its options.
RANKED = [
    pytest.param(*where, case, id=f"{where[0]}-{type(where[1]).__name__}-{case}")
    for where, cases in [
        (("small", BALL, ORACLE_BALL), CASES),
        (("medium", BALL, ORACLE_BALL), CASES),
        (("medium", SPHERE, ORACLE_SPHERE), MODELS),
        (("usual", LORENTZ, ORACLE_LORENTZ), MODELS),
    ]
    for case in cases
]


@pytest.mark.parametrize(("sizes", "geometry", "oracle", "case"), RANKED, indirect=["sizes"])
def test_top_k_is_the_pairwise_definition(sizes, geometry, oracle, case):
    model, params = build(CASES[case], geometry)
    users, k = np.array([3, 0, 1, 2, 11, 5, 4, 7, 6, 10, 9, 8], np.int32), ITEMS
    ids, scores = ranker(model, params, sizes).top_k(users, k, known(), known())
    histories = [known().of(user).tolist() for user in range(USERS)]
    wanted_scores = oracle_scores(CASES[case], params, histories, oracle)[users]
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


def test_every_model_and_geometry_is_ranked():
    """In the test above; a new one is added to its cases."""
    assert {CASES[name][0] for name in MODELS} == set(RELATIONS.names())
    assert {type(g) for g in (BALL, SPHERE, LORENTZ)} == {
        GEOMETRIES.get(name) for name in GEOMETRIES.names()
    }


@pytest.mark.parametrize("sizes", ["small", "usual"], indirect=True)
def test_equal_scores_come_in_the_order_of_items(sizes):
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
    exact = oracle_scores(CASES["cml"], params, [[]] * USERS)
    seen = [known().of(user).tolist() for user in users.tolist()]
    for k in (6, ITEMS):
        ranks = ranker(build(CASES["cml"])[0], params)
        ids, scores = ranks.top_k(users, k, known(), known())
        np.testing.assert_array_equal(ids, oracles.top_k(exact, seen, k))
        rows, places = np.nonzero(ids >= 0)
        np.testing.assert_array_equal(scores[rows, places], exact[rows, ids[rows, places]])


@pytest.mark.parametrize("sizes", ["small"], indirect=True)
def test_seen_items_are_left_out_and_missing_ones_marked(sizes):
    seen_of = [list(range(ITEMS)), list(range(1, ITEMS)), [], [0, ITEMS - 1]] + [[]] * 8
    model, params = build(CASES["lrml"])
    users = np.arange(4, dtype=np.int32)
    ids, scores = ranker(model, params, 3).top_k(users, 3, known(), interactions(seen_of, ITEMS))
    np.testing.assert_array_equal(ids[0], [-1, -1, -1])
    np.testing.assert_array_equal(ids[1], [0, -1, -1])
    assert (scores[0] == -np.inf).all()
    assert (scores[1, 1:] == -np.inf).all()
    assert np.isfinite(scores[2:]).all()
    for user in range(4):
        assert not set(ids[user].tolist()) & set(seen_of[user])


def test_nobody_to_rank_for():
    model, params = build(CASES["hlr"])
    ids, scores = ranker(model, params).top_k(np.zeros(0, np.int32), 5, known(), known())
    assert ids.shape == scores.shape == (0, 5)


# --- scores --------------------------------------------------------------------------------------


def test_rows_are_multiplied_in_full_float32():
    """A GPU or a TPU multiplies less precisely by default; what a CPU computes would not tell."""
    top_k, texts = ranking.top_k, []

    def traced(users: Any, tables: Any, *static: Any) -> Any:
        program = jax.make_jaxpr(lambda *args: top_k(*args, *static))(users, tables)
        texts.append(str(program))
        return top_k(users, tables, *static)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ranking, "top_k", traced)
        users = np.arange(2, dtype=np.int32)
        ranker(*build(CASES["cml"])).top_k(users, 3, known(), known())
    assert texts[0].count("dot_general") == 1
    assert texts[0].count("HIGHEST") == 2


@pytest.mark.parametrize("case", [case for case in CASES if case != "transcf"])
def test_fast_scores_are_those_of_any_relation(case):
    """The overridden scores, those of any `from_references`, and those of any model."""
    model, params = build(CASES[case])
    users, items = params["user"], params["item"]
    draw = ranker(model, params).draw
    ids = jnp.arange(USERS, dtype=jnp.int32)
    histories = user_histories(draw, DeviceInteractions.of(known()), ids)
    methods: dict[str, Any] = {"any": Relation.general_scores, "fast": type(model).scores}
    if isinstance(model, HistoryRelation):
        methods["references"] = HistoryRelation.general_scores

    @jax.jit
    def scores(relation: Params) -> dict[str, jax.Array]:
        args = users, items, items, histories
        variables = {"params": relation}
        return {name: model.apply(variables, *args, method=how) for name, how in methods.items()}

    found = scores(params["relation"])
    assert found["any"].shape == (USERS, ITEMS)
    for values in found.values():
        np.testing.assert_allclose(values, found["any"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "slots"), [(1, 1), (3_260, 20), (13_000, 20), (10**6, 64)])
def test_slot_weights_are_looked_up_in_tables_of_bounded_size(rows, slots):
    size, scoring = kernel_sizes.table_tile(rows, slots), kernel_sizes.scoring_sizes()
    assert 4 <= size <= scoring.items
    assert size == 4 or rows * slots * size <= scoring.table


# --- histories -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "kind"), [("hlr", "uniform"), ("hlrpp", "unpopular")])
def test_drawn_histories_depend_on_key_and_user_alone(case, kind):
    model, params = build(CASES[case])
    users = np.arange(USERS, dtype=np.int32)
    drawn = {"choice": history_choice(kind, known().popularity), "length": 2}

    def rank(users: np.ndarray, **changes: Any) -> np.ndarray:
        ranks = ranker(model, params, **drawn | {"batch_size": 5} | changes)
        return ranks.top_k(users, 5, known(), known())[1]

    together, other = rank(users, batch_size=100), rank(users, batch_size=100, key=OTHER_KEY)
    np.testing.assert_allclose(rank(users), together, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rank(users[::-1].copy())[::-1], together, rtol=1e-4, atol=1e-5)
    assert (abs(other - together) > 1e-3).any()


def test_a_drawn_history_is_a_part_of_the_own():
    model, params = build(CASES["hlr"])
    ranks = ranker(model, params, length=2)
    numbers = jnp.arange(USERS, dtype=jnp.int32)
    drawn = user_histories(ranks.draw, DeviceInteractions.of(known()), numbers)
    parts = [
        items[mask].tolist()
        for items, mask in zip(np.asarray(drawn.items), np.asarray(drawn.mask), strict=True)
    ]
    for user, part in enumerate(parts):
        own = known().of(user).tolist()
        assert len(part) == min(2, len(own))
        assert set(part) <= set(own)
    users = np.arange(USERS, dtype=np.int32)
    ids, scores = ranks.top_k(users, 5, known(), known())
    wanted = oracle_scores(CASES["hlr"], params, parts)
    np.testing.assert_allclose(scores, wanted[users[:, None], ids], rtol=1e-4, atol=1e-5)


# --- given pairs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if case != "transcf"])
def test_scores_of_given_pairs_leave_the_target_out_of_its_history(case):
    # The sphere maps rows of histories to other points too.
    geometry, oracle = (SPHERE, ORACLE_SPHERE) if case == "hlr" else (BALL, ORACLE_BALL)
    model, params = build(CASES[case], geometry)
    users = np.array([4, 0, 1, 1, 9], np.int32)
    # All items: those of the history too.
    candidates = np.stack([np.roll(np.arange(ITEMS, dtype=np.int32), user) for user in users])
    found = ranker(model, params).pair_scores(users, candidates, known())
    flat = in_float64(params)
    relation = oracles.relation_function(flat, *CASES[case], oracle)
    points = dict(zip(("user", "item"), embedded_tables(oracle, flat), strict=True))
    wanted = np.zeros(candidates.shape)
    for row, place in np.ndindex(candidates.shape):
        user, item = users[row], candidates[row, place]
        others = [other for other in known().of(int(user)).tolist() if other != item]
        u, i = points["user"][user], points["item"][item]
        r = relation(u, i, oracles.history_vectors(points["item"], others))
        wanted[row, place] = -oracle.distance(oracles.first_vector(u, DIM) + r, i)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
