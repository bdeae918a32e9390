"""Baselines answer by the same verbs as models, and are saved."""

import json

import numpy as np
import pytest

from hlr_jax import BaselineRecommender, InputError, Recommender, archive, load
from hlr_jax.baselines import BPR, IALS, METHODS, Ease, ItemKNN, MostPopular, ScaledIALS
from hlr_jax.baselines.scoring import as_matrix

QUICK = {
    "most_popular": MostPopular(),
    "ease": Ease(10.0),
    "item_knn": ItemKNN("cosine", 5),
    "ials": IALS(4, iterations=5),
    "ials_scaled": ScaledIALS(4),
    "bpr": BPR(4, iterations=5),
}


@pytest.fixture(scope="module", params=QUICK)
def fitted(request, dataset):
    return BaselineRecommender.fit(QUICK[request.param], dataset)


def test_recommendations_are_the_best_by_score(fitted, dataset):
    users = np.flatnonzero(dataset.train.counts)[[3, 0]].tolist()
    everything = as_matrix(fitted.everything)
    for user in users:
        # Rounded as those that are ranked are: it makes ties.
        scores = fitted.fitted(np.array([user]), everything[[user]])[0].astype(np.float32)
        for seen in (True, False):
            mine = fitted.recommend([user], dataset.num_items, filter_seen=seen)
            hidden = fitted.everything.of(user) if seen else []
            left = np.flatnonzero(fitted.trained_items)
            left = left[~np.isin(left, hidden)]
            order = left[np.argsort(-scores[left], kind="stable")]
            assert mine["item"].to_list() == dataset.item_ids[order].tolist()
            np.testing.assert_allclose(mine["score"], scores[order], rtol=1e-5)
        items = mine["item"].to_list()[:4]
        np.testing.assert_allclose(fitted.score(user, items), mine["score"][:4], rtol=1e-5)
        some = fitted.recommend([user], 3, items=items, exclude=items[:1], filter_seen=False)
        assert some["item"].to_list() == items[1:]


def test_a_saved_baseline_is_the_same(fitted, dataset, tmp_path):
    fitted.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert isinstance(again, BaselineRecommender)
    users = np.flatnonzero(dataset.train.counts).tolist()
    assert again.recommend(users, 5).equals(fitted.recommend(users, 5))
    assert (again.name, dict(again.hyperparameters)) == (fitted.name, dict(fitted.hyperparameters))
    with pytest.raises(InputError, match="holds a baseline, not a recommender"):
        Recommender.load(tmp_path / "model")
    content = (tmp_path / "model").read_bytes()
    (tmp_path / "model").write_bytes(content[:-20])
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path / "model")


def test_somebody_new_is_ranked_for_by_history_where_that_is_possible(fitted, dataset):
    user = int(np.flatnonzero(dataset.train.counts)[0])
    history = dataset.item_ids[fitted.everything.of(user)].tolist()
    if fitted.name == "bpr":
        with pytest.raises(InputError, match="no vectors of new users"):
            fitted.recommend_for(history, 5)
        return
    found = fitted.recommend_for(history, 5)
    assert not {*history} & {*found["item"]}
    if fitted.name in ("most_popular", "ease", "item_knn"):
        assert found["item"].to_list() == fitted.recommend([user], 5)["item"].to_list()


def test_similar_items(fitted, dataset):
    if fitted.name == "most_popular":
        with pytest.raises(InputError, match="does not compare items"):
            fitted.similar_items([dataset.item_ids[0].item()], 3)
        return
    item = int(np.argmax(dataset.popularity))
    found = fitted.similar_items([dataset.item_ids[item].item()], 4)
    alike = np.array(fitted.fitted.similarities(np.array([item])))[0]
    alike[item] = alike[~fitted.trained_items] = -np.inf
    order = np.argsort(-alike, kind="stable")[:4]
    assert found["similar"].to_list() == dataset.item_ids[order].tolist()


def test_a_file_with_other_parts_is_refused(dataset, tmp_path):
    fitted = BaselineRecommender.fit(Ease(10.0), dataset)
    fitted.save(tmp_path / "model")
    description, arrays = archive.read(tmp_path / "model", "baseline")
    for change in ({"fitted": "Nothing"}, {"numbers": {"more": 1}}):
        archive.write(tmp_path / "other", {**description, **change}, arrays)
        with pytest.raises(InputError, match="damaged"):
            load(tmp_path / "other")
    assert json.loads(json.dumps(description)) == description
    assert set(QUICK) <= set(METHODS)
