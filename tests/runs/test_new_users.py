"""New users: rows fitted by the loss against tables that stay as they are."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from support.planted import GROUPS, planted_of
from support.untrained import untrained

from hlr_jax import Dataset, InputError, Interactions
from hlr_jax.config import (
    Config,
    EvaluationConfig,
    GeometryConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
    build,
)
from hlr_jax.evaluation import ranking
from hlr_jax.runs import experiment
from hlr_jax.runs.new_users import fitting_of
from hlr_jax.runs.recommender import Recommender
from hlr_jax.training import fold_in

ITEMS = 30


def some(*lists: list[int]) -> Interactions:
    users = [user for user, items in enumerate(lists) for _ in items]
    items = [item for of_user in lists for item in of_user]
    return Interactions.from_pairs(np.array(users), np.array(items), len(lists), ITEMS)


@pytest.mark.parametrize("geometry", ["ball", "sphere"])
@pytest.mark.parametrize("temperature", [0.15, 0.5])
def test_a_row_is_where_the_softmax_over_the_catalogue_is_least(geometry, temperature):
    """Against the loss written out in float64: no row nearby is better."""
    rng = np.random.default_rng(0)
    config = Config(
        model=ModelConfig("cml", dim=5),
        geometry=GeometryConfig(geometry),
        sampling=SamplingConfig("full_catalog"),
        loss=LossConfig("softmax", options={"temperature": temperature}),
        training=TrainingConfig(batch_of="users"),
    )
    table = rng.normal(size=(ITEMS, 5))
    table *= rng.uniform(0.3, 1.0, (ITEMS, 1)) / np.linalg.norm(table, axis=1, keepdims=True)
    params = {"user": jnp.zeros((1, 5)), "item": jnp.asarray(table, jnp.float32), "relation": {}}
    draw = untrained("cml").ranker.draw
    fitting = fitting_of(config, build.build_model(config), params, draw)
    points = table / np.linalg.norm(table, axis=1, keepdims=True) if geometry == "sphere" else table
    # Users have items that are near each other, more or less.
    near = np.argsort(((points[2] - points) ** 2).sum(1)).tolist()
    lists = [near[::4][:4], [1], near[:12]]

    def loss(row: np.ndarray, items: list[int]) -> float:
        length = np.linalg.norm(row)
        at = row / length if geometry == "sphere" else row / max(length, 1.0)
        logits = -((at - points) ** 2).sum(1) / temperature
        others = np.delete(logits, items)
        return float(
            np.mean([np.log(np.exp(logits[i]) + np.exp(others).sum()) - logits[i] for i in items])
        )

    rows = np.asarray(fold_in.fit_users(fitting, some(*lists)).rows)
    for row, items in zip(rows, lists, strict=False):
        least = loss(row.astype(float), items)
        assert least < loss(points[items].mean(0), items)
        for _ in range(30):
            step = rng.normal(size=5)
            step *= 0.1 / np.linalg.norm(step)
            assert loss(row + step, items) > least - 1e-3


@pytest.mark.parametrize("by_users", [True, False])
@pytest.mark.parametrize("name", ["cml", "history_mean", "items_only"])
def test_users_who_were_left_out_are_recommended_items_of_their_group(name, by_users):
    data = planted_of(36, ITEMS, (6, 7, 9))
    left_out = np.arange(36) >= 24
    kept = data.train.of_users(~left_out), data.valid.of_users(~left_out)
    config = Config(
        model=ModelConfig(name, dim=8),
        sampling=SamplingConfig("full_catalog" if by_users else "per_example", history_length=5),
        loss=LossConfig("softmax" if by_users else "hinge"),
        optimizer=OptimizerConfig(learning_rate=0.05),
        training=TrainingConfig(
            epochs=30, batch_of="users" if by_users else "interactions", batch_size=8
        ),
    )
    part = dataclasses.replace(data, train=kept[0], valid=kept[1])
    trained = experiment.train(config, None, part, show_progress=False)
    users = data.train.users
    frame = {"user": users[users >= 24], "item": data.train.items[users >= 24]}
    folded = trained.fold_in(frame)
    for user in range(24, 36):
        top = folded.recommend([user], 3, seen={user: data.train.of(user).tolist()})
        assert sum(item % GROUPS == user % GROUPS for item in top["item"]) >= 2


def test_a_known_user_gets_what_it_has_in_addition():
    found = untrained("cml")
    new = sorted(set(range(ITEMS)) - set(found.everything.of(3).tolist()))[0]
    tested = found.dataset.test.of(3).tolist()[0]
    folded = found.fold_in({"user": [3, 3], "item": [new, tested]})
    has = {*found.dataset.train.of(3).tolist(), new, tested}
    assert set(folded.dataset.train.of(3).tolist()) == has
    assert tested not in folded.dataset.test.of(3)
    assert folded.dataset.num_users == found.dataset.num_users
    expected = fold_in.fit_users(found._fitting, some(sorted(has))).rows
    np.testing.assert_allclose(folded.params["user"][3], expected[0], atol=1e-5)


def test_users_are_fitted_alike_alone_and_together_by_few_programs():
    found = untrained("hlr")
    rng = np.random.default_rng(0)
    lists = [rng.permutation(ITEMS)[: 3 + user % 2].tolist() for user in range(20)]
    fold_in._fit.clear_cache()
    together = fold_in.fit_users(found._fitting, some(*lists)).rows
    alone = [fold_in.fit_users(found._fitting, some(items)).rows[0] for items in lists]
    assert fold_in._fit._cache_size() == 2
    np.testing.assert_allclose(together[:20], alone, atol=1e-3)


@pytest.mark.parametrize("name", ["cml", "hlr"])
def test_histories_of_any_length_are_answered_by_the_same_programs(name):
    found = untrained(name)
    found.recommend_for([1], 3)
    counted = fold_in._fit, ranking.top_k
    before = [program._cache_size() for program in counted]
    for length, k in ((2, 5), (9, 1), (20, 10)):
        assert found.recommend_for([*range(length)], k).height == k
    assert [program._cache_size() for program in counted] == before


def test_a_folded_recommender_is_saved_with_its_users(tmp_path):
    folded = untrained("cml").fold_in({"user": [77], "item": [5]})
    folded.save(tmp_path / "model")
    assert Recommender.load(tmp_path / "model").recommend([77], 5).equals(folded.recommend([77], 5))


def test_ids_of_text_are_joined():
    found = untrained("cml")
    ids = np.array([f"u{user:02}" for user in range(24)])
    found = dataclasses.replace(found, dataset=dataclasses.replace(found.dataset, user_ids=ids))
    folded = found.fold_in({"who": ["a new, long name"], "what": [5]}, "who", "what")
    assert folded.dataset.user_ids[0] == "a new, long name"
    assert folded.recommend(["u03"], 4).equals(found.recommend(["u03"], 4))
    # A number becomes text, as where it is looked up.
    assert "3" in found.fold_in({"user": [3], "item": [5]}).dataset.user_ids
    with pytest.raises(InputError, match=r"user: ids are String, those of .* like 0; convert"):
        untrained("cml").fold_in({"user": ["a"], "item": [5]})


def test_what_cannot_be_fitted_is_one_clear_error():
    found = untrained("cml")
    for call, message in (
        (lambda: found.recommend_for([], 3), "history: give at least one item"),
        (lambda: found.recommend_for([3, 99], 3), "history: item 99 is not in"),
        (lambda: found.recommend_for([3], 0), "k=0: use 1 to"),
        (lambda: found.recommend_for([3], 5, seen={}), "seen: there is no such argument; there"),
        (lambda: found.recommend_for([3], 5, unknown="x"), "unknown='x': use one of error, pop"),
        (lambda: found.fold_in({"user": [1]}), "item='item': the column is not there"),
        (lambda: found.fold_in({"user": [None], "item": [1]}), "row 0: user None is missing"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_what_is_unknown_of_a_history_is_left_out_on_request():
    found = untrained("cml")
    with pytest.raises(InputError, match="history: item 99 is not in"):
        found.recommend_for([3, 99], 5)
    assert found.recommend_for([3, 99], 5, unknown="popular").equals(found.recommend_for([3], 5))
    popular = found.recommend(["nobody"], 5, unknown="popular", exclude=[1]).drop("user")
    assert found.recommend_for([99], 5, unknown="popular", exclude=[1]).equals(popular)
    assert found.recommend_for([], 5, unknown="popular", exclude=[1]).equals(popular)


def test_the_data_set_can_be_split_for_nothing_but_training():
    frame = {"user": [user for user in range(12) for _ in range(3)]}
    frame["item"] = [(user + step) % 9 for user in range(12) for step in (0, 3, 6)]
    data = Dataset.from_frame(frame, split=None)
    config = Config(model=ModelConfig("cml", dim=4), training=TrainingConfig(epochs=2))
    config = dataclasses.replace(config, evaluation=EvaluationConfig(cutoffs=(3,)))
    trained = experiment.train(config, None, data, show_progress=False)
    assert trained.recommend([0, 1], 3).height == 6
    with pytest.raises(InputError, match="no user has an item in the test split"):
        trained.evaluate("test")
