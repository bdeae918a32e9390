"""What people ask of a trained model: by ids, the same as its scores say, and nothing at random."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
from support.planted import planted_of
from support.untrained import OWN_MODELS, untrained
from table_runs import hand_made

from hlr_jax import Dataset, InputError, Interactions, Recommender
from hlr_jax.config import ShardingConfig
from hlr_jax.evaluation import nearest as nearest_module
from hlr_jax.evaluation import ranking
from hlr_jax.evaluation.requests import filled_up, ranked


@pytest.fixture(scope="module")
def models():
    made: dict[str, Recommender] = {}

    def of(name: str) -> Recommender:
        if name not in made:
            made[name] = untrained(name)
        return made[name]

    return of


def named(recommender: Recommender, letter: str = "u") -> Recommender:
    """The same with ids that are text."""
    data = recommender.dataset
    ids = np.array([f"{letter}{user:03}" for user in range(data.num_users)])
    return dataclasses.replace(recommender, dataset=dataclasses.replace(data, user_ids=ids))


def everything_of(data: Dataset, user: int) -> set[int]:
    return {item for part in (data.train, data.valid, data.test) for item in part.of(user).tolist()}


# --- recommendations ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN_MODELS)
@pytest.mark.parametrize("filter_seen", [True, False])
def test_recommendations_are_the_best_by_score(name, filter_seen, models):
    found, data = models(name), models(name).dataset
    users = [5, 2]
    lists = found.recommend(users, k=data.num_items, filter_seen=filter_seen)
    assert lists.columns[:3] == ["user", "rank", "item"]
    for user in users:
        mine = lists.filter(user=user)
        seen = everything_of(data, user) if filter_seen else set()
        assert sorted(mine["item"].to_list()) == sorted(set(range(data.num_items)) - seen)
        assert mine["rank"].to_list() == list(range(1, mine.height + 1))
        assert mine["score"].is_sorted(descending=True)
        scores = found.score(user, mine["item"].to_list())
        np.testing.assert_allclose(mine["score"].to_numpy(), scores, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["cml", "hlr"])
def test_candidates_and_exclusions(name, models):
    found, data = models(name), models(name).dataset
    everything = found.recommend([3], k=data.num_items)["item"].to_list()
    some = [*everything[1::2], *everything_of(data, 3)]
    assert found.recommend([3], 30, items=some)["item"].to_list() == everything[1::2]
    # What is excluded is replaced, not left out of a shorter list.
    assert found.recommend([3], 4, exclude=everything[:2])["item"].to_list() == everything[2:6]
    both = found.recommend([3], 30, items=everything[:4], exclude=everything[1:2])
    assert both["item"].to_list() == [everything[0], *everything[2:4]]


@pytest.mark.parametrize("name", ["cml", "hlr", "items_only"])
def test_what_is_seen_can_be_given(name, models):
    found, data = models(name), models(name).dataset
    seen = {3: [0, 7], 4: [1]}
    pairs = [(user, item) for user, items in seen.items() for item in items]
    frame = pd.DataFrame(pairs, columns=["user", "item"])
    given = [
        found.recommend([3, 4], 30, seen=x)
        for x in (
            seen,
            frame,
            pl.from_dicts([{"user": user, "item": item} for user, item in pairs]),
        )
    ]
    assert given[0].equals(given[1])
    assert given[0].equals(given[2])
    assert set(given[0].filter(user=3)["item"]) == set(range(data.num_items)) - {0, 7}
    if found.model.uses_history:
        # It is what the relation reads, too.
        rows = Interactions.from_pairs(*np.array(pairs).T, data.num_users, data.num_items)
        users = np.array([3, 4], np.int32)
        ids, scores = found.ranker.top_k(users, 5, rows, rows)
        mine = given[0].filter(pl.col("rank") <= 5)
        assert mine["item"].to_list() == ids.ravel().tolist()
        np.testing.assert_allclose(mine["score"].to_numpy(), scores.ravel(), rtol=1e-5)


def test_users_and_items_that_were_not_trained_on_are_never_ranked_at_random(models):
    data = models("cml").dataset
    # User 0 has no training interaction; nobody has item 9 in training.
    users, items = data.train.users, data.train.items
    kept = (users != 0) & (items != 9)
    train = Interactions.from_pairs(users[kept], items[kept], data.num_users, data.num_items)
    changed = dataclasses.replace(data, train=train)
    found = dataclasses.replace(models("cml"), dataset=changed)
    assert 9 not in found.recommend([1, 2, 3], 30)["item"].to_list()
    for ask in (found.recommend, found.user_vectors, found.similar_users):
        with pytest.raises(InputError, match=r"user 0 has no training interaction.*fold"):
            ask([1, 0])
    for argument in ({"items": [9]}, {"items": [3, 9]}):
        with pytest.raises(InputError, match="items: item 9 has no training interaction"):
            found.recommend([1], **argument)
    popular = found.recommend(["nobody", 0, 1], 3, unknown="popular", exclude=[4])
    order = np.argsort(-np.delete(changed.popularity, 4), kind="stable")[:3]
    expected = np.delete(np.arange(data.num_items), 4)[order].tolist()
    assert popular["user"].unique(maintain_order=True).to_list() == ["nobody", "0", "1"]
    assert popular["item"].to_list()[:3] == popular["item"].to_list()[3:6] == expected
    assert popular["score"][:3].to_list() == changed.popularity[expected].tolist()
    assert (
        popular.filter(user="1")["item"].to_list()
        == found.recommend([1], 3, exclude=[4])["item"].to_list()
    )
    # A model without rows of users ranks for whomever it knows a history of.
    rowless = dataclasses.replace(models("items_only"), dataset=changed)
    assert rowless.recommend([0], 3).height == 3


# --- scores and neighbours ------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN_MODELS)
def test_scores_are_distances_of_vectors_where_the_relation_does_not_read_the_item(name, models):
    found = models(name)
    users, items = found.user_vectors(), found.item_vectors()
    count = found.dataset.num_users, found.dataset.num_items
    assert users.shape == (count[0], found.model.dim)
    assert items.shape == (count[1], found.model.dim)
    np.testing.assert_array_equal(found.user_vectors([3, 1]), users[[3, 1]])
    np.testing.assert_array_equal(found.item_vectors([3, 1]), items[[3, 1]])
    if not found.model.reads_item:
        distances = np.asarray(found.model.geometry.pairwise(*map(jnp.asarray, (users, items))))
        unseen = [i for i in range(count[1]) if i not in everything_of(found.dataset, 3)]
        np.testing.assert_allclose(-distances[3, unseen], found.score(3, unseen), rtol=1e-4)


@pytest.mark.parametrize("name", ["cml", "hlr", "transcf", "dpcml"])
def test_neighbours_are_the_nearest_but_itself(name, models):
    found = models(name)
    for points, ask in (
        (found.item_vectors(), found.similar_items),
        (found.user_vectors(), found.similar_users),
    ):
        lists = ask([4, 0], 5)
        for row in (4, 0):
            distances = ((points[row] - points) ** 2).sum(1)
            order = [x for x in np.argsort(distances, kind="stable").tolist() if x != row][:5]
            mine = lists.filter(pl.nth(0) == row)
            assert mine["similar"].to_list() == order
            np.testing.assert_allclose(-mine["score"].to_numpy(), distances[order], atol=1e-5)
    everything = found.similar_items([0], found.dataset.num_items)
    assert sorted(everything["similar"].to_list()) == list(range(1, found.dataset.num_items))


def test_titles_stand_beside_items():
    found = hand_made(item_titles=np.array([f"Title {item}" for item in range(8)]))
    assert found.recommend([0], 1).row(0) == (0, 1, 3, "Title 3", pytest.approx(-0.09))
    similar = found.similar_items([0], 1)
    assert similar.columns == ["item", "rank", "similar", "title", "score"]
    assert similar["title"].to_list() == ["Title 1"]
    assert found.history(0)["title"].to_list() == ["Title 0", "Title 1", "Title 2"]


# --- few programs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cml", "hlr"])
def test_requests_of_all_sizes_compile_few_programs(name, models):
    found = models(name)
    jax.clear_caches()
    for users in ([1], [2], [1, 2, 3], [4, 5, 6, 7], [*range(8)], [*range(5)]):
        for k in (1, 3, 10, 16):
            found.recommend(users, k)
            found.recommend(users, k, exclude=[k], items=[*range(k, 30)])
    assert ranking.top_k._cache_size() <= 4  # for 1, 2, 4 and 8 users
    for users in (1, 3, 4):
        found.score([*range(users)], [*range(users)])
    assert ranking.pair_scores._cache_size() == 2
    for k in (1, 5, 9):
        found.similar_items([1], k)
    assert nearest_module._nearest._cache_size() == 1


def test_sizes_are_rounded():
    assert [ranked(k, 100) for k in (1, 16, 17, 64, 65, 100)] == [16, 16, 32, 64, 100, 100]
    sizes = (1, 2, 3, 9, 1000, 1025, 2049, 8192, 8193)
    rounded = [len(filled_up(np.arange(n), 8192)) for n in sizes]
    assert rounded == [1, 2, 4, 16, 1024, 2048, 3072, 8192, 16384]
    np.testing.assert_array_equal(filled_up(np.array([5, 6, 7]), 8), [5, 6, 7, 5])


# --- what cannot be answered ----------------------------------------------------------------------


BAD = {
    "k of 0": ({"k": 0}, "k=0: use 1 to 30"),
    "large k": ({"k": 31}, "k=31: use 1 to 30"),
    "truth": ({"k": True}, "k=True: use a whole number"),
    "one user": ({"users": "u001"}, "users='u001': give a list of ids"),
    "a number": ({"users": 3}, "users=3: give a list of ids"),
    "fraction": ({"users": [1.5]}, "users: 1.5 is no id"),
    "nobody": ({"users": ["u001", "nobody"]}, "user 'nobody' is not in data set.* like u000, u001"),
    "candidate": ({"items": [3, 99]}, "items: item 99 is not in data set .*ids look like 0, 1, 2"),
    "candidates": ({"items": 3}, "items=3: give a list of ids"),
    "seen": ({"seen": {"u001": [99]}}, "seen: item 99 is not in"),
    "seen frame": ({"seen": pd.DataFrame({"who": [1]})}, "user='user': the column is not there"),
    "unknown": ({"unknown": "random"}, "unknown='random': use one of error, popular"),
    "argument": ({"item": [3]}, "item: there is no such argument; there are items, exclude"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_request_that_cannot_be_answered_is_one_clear_error(name, models):
    arguments, message = BAD[name]
    with pytest.raises(InputError, match=message):
        named(models("cml")).recommend(**({"users": ["u001"]} | arguments))


def test_other_requests_that_cannot_be_answered(models):
    found = models("cml")
    with pytest.raises(InputError, match="score: 2 users and 3 items"):
        found.score([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="items: item 'x' is not in"):
        found.similar_items(["x"])
    with pytest.raises(InputError, match="k=25: use 1 to 24, the number of users"):
        found.similar_users([1], 25)
    with pytest.raises(InputError, match="user 99 is not in"):
        found.history(99)
    assert found.recommend([], 3).height == 0
    # An excluded item that does not exist is as good as excluded.
    assert found.recommend([1], 3, exclude=[99]).equals(found.recommend([1], 3))


def test_ids_are_found_whatever_their_type():
    data = planted_of(24, 30, (6, 7, 9))
    assert [data.user_index(user) for user in ("3", np.int64(3), 3)] == [3, 3, 3]
    for wrong in (3.0, 3.5, "3.0", None, 10**30, -1, ""):
        with pytest.raises(InputError, match="is not in data set"):
            data.user_index(wrong)
    for several in ((3,), [3], np.array([3])):
        with pytest.raises(InputError, match="give one id, not several"):
            data.user_index(several)


# --- many devices ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cml", "hlr"])
def test_sharded_tables_answer_as_those_of_one_device(name, models):
    alone = models(name)
    sharding = ShardingConfig(tables="sharded", item_shards=2)
    config = dataclasses.replace(alone.config, sharding=sharding)
    params = jax.tree.map(np.asarray, dict(alone.params))
    spread = Recommender.of(config, alone.dataset, alone.model, params)
    assert spread.placement.layout.user
    for ask in (
        lambda found: found.recommend([3, 1], 6),
        lambda found: found.recommend([3, 1], 6, filter_seen=False),
        lambda found: found.recommend([3], 6, seen={3: [0, 7]}),
        lambda found: found.similar_users([3], 4),
        lambda found: found.similar_items([3], 4),
        lambda found: found.recommend_for([1, 4], 4),
        lambda found: found.fold_in({"user": [99], "item": [4]}).recommend([99], 4),
    ):
        mine, other = ask(spread), ask(alone)
        assert mine.drop("score").equals(other.drop("score"))
        np.testing.assert_allclose(mine["score"], other["score"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(spread.user_vectors(), alone.user_vectors(), atol=1e-6)
    assert spread.explain(3, 7).distance == pytest.approx(alone.explain(3, 7).distance, rel=1e-5)
