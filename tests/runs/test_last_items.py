"""What is asked of a trained model that reads the last items of a user."""

import dataclasses

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from support.small_runs import with_times
from support.untrained import untrained

from hlr_jax import InputError, Interactions
from hlr_jax.exporting.export import export
from hlr_jax.runs.new_users import TEMPERATURE
from hlr_jax.runs.recommender import Recommender
from hlr_jax.training.fold_in import fit_users


def of_last_items() -> Recommender:
    """A user without a row of its own stands a little beyond its last item."""
    found = untrained("recent_items")
    own = {"weight": jnp.asarray(1.1), "logit": jnp.asarray(-9.0)}
    params = found.params | {"user": jnp.zeros_like(found.params["user"]), "relation": own}
    return Recommender.of(found.config, found.dataset, found.model, params)


def nearest_to(found: Recommender, item: int, others: list[int]) -> int:
    """The item nearest to where a user stands whose last item this is."""
    table = np.asarray(found.params["item"], np.float64)
    distances = np.sum((1.1 * table[item] - table) ** 2, axis=1)
    distances[others] = np.inf
    return int(np.argmin(distances))


def test_the_last_item_decides_in_whatever_way_it_is_known():
    found = of_last_items()
    everything = found.everything
    for user in range(6):
        items = everything.of(user)
        last = int(items[np.argmax(everything.times[slice(*everything.offsets[user : user + 2])])])
        best = nearest_to(found, last, items.tolist())
        assert found.recommend([user], 1)["item"].to_list() == [best]
    # What somebody has is given with the oldest first.
    for history in ([3, 8, 20], [20, 8, 3]):
        best = nearest_to(found, history[-1], history)
        for seen in ({5: history}, {"user": [5, 5, 5], "item": history}):
            assert found.recommend([5], 1, seen=seen)["item"].to_list() == [best]


def test_what_is_added_is_later_than_all_that_is_known():
    found = of_last_items()
    known = ids_of(found, 2)
    new = [item for item in range(30) if item not in found.everything.of(2)][:2]
    # An item that nobody had among them, and one that the user has already.
    for items in (new, new[::-1], [new[0], 77, new[1]], [77, known[0], new[0]]):
        added = found.fold_in({"user": [2, *(2 for _ in items), 3], "item": [4, *items, 77]})
        before = [item for item in known if item not in (4, *items)]
        assert ids_of(added, 2) == [*before, 4, *items]


def ids_of(found: Recommender, user: int) -> list[int]:
    """What a user is trained on, the oldest first."""
    train = found.dataset.train
    row = slice(*train.offsets[user : user + 2])
    ids: list[int] = found.dataset.item_ids[train.items[row][np.argsort(train.times[row])]].tolist()
    return ids


def test_nothing_can_be_seen():
    found = of_last_items()
    assert found.recommend([1], 3, seen={}, unknown="popular").height == 3
    assert found.recommend([1], 3, seen={1: []}, unknown="popular").height == 3


def test_what_stands_twice_counts_where_it_stands_first():
    found = of_last_items()
    assert found.recommend_for([3, 8, 20, 3], 5).equals(found.recommend_for([3, 8, 20], 5))


def test_an_export_has_histories_with_the_oldest_first(tmp_path):
    pytest.importorskip("flatbuffers", reason="programs are exported with it")
    found = of_last_items()
    export(found, tmp_path / "out", k=4)
    seen = pl.read_parquet(tmp_path / "out" / "seen.parquet")
    rank = jax.export.deserialize(bytearray((tmp_path / "out/ranking.stablehlo").read_bytes()))
    length = found.tables.draw.length
    for user in (0, 5):
        items = seen.filter(user_row=user)["item_row"].to_list()
        times = found.everything.times[slice(*found.everything.offsets[user : user + 2])]
        assert items == found.everything.of(user)[np.argsort(times)].tolist()
        history = np.array(items[::-1][:length], np.int32)[None]
        best, _ = rank.call(
            *(np.array([user], np.int32), history, np.ones(history.shape, bool)),
            np.array(items, np.int32)[None],
        )
        assert np.asarray(best)[0].tolist() == found.recommend([user], 4)["item"].to_list()
    assert "back in time" in (tmp_path / "out" / "README.txt").read_text()


def test_somebody_new_is_its_row_away_from_what_came_last():
    found = of_last_items()
    table = np.asarray(found.params["item"], np.float64)
    for history in ([3, 8, 20], [20, 8, 3]):
        listed = found.recommend_for(history, 27)
        order = np.arange(3, dtype=np.int32)
        known = Interactions.from_pairs(np.zeros(3), np.array(history), 1, 30, order)
        row = np.asarray(fit_users(found._fitting, known).rows[0], np.float64)
        items = listed["item"].to_numpy()
        expected = -np.sum((row + 1.1 * table[history[-1]] - table[items]) ** 2, axis=1)
        np.testing.assert_allclose(listed["score"], expected, rtol=1e-3, atol=1e-3)


def test_a_new_row_is_fitted_by_what_came_before_each_of_the_last_items():
    """Against the loss written out in float64: no row nearby is better."""
    found = of_last_items()
    own = {"weight": jnp.asarray(0.5), "logit": jnp.asarray(0.3)}
    found = Recommender.of(
        found.config, found.dataset, found.model, {**found.params, "relation": own}
    )
    table = np.asarray(found.params["item"], np.float64)
    decay, length = 1 / (1 + np.exp(-0.3)), found.ranker.draw.length
    rng = np.random.default_rng(1)
    for number in (1, 5, 20):
        history = rng.permutation(30)[:number].tolist()
        known = Interactions.from_pairs(
            *(np.zeros(number), np.array(history), 1, 30), np.arange(number, dtype=np.int32)
        )
        fitting = found._fitting
        row = np.asarray(fit_users(fitting, known).rows[0], np.float64)

        def loss(
            row: np.ndarray, items: list[int] = history, most: int = fitting.examples
        ) -> float:
            total = 0.0
            for n in range(max(0, len(items) - most), len(items)):
                before = items[:n][::-1][:length]
                moved = row + 0.5 * sum((decay**k * table[i] for k, i in enumerate(before)), 0)
                logits = -np.sum((moved - table) ** 2, axis=1) / TEMPERATURE
                others = [i for i in range(30) if i not in items]
                total += np.log1p(np.exp(logits[others] - logits[items[n]]).sum())
            return total

        least = loss(row)
        for _ in range(20):
            step = rng.normal(size=row.size)
            nearby = row + 0.05 * step / np.linalg.norm(step)
            nearby /= max(1.0, np.linalg.norm(nearby))
            assert loss(nearby) > least - 1e-3 * number


def test_other_data_without_times_are_refused():
    found = of_last_items()
    rows = {name: getattr(found.dataset, name) for name in ("train", "valid", "test")}
    without = {n: dataclasses.replace(x, times=np.zeros(0, np.int32)) for n, x in rows.items()}
    dataset = dataclasses.replace(with_times(found.dataset), **without)
    other = Recommender.of(found.config, dataset, found.model, found.params)
    with pytest.raises(InputError, match=r"config\.data\.keep_times=True"):
        other.recommend([1], 1)
