"""What attention depends on: planted where it does, and said where it means nothing."""

import re

import jax
import numpy as np
import polars as pl
import pytest
from support.untrained import OWN_MODELS, untrained

import hlr_jax
from hlr_jax import InputError, analyse
from hlr_jax.evaluation.relation_pairs import relations_of_pairs
from hlr_jax.models.relation import apply
from hlr_jax.runs.analysis import NoMemoryError

WITH_MEMORY = ["hlr", "hlrpp", "lrml", "multi_head"]


def pairs_of(model):
    data = model.dataset
    users, items = np.divmod(np.arange(data.num_users * data.num_items), data.num_items)
    return pl.DataFrame({"user": data.user_ids[users], "item": data.item_ids[items]})


@pytest.mark.parametrize("name", [*WITH_MEMORY, "hlr/separate"])
def test_pairs_are_measured_as_one_by_one(name, monkeypatch):
    options = {"separate_user_memory": True} if "/" in name else None
    model = untrained(name.partition("/")[0], options)
    known = model.dataset.known("test")
    users, items = np.array([3, 4, 3, 7, 0]), np.array([7, 4, 0, 1, 29])
    whole = relations_of_pairs(model.ranker, known, users, items)
    # Fewer at once, the last of them filled up, are the same.
    monkeypatch.setattr("hlr_jax.evaluation.relation_pairs.pair_tile", lambda floats: 2)
    parts = relations_of_pairs(model.ranker, known, users, items)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), whole, parts)
    memories = apply(model.model, model.params["relation"], "memories")
    if whole.slots.keys() == memories.keys():
        added = sum(whole.slots[memory] @ slots for memory, slots in memories.items())
        np.testing.assert_allclose(added, whole.relations, atol=1e-6)
    total = sum(slots.sum(axis=1) for slots in whole.slots.values())
    np.testing.assert_allclose(total, {"hlrpp": 2, "multi_head": 2}.get(name, 1), rtol=1e-5)


def test_what_attention_depends_on_is_found():
    model = untrained("lrml")
    frame = pairs_of(model)
    users, items = (frame[name].to_numpy() for name in ("user", "item"))  # Ids are rows.
    nothing = hlr_jax.Interactions.none(model.dataset.num_users, model.dataset.num_items)
    slots = relations_of_pairs(model.ranker, nothing, users, items).slots["memory"]
    of_items = np.array([slots[items == item].mean(axis=0).argmax() for item in range(30)])
    rng = np.random.default_rng(0)
    frame = frame.with_columns(
        slot=pl.Series(slots.argmax(axis=1)),
        genre=pl.Series([[f"slot {n}"] for n in of_items[items]]),
        dice=pl.Series(rng.integers(0, 2, len(items))),
        same=pl.lit("x"),
    )
    found = analyse(model, frame)
    table = {row["by"]: row for row in found.dependence.iter_rows(named=True)}
    assert list(table) == ["slot", "genre", "dice"]
    assert [table[by]["depends"] for by in table] == [True, True, False]
    assert table["genre"]["permuted_among"] == "items"
    assert table["slot"]["permuted_among"] == "items of users"
    for row in table.values():
        assert 0 <= row["bits"] <= row["most"]
        # What the model was trained on or selected by is left out.
        assert row["interactions"] == frame.height - len(model.dataset.known("test"))
        assert 0 <= row["share"] <= 1
    said = re.fullmatch(
        r"Of how attention differs between interactions, slot explains (\S+) %, genre "
        r"explains (\S+) %, dice explains nothing",
        found.verdict,
    )
    assert said
    assert float(said[1]) == pytest.approx(100 * table["slot"]["share"], rel=0.05)
    of_slots = found.weights.filter(by="slot")
    assert of_slots.group_by("group").agg(pl.col("weight").sum())["weight"].to_numpy() == (
        pytest.approx(1)
    )
    most = of_slots.sort("weight").group_by("group").last()
    assert (most["group"].cast(pl.Int64) == most["slot"]).all()
    assert found.matching["nearest"].to_list() == ["relation", "item", "user", "random"]
    assert found.matching["probability"].is_between(0, 1).all()
    assert "genre: " in str(found)
    assert "nearest by relation: " in str(found)


def test_labels_of_items_are_those_of_their_test_interactions():
    model = untrained("lrml")
    items = [int(item) for item in model.dataset.item_ids]
    found = analyse(model, {"item": items[:20], "kind": ["a", "b"] * 10})
    (row,) = found.dependence.iter_rows(named=True)
    assert row["by"] == "kind"
    assert row["interactions"] == int((model.dataset.test.items < 20).sum())
    assert found.matching.height == 4


def test_equal_slots_mean_nothing_whatever_is_attended_to():
    model = untrained("lrml")
    relation = dict(model.params["relation"])
    relation["memory"] = np.broadcast_to(relation["memory"][:1], relation["memory"].shape)
    params = model.params | {"relation": relation}
    collapsed = hlr_jax.Recommender.of(model.config, model.dataset, model.model, params)
    frame = pairs_of(model).with_columns(parity=pl.col("item") % 2)
    found = analyse(collapsed, frame)
    assert found.diagnosis.is_constant
    assert found.verdict.endswith(
        "but the relation is a constant: rankings do not depend on attention"
    )
    # The attention is what it was.
    assert found.dependence.equals(analyse(model, frame).dependence)


@pytest.mark.parametrize("name", [name for name in OWN_MODELS if name not in WITH_MEMORY][:2])
def test_a_model_without_memory_is_one_clear_line(name):
    with pytest.raises(NoMemoryError, match=f"{name}'.* no memory .* these have: hlr, hlrpp, lrml"):
        analyse(untrained(name))


def test_what_cannot_be_grouped_is_one_clear_line():
    model = untrained("lrml")
    with pytest.raises(InputError, match="nothing is known of the interactions of data set 'plan"):
        analyse(model)
    for frame in ({"user": [1], "genre": ["a"]}, {"user": [1], "item": [2]}, {}):
        with pytest.raises(InputError, match=r"groups: the frame has the columns .*; give item"):
            analyse(model, frame)
    for frame, fault in (
        ({"item": [77, 78], "genre": ["a", "b"]}, "no row has ids of data set 'planted', whose it"),
        ({"item": [1, 2, 1], "genre": ["a", "b", "c"]}, "item 1 has several rows; give each item"),
        ({"item": [1], "#user": [2]}, "#user cannot be the name of a column"),
    ):
        with pytest.raises(InputError, match=f"groups: {fault}"):
            analyse(model, frame)
    alone = {"user": range(9), "item": [0] * 9, "genre": ["a", "b", "c"] * 3}
    with pytest.raises(InputError, match=r"each of \d users has one interaction"):
        analyse(model, alone)
    trained = model.dataset.train
    frame = {"user": trained.users, "item": trained.items, "rating": trained.items % 5}
    with pytest.raises(InputError, match=r"0 interactions are left .* not trained on"):
        analyse(model, frame)
