"""New items: rows fitted by the loss of all users against tables that stay as they are."""

import dataclasses

import jax
import numpy as np
import pytest
from support.planted import GROUPS, planted_of
from support.untrained import untrained

from hlr_jax import Dataset, InputError, Interactions
from hlr_jax.config import (
    Config,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    ShardingConfig,
    TrainingConfig,
)
from hlr_jax.runs import experiment
from hlr_jax.runs.recommender import Recommender
from hlr_jax.training import fold_in_items

USERS, ITEMS = 36, 45


@pytest.fixture(scope="module")
def data() -> Dataset:
    return planted_of(USERS, ITEMS, (9, 10, 12))


def without(data: Dataset, items: np.ndarray) -> tuple[Dataset, dict[str, np.ndarray]]:
    """A data set that never heard of some items; and what was known of these in training."""
    kept = np.setdiff1d(np.arange(data.num_items), items)

    def of_kept(part: Interactions) -> Interactions:
        is_kept = np.isin(part.items, kept)
        places = np.searchsorted(kept, part.items[is_kept])
        return Interactions.from_pairs(part.users[is_kept], places, data.num_users, len(kept))

    parts = {name: of_kept(getattr(data, name)) for name in ("train", "valid", "test", "given")}
    is_new = np.isin(data.train.items, items)
    frame = {"user": data.train.users[is_new], "item": data.train.items[is_new]}
    return dataclasses.replace(data, item_ids=data.item_ids[kept], **parts), frame


@pytest.mark.parametrize("name", ["cml", "hlr", "items_only"])
def test_items_that_were_left_out_are_recommended_to_their_group(name, data):
    new = np.array([10, 11, 12, 40, 41, 42])
    part, frame = without(data, new)
    config = Config(
        model=ModelConfig(name, dim=8),
        sampling=SamplingConfig("full_catalog", history_length=5),
        loss=LossConfig("softmax", user_weight_exponent=0.5),
        optimizer=OptimizerConfig(learning_rate=0.05),
        training=TrainingConfig(epochs=30, batch_of="users", batch_size=8),
    )
    trained = experiment.train(config, None, part, show_progress=False)
    folded = trained.fold_in(frame)
    assert folded.dataset.num_items == ITEMS
    lists = folded.recommend([*range(USERS)], 6, items=new.tolist(), filter_seen=False)
    own = lists.filter(lists["user"] % GROUPS == lists["item"] % GROUPS)
    assert own["rank"].mean() < 2
    # An item of one owner is nearer to nobody else than items that many have.
    owner = int(frame["user"][0])
    group = [user for user in range(USERS) if user % GROUPS == owner % GROUPS and user != owner]
    items = [item for item in part.item_ids.tolist() if item % GROUPS == owner % GROUPS]
    single = trained.fold_in({"user": [owner], "item": [77]})
    scores = {item: single.score(group, [item]).mean() for item in [77, *items]}
    assert sorted(scores, key=scores.__getitem__).index(77) < len(items) / 4


def test_items_are_fitted_alike_alone_and_together_by_few_programs():
    fitting = untrained("hlr")._item_fitting
    rng = np.random.default_rng(0)
    lists = [rng.permutation(24)[: 3 + item % 2] for item in range(20)]

    def fitted(lists: list[np.ndarray]) -> np.ndarray:
        items = np.repeat(np.arange(len(lists)), [len(users) for users in lists])
        who = Interactions.from_pairs(items, np.concatenate(lists), len(lists), 24)
        return np.asarray(fold_in_items.fit_items(fitting, who))[: len(lists)]

    fold_in_items._fit.clear_cache()
    together, alone = fitted(lists), [fitted([users])[0] for users in lists]
    assert fold_in_items._fit._cache_size() == 2
    # A step more or less, where rounding decides, moves a row a little.
    np.testing.assert_allclose(together, alone, atol=0.03)


def test_ids_titles_features_and_negatives_move_with_their_items():
    found = untrained("cml")
    data = found.dataset
    ids = np.array([f"i{n:02}" for n in range(data.num_items)])
    users = np.array([f"u{n:02}" for n in range(data.num_users)])
    data = dataclasses.replace(
        data,
        item_ids=ids,
        user_ids=users,
        item_titles=np.array([f"Title {n}" for n in range(data.num_items)]),
        features=np.arange(data.num_items, dtype=np.float32)[:, None],
        given_negatives=np.tile(np.array([[3, 29, -1]], np.int32), (data.num_users, 1)),
    )
    found = dataclasses.replace(found, dataset=data)
    new = {"user": ["u01", "u02"], "item": ["a, which comes first", "i07, in between"]}
    folded = found.fold_in(new)
    moved = folded.dataset
    assert moved.item_ids[[0, 9]].tolist() == new["item"]
    assert moved.item_titles[[0, 1, 9, 10]].tolist() == ["", "Title 0", "", "Title 8"]
    assert moved.features[[0, 1, 9, 31], 0].tolist() == [0, 0, 0, 29]
    assert moved.given_negatives[0].tolist() == [4, 31, -1]
    np.testing.assert_array_equal(folded.item_vectors(ids.tolist()), found.item_vectors())
    for part in ("train", "valid", "test"):
        old, now = getattr(data, part), getattr(moved, part)
        for user in range(3, data.num_users):
            assert moved.item_ids[now.of(user)].tolist() == ids[old.of(user)].tolist()
    assert folded.history("u01")["item"].to_list()[0] == "a, which comes first"


def test_an_item_nobody_trained_on_is_new_though_the_data_set_knows_it():
    found = untrained("cml")
    train = found.dataset.train
    kept = train.items != 4
    part = Interactions.from_pairs(train.users[kept], train.items[kept], 24, 30)
    found = dataclasses.replace(found, dataset=dataclasses.replace(found.dataset, train=part))
    with pytest.raises(InputError, match="item 4 has no training interaction"):
        found.similar_items([4])
    folded = found.fold_in({"user": [1, 7], "item": [4, 4]})
    assert folded.dataset.num_items == 30
    assert not np.array_equal(folded.params["item"][4], found.params["item"][4])
    assert folded.similar_items([4], 2).height == 2


def test_what_is_not_known_of_an_item_is_an_error_or_is_left_out():
    found, none = untrained("cml"), np.zeros(0, np.int64)
    for frame, model, message in (
        ({"user": [77, 78], "item": [99, 99]}, found, "item 99 was not trained on, nor was any"),
        ({"user": [1], "item": [99]}, untrained("cmlf"), "item 99 .* the model reads features"),
        ({"user": [1], "item": ["x"]}, found, "item: ids are String, those of .* like 0; convert"),
        ({"user": [1], "item": [-3]}, found, "row 0: item -3 is outside"),
        ({"user": none, "item": none}, found, "the frame has no row; give it one at least"),
    ):
        with pytest.raises(InputError, match=message):
            model.fold_in(frame)
    with pytest.raises(InputError, match="unknown='random': use one of error, popular"):
        found.fold_in({"user": [1], "item": [2]}, unknown="random")
    frame = {"user": [77, 78, 78], "item": [99, 99, 4]}
    folded = found.fold_in(frame, unknown="popular")
    assert folded.dataset.item_ids.tolist() == [*range(30)]
    assert folded.dataset.user_ids.tolist() == [*range(24), 78]
    popular = folded.recommend([77], 3, unknown="popular")["item"].to_list()
    assert popular == np.argsort(-folded.dataset.popularity, kind="stable")[:3].tolist()
    nothing = found.fold_in({"user": [77], "item": [99]}, unknown="popular")
    assert nothing.dataset.num_users == 24


def test_tables_that_are_spread_over_devices_take_new_items():
    found = untrained("cml")
    sharding = ShardingConfig(tables="sharded", item_shards=2)
    config = dataclasses.replace(found.config, sharding=sharding)
    params = jax.tree.map(np.asarray, found.params)
    spread = Recommender.of(config, found.dataset, found.model, params)
    frame = {"user": [1, 4, 9, 50], "item": [99, 99, 99, 3]}
    one, other = (model.fold_in(frame) for model in (found, spread))
    np.testing.assert_allclose(one.item_vectors([99]), other.item_vectors([99]), atol=1e-5)
    assert one.recommend([50, 1], 5)["item"].equals(other.recommend([50, 1], 5)["item"])


def test_a_folded_recommender_is_saved_with_its_items(tmp_path):
    folded = untrained("hlr").fold_in({"user": [1, 2], "item": [99, 99]})
    folded.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert loaded.similar_items([99], 5).equals(folded.similar_items([99], 5))
