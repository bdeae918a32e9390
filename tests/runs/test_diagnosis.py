"""Whether a relation is told from a constant, and what is said of it, by loops over pairs."""

import dataclasses
import json
import logging
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import diagnosis as oracle
from oracles.attention import latent_relation, memory_attention, smoothed_attention
from oracles.relations import read_memories, relation_function, transcf_neighbours
from support.small_runs import config_of, data_for
from support.untrained import untrained

from hlr_jax import Relation
from hlr_jax.evaluation.relation_grid import relative_entropy
from hlr_jax.functional import Attention
from hlr_jax.runs import diagnosis, experiment
from hlr_jax.runs.diagnosis import THRESHOLD, Diagnosis, diagnose, kind_of
from hlr_jax.runs.recommender import Recommender
from hlr_jax.sampling.histories import user_histories
from hlr_jax.sampling.sources import DeviceInteractions

USERS, ITEMS = 7, 13


def sampled(recommender: Recommender) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The users, items and removed places that a seed draws."""
    data = recommender.dataset
    rng = np.random.default_rng(recommender.config.seed)
    users = np.sort(rng.permutation(np.flatnonzero(data.train.counts))[:USERS])
    items = np.sort(rng.permutation(data.num_items)[:ITEMS])
    return users, items, rng.random(USERS)


@pytest.fixture
def few(monkeypatch):
    """A grid that is a part of the data."""
    monkeypatch.setattr(diagnosis, "MOST_USERS", USERS)
    monkeypatch.setattr(diagnosis, "MOST_ITEMS", ITEMS)


OPTIONS = [
    ("lrml", {}),
    ("hlr", {}),
    ("hlr", {"beta": 0.5, "separate_user_memory": True}),
    ("hlr", {"include_user": False}),
    ("hlrpp", {}),
    ("adacml", {"beta": 0.5}),
    ("history_mean", {}),
    ("items_only", {}),
    ("nearest_items", {}),
    ("rotation", {}),
    ("multi_head", {}),
    ("lrml", {"slot_form": "centred", "key_scale": 3.0}),
    ("transcf", {}),
    ("dpcml", {}),
]


def histories_of(recommender: Recommender, users: np.ndarray) -> list[list[int]]:
    known = recommender.dataset.train.union(recommender.dataset.valid)
    ids = jnp.asarray(users, jnp.int32)
    drawn = user_histories(recommender.ranker.draw, DeviceInteractions.of(known), ids)
    rows = zip(np.asarray(drawn.items), np.asarray(drawn.mask), strict=True)
    return [row[mask].tolist() for row, mask in rows]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("model", "options"), OPTIONS, ids=lambda x: str(x))
def test_figures_are_those_of_loops_over_pairs(model, options):
    rec = untrained(model, options)
    users, items, removed = sampled(rec)
    known = rec.dataset.train.union(rec.dataset.valid)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), rec.params)
    histories, d = histories_of(rec, users), rec.model.dim
    if not rec.model.user_width:
        params["user"] = np.zeros((len(params["user"]), d))
    shorter = [
        [p for n, p in enumerate(row) if n != min(int(share * len(row)), len(row) - 1)]
        for row, share in zip(histories, removed.tolist(), strict=True)
    ]

    def relations_with(of_users: list[list[int]]) -> list[list[np.ndarray]]:
        if model == "transcf":
            pairs = [(u, i) for u in range(known.num_users) for i in known.of(u)]
            nbr_users, nbr_items = transcf_neighbours(params, pairs)
            return [[nbr_users[u] * nbr_items[i] for i in items] for u in users]
        relation = relation_function(params["relation"], model, options)
        return [
            [relation(params["user"][u], params["item"][i], params["item"][row]) for i in items]
            for u, row in zip(users, of_users, strict=True)
        ]

    relations = relations_with(histories)
    norm, deviation = oracle.norm_and_deviation(relations)
    unseen = [[i not in set(known.of(u).tolist()) for i in items] for u in users.tolist()]
    user_means = [oracle.mean(row) for row in relations]
    item_means = [oracle.mean([row[n] for row in relations]) for n in range(ITEMS)]

    def distances(of: Any) -> list[list[float]]:
        return [
            [
                oracle.square(params["user"][u][:d] + of(m, n) - params["item"][i])
                for n, i in enumerate(items)
            ]
            for m, u in enumerate(users)
        ]

    found = diagnose(rec)
    instead = {
        "mean": lambda m, n: oracle.mean(user_means),
        "user_mean": lambda m, n: user_means[m],
        "item_mean": lambda m, n: item_means[n],
        "zero": lambda m, n: np.zeros(d),
    }
    if rec.model.uses_history:
        without = relations_with(shorter)
        instead["without_one"] = lambda m, n: without[m][n]
    ours = distances(lambda m, n: relations[m][n])
    spread = oracle.centred_rms(ours, unseen)
    assert found.moves.keys() == instead.keys()
    for name, of in instead.items():
        theirs = distances(of)
        change = np.subtract(theirs, ours).tolist()
        expected = oracle.centred_rms(change, unseen) / spread
        assert math.isclose(found.moves[name], expected, rel_tol=1e-4, abs_tol=1e-5), name
        if name in found.overlaps:
            expected = oracle.overlap(ours, theirs, unseen, 10)
            assert math.isclose(found.overlaps[name], expected), name
    assert math.isclose(found.norm, norm, rel_tol=1e-5)
    assert math.isclose(found.deviation, deviation, rel_tol=1e-4)
    for name, share in oracle.shares(relations).items():
        assert math.isclose(found.shares[name], share, rel_tol=1e-4, abs_tol=1e-6)
    assert math.isclose(sum(found.shares.values()), 1)
    check_attention(found, rec, params, users, items, histories)


def check_attention(found, rec, params, users, items, histories):
    """Compare cosines and entropies with loops."""
    own, options = params["relation"], rec.config.model.options
    model, beta = rec.config.model.name, float(options.get("beta", 1.0))
    read = read_memories(own, options)
    memories = {n: x for n, x in read.items() if n.endswith("memory")}
    assert found.cosines.keys() == memories.keys()
    for name, memory in memories.items():
        assert math.isclose(found.cosines[name], oracle.mean_cosine(memory), abs_tol=1e-5)
    rows: dict[str, list[Any]] = {}

    def add(name: str, weights: Any) -> None:
        rows.setdefault(name, []).append(list(weights))

    def slots(name: str, x: Any, y: Any, key: str = "key") -> None:
        add(name, memory_attention(x * y, read[key]))

    def attend(name: str, query: Any, relations: list[Any]) -> None:
        add(name, smoothed_attention([float(query @ r) for r in relations], beta))

    for u, history in zip(users, histories, strict=True):
        for i in items:
            user, item, past = params["user"][u], params["item"][i], params["item"][history]
            if model == "lrml":
                slots("slots", user, item)
            if model == "multi_head":
                for n in (0, 1):
                    half = slice(3 * n, 3 * n + 3)
                    add(f"slots_{n + 1}", memory_attention((user * item)[half], read["key"][half]))
            if model == "nearest_items":
                attend("history", item / np.exp(own["log_temperature"]), list(past))
            if model == "recent_items":
                weights = (1 / (1 + np.exp(-own["logit"]))) ** np.arange(len(past))
                add("history", weights / sum(weights))
            if model == "adacml":
                attend("history", item, list(past))
            if model in ("hlr", "hlrpp"):
                references = list(past)
                relations = [latent_relation(item, p, own["key"], own["memory"]) for p in past]
                if model == "hlr" and options.get("separate_user_memory"):
                    slots("user_slots", user, item, "user_key")
                    relations.append(
                        latent_relation(item, user, own["user_key"], own["user_memory"])
                    )
                elif model == "hlr" and options.get("include_user", True):
                    references.append(user)
                    relations.append(latent_relation(item, user, own["key"], own["memory"]))
                for reference in references:
                    slots("slots", item, reference)
                attend("history", user, relations)
            if model == "hlrpp":
                slots("pair_slots", user, item)
                for p in past:
                    slots("user_slots", user, p)
                both = [item, *past]
                attend(
                    "user_history",
                    item,
                    [latent_relation(user, p, own["key"], own["memory"]) for p in both],
                )
    assert found.entropies.keys() == rows.keys()
    for name, weights in rows.items():
        expected = oracle.relative_entropy(weights)
        assert math.isclose(found.entropies[name], expected, rel_tol=1e-4), name


def test_entropy_is_of_rows_with_two_weights_and_more():
    weights = jnp.array([[[0.2, 0.2, 9.0], [0.7, 9.0, 9.0]], [[0.0, 0.0, 2.0], [1.0, 3.0, 9.0]]])
    mask = jnp.array([[[1, 1, 0], [1, 0, 0]], [[1, 1, 1], [1, 1, 0]]], bool)
    sums, counts = relative_entropy(Attention(weights, mask), 2)
    quarter = oracle.relative_entropy([[0.25, 0.75]])
    np.testing.assert_allclose(sums, [1.0, quarter], rtol=1e-6)
    np.testing.assert_array_equal(counts, [1, 2])


# --- which is a constant -------------------------------------------------------------------------


class Planted(Relation):
    """`r = constant + strength * f(user, item)`, where `f` reads what `by` names."""

    strength: float = 0.0
    by: str = "pair"

    def __call__(self, user, item, history):
        of = {"pair": user[..., ::-1] * item, "user": user[..., ::-1], "item": item[..., ::-1]}
        varying = jnp.broadcast_to(of[self.by], jnp.broadcast_shapes(user.shape, item.shape))
        return 0.3 + self.strength * varying


def planted(strength: float, by: str = "pair") -> Diagnosis:
    rec = untrained("cml")
    model = Planted(dim=rec.model.dim, strength=strength, by=by)
    return diagnose(dataclasses.replace(rec, model=model))


def test_a_planted_constant_is_found():
    found = planted(0.0)
    assert found.kind == "constant"
    assert found.is_constant
    assert found.deviation < 1e-6
    assert found.moves["mean"] < 1e-5
    assert found.overlaps["mean"] == 1.0
    # To remove it changes rankings all the same.
    assert found.moves["zero"] > THRESHOLD
    assert found.overlaps["zero"] < 1.0
    assert str(found).startswith("relation: constant (replacing it by its mean moves distances by")


@pytest.mark.parametrize("by", ["pair", "user", "item"])
def test_a_planted_relation_is_none(by):
    found = planted(3.0, by)
    assert found.kind == {"pair": "varies", "user": "by user", "item": "by item"}[by]
    assert not found.is_constant
    assert found.moves["mean"] > THRESHOLD
    if by != "pair":
        assert found.shares[f"{by}s"] > 0.999
        assert found.moves[f"{by}_mean"] < 1e-5
    else:
        assert found.shares["pairs"] > 0.1
    assert found.overlaps["mean"] < 1.0


def test_the_threshold_has_two_sides():
    # Moves grow with the strength, nearly in proportion while they are small.
    unit = planted(0.01).moves["mean"] / 0.01
    below, above = (planted(THRESHOLD / unit * factor) for factor in (0.9, 1.1))
    assert 0.8 * THRESHOLD < below.moves["mean"] < THRESHOLD < above.moves["mean"]
    assert above.moves["mean"] < 1.2 * THRESHOLD
    assert below.kind == "constant"
    assert above.kind == "varies"


def test_what_the_threshold_means_for_the_order_of_two_items():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 200_000, 2)) * [[[1.0]], [[THRESHOLD]]]
    gap = one[:, 0] - one[:, 1]
    swapped = np.mean(gap * (gap + two[:, 0] - two[:, 1]) < 0)
    assert math.isclose(swapped, math.atan(THRESHOLD) / math.pi, rel_tol=0.05)
    assert 1 / 64 < math.atan(THRESHOLD) / math.pi < 1 / 62


def test_a_kind_is_the_simplest_replacement():
    small, large = 0.9 * THRESHOLD, 1.1 * THRESHOLD
    for kind, values in {
        "constant": (small, small, small),
        "by user": (large, small, small),
        "by item": (large, large, small),
        "varies": (large, large, large),
    }.items():
        names = ("mean", "user_mean", "item_mean")
        assert kind_of(dict(zip(names, values, strict=True))) == kind


@pytest.mark.parametrize("model", ["lrml", "hlr", "hlrpp"])
def test_equal_slots_are_found(model):
    rec = untrained(model)
    assert diagnose(rec).kind == "varies"
    relation = rec.params["relation"]
    slots = jnp.broadcast_to(relation["memory"][:1], relation["memory"].shape)
    params = rec.params | {"relation": relation | {"memory": slots}}
    found = diagnose(dataclasses.replace(rec, params=params))
    assert found.kind == "constant"
    assert math.isclose(found.cosines["memory"], 1.0, rel_tol=1e-5)
    # A key of zeros does it too, whatever the slots.
    params = rec.params | {"relation": relation | {"key": jnp.zeros_like(relation["key"])}}
    found = diagnose(dataclasses.replace(rec, params=params))
    assert found.kind == "constant"
    assert math.isclose(found.entropies["slots"], 1.0, rel_tol=1e-5)
    assert found.cosines["memory"] < 0.9


def test_a_mean_of_the_history_is_by_user():
    found = diagnose(untrained("history_mean"))
    assert found.kind == "by user"
    assert found.shares["users"] > 0.999
    assert not found.entropies
    assert not found.cosines


# --- where it is said ----------------------------------------------------------------------------


def test_a_class_with_a_relation_of_its_own_shows_nothing_of_its_parents():
    from hlr_jax.models.adacml import AdaCML
    from hlr_jax.models.cml import CML

    class Other(AdaCML):
        def __call__(self, user, item, history):
            return jnp.zeros(jnp.broadcast_shapes(user.shape, item.shape))

    class Moved(CML):
        def __call__(self, user, item, history):
            return 0.1 * (item - user)

    assert Other.attentions is Relation.attentions
    assert Moved.has_relation
    assert not CML.has_relation


def test_a_diagnosis_depends_on_the_seed_alone():
    rec = untrained("hlr")
    assert diagnose(rec) == diagnose(rec)


def trained(model: str, tmp_path, caplog, **fields: Any) -> dict[str, Any]:
    """The results of a run, and what was warned of."""
    data, config = data_for(model), config_of(model, **fields)
    with caplog.at_level(logging.WARNING), pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "_load", lambda *_: data)
        found = experiment.train_and_evaluate(config, tmp_path / model, show_progress=False)
    assert json.loads((tmp_path / model / "results.json").read_text()) == found
    return found


def test_results_have_the_diagnosis_of_the_final_model(tmp_path, caplog):
    options = {"clip_memory": 1e-6}
    found = trained("lrml", tmp_path, caplog, options=options, epochs=1, refit=True)["diagnosis"]
    assert found["kind"] == "constant"
    assert "ranks as CML moved by a constant" in caplog.text
    assert found["text"] in caplog.text
    rec = dataclasses.replace(
        Recommender.load(tmp_path / "lrml", data_for("lrml")),
    )
    assert found == json.loads(json.dumps(diagnose(rec).as_dict()))
    assert rec.config.data.join_valid


def test_what_has_no_relation_is_not_diagnosed(tmp_path, caplog):
    assert "diagnosis" not in trained("cml", tmp_path, caplog, epochs=1)
    assert "relation" not in caplog.text
