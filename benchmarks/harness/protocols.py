"""The protocols whose tables `accuracy.py` fills, and who contends in each. Plain data.

A contender is added by adding a line; the next run of its protocol fills it in. A contender whose
settings have changed is run anew.
"""

import dataclasses
from typing import Any

from harness.contenders import Baseline, Model, Protocol, Reference

TOP_10 = ("ndcg@10", "precision@10", "recall@10")
PEERS = (
    Baseline("most_popular"),
    Baseline("item_knn"),
    Baseline("bpr", is_random=True),
    Baseline("ials", is_random=True),
    Baseline("ease"),
)


def _published(name: str, learning_rate: float, margin: float, **settings: Any) -> Model:
    """The HLR authors' settings but for these; those they share are the library's defaults."""
    return Model(
        name,
        "published",
        {
            "model.name": name,
            "optimizer.learning_rate": learning_rate,
            "loss.margin": margin,
            **settings,
        },
    )


def _tuned(name: str, shared: dict[str, Any], label: str = "tuned", **settings: Any) -> Model:
    """Settings that did well on validation for this model or, where they are shared, for CML."""
    return Model(name, label, {"model.name": name, **shared, **settings})


def _tuned_from_cml(name: str, shared: dict[str, Any], **settings: Any) -> Model:
    """The same for a model that starts from the tables of tuned CML."""
    return dataclasses.replace(_tuned(name, shared, **settings), pretrained="cml-tuned")


# The softmax, and the interactions of active users counted less.
ML_100K_SOFTMAX = {
    "loss.name": "softmax",
    "loss.temperature": 0.4,
    "loss.balance": 0.3,
    "optimizer.learning_rate": 1e-3,
    "training.select": "ndcg@10",
    "training.refit": True,
}
CITEULIKE_SOFTMAX = ML_100K_SOFTMAX | {
    "model.dim": 128,
    "loss.temperature": 0.2,
    "sampling.pool": "catalogue",
    "optimizer.learning_rate": 3e-3,
    "optimizer.schedule": "cosine",
    "training.epochs": 30,
}
CITEULIKE_PER_USER = CITEULIKE_SOFTMAX | {"training.select": "recall@50"}
# Steps see 20 items of a user, and ranking 100 (of nearly all users that is all).
HISTORIES = {"sampling.history_length": 20, "evaluation.history_length": 100}
ML_1M_SOFTMAX = ML_100K_SOFTMAX | {
    "model.dim": 800,
    "loss.temperature": 0.28,
    "sampling.pool": "catalogue",
    "optimizer.learning_rate": 4e-3,
    "optimizer.schedule": "cosine",
    "training.batch_of": "users",
    "training.batch_size": 32,
    "training.epochs": 20,
}
# On sparse data the positives' steady pull does better than the softmax.
GOWALLA_CONTRASTIVE = {
    "model.dim": 128,
    "loss.name": "contrastive",
    "loss.margin": 0.8,
    "loss.negative_weight": 100.0,
    "sampling.pool": "batch",
    "sampling.negatives": 1024,
    "optimizer.learning_rate": 3e-3,
    "optimizer.schedule": "cosine",
    "training.batch_size": 4096,
    "training.epochs": 20,
    "training.select": "ndcg@20",
    "training.refit": True,
}
GOWALLA_HISTORY = GOWALLA_CONTRASTIVE | {
    "model.dim": 256,
    "loss.negative_weight": 200.0,
    **HISTORIES,
}
# From the tables of tuned CML, with a relation that is kept short.
ML_100K_FROM_CML = ML_100K_SOFTMAX | {
    "model.clip_memory": 0.1,
    "optimizer.learning_rate": 5e-4,
    "training.epochs": 10,
    "training.patience": 4,
}
ML_1M_FROM_CML = ML_1M_SOFTMAX | {
    "model.clip_memory": 0.1,
    "optimizer.learning_rate": 5e-4,
    "optimizer.schedule": "constant",
    "training.epochs": 10,
    "training.patience": 3,
}
ALL_FOR_80_EPOCHS = {"sampling.pool": "catalogue", "training.epochs": 80}
SHARED_100 = {"sampling.pool": "batch", "sampling.negatives": 100}
OWN_10 = {"sampling.negatives": 10, "sampling.history_length": 20}
# For a relation that reads histories, beside others that take users at once. A few negatives would
# move the tables away from what all of them made of these.
RELATION_ALONE = {
    "sampling.pool": "triplet",
    "sampling.negatives": 4,
    "sampling.history_length": 10,
    "training.batch_of": "interactions",
    "training.batch_size": 1000,
    "training.freeze_user": True,
    "training.freeze_item": True,
    "optimizer.learning_rate": 1e-3,
    "training.epochs": 2,
}


def _from_file(name: str, data: str) -> Model:
    """The HLR authors' settings for one of their data sets."""
    return Model(name, "published", {}, config=f"{data}/{name}.py")


# ---------------------------------------------------------------------------------------------
# The HLR authors' own protocol, on data that they did not publish figures or settings for:
# `published` are settings that they published for others.

_TENSORFLOW = "the HLR authors' TensorFlow code, one seed, epoch of the lowest validation loss"
_OPTIMISTIC = "the best regularization of four *on test*"

_HLR_SPLIT = (
    "Random 72/8/20 split as the HLR authors' code makes it (seed 2021), after a {core}-core."
)

ML_100K_HLR = Protocol(
    name="ml-100k-hlr",
    about="MovieLens 100k, ratings of 4 and more. " + _HLR_SPLIT.format(core=10),
    settings={"data.name": "ml_100k", "data.predefined": "ml-100k-hlr"},
    metrics=TOP_10,
    contenders=(
        *PEERS,
        _published("cml", 7.5e-4, 0.5),
        _published("lrml", 1e-3, 0.5),
        _published("hlr", 1e-3, 0.2),
        _published("hlrpp", 1e-3, 0.2),
        _published("adacml", 1e-3, 0.5),
        _published("transcf", 1e-3, 0.5),
        _tuned("cml", ML_100K_SOFTMAX, **ALL_FOR_80_EPOCHS),
        _tuned_from_cml("lrml", ML_100K_FROM_CML, **SHARED_100),
        _tuned_from_cml("hlr", ML_100K_FROM_CML, **OWN_10),
        _tuned_from_cml("hlrpp", ML_100K_FROM_CML, **OWN_10),
        _tuned("adacml", ML_100K_SOFTMAX, **SHARED_100, **{"training.epochs": 60}),
        _tuned("transcf", ML_100K_SOFTMAX, **ALL_FOR_80_EPOCHS),
    ),
    references=(
        Reference("EASE", dict(zip(TOP_10, (0.325, 0.236, 0.248), strict=True)), _OPTIMISTIC),
        Reference("TF CML", dict(zip(TOP_10, (0.257, 0.201, 0.190), strict=True)), _TENSORFLOW),
        Reference("TF LRML", dict(zip(TOP_10, (0.181, 0.145, 0.133), strict=True)), _TENSORFLOW),
        Reference("TF HLR", dict(zip(TOP_10, (0.163, 0.133, 0.121), strict=True)), _TENSORFLOW),
        Reference("TF HLR++", dict(zip(TOP_10, (0.163, 0.133, 0.121), strict=True)), _TENSORFLOW),
        Reference("TF AdaCML", dict(zip(TOP_10, (0.264, 0.201, 0.203), strict=True)), _TENSORFLOW),
        Reference("TF TransCF", dict(zip(TOP_10, (0.238, 0.193, 0.189), strict=True)), _TENSORFLOW),
    ),
)

ML_1M_HLR = Protocol(
    name="ml-1m-hlr",
    about="MovieLens 1M, every rating a positive. " + _HLR_SPLIT.format(core=10),
    settings={"data.name": "ml_1m", "data.predefined": "ml-1m-hlr"},
    metrics=TOP_10,
    contenders=(
        *PEERS,
        _published("cml", 7.5e-4, 0.5),
        _published("lrml", 1e-3, 0.2),
        _published("hlr", 1e-3, 0.2),
        _published("hlrpp", 1e-3, 0.2),
        _published("adacml", 1e-3, 0.5),
        _published("transcf", 1e-3, 0.5),
        _tuned("cml", ML_1M_SOFTMAX),
        _tuned_from_cml("lrml", ML_1M_FROM_CML),
        _tuned_from_cml("hlr", ML_1M_FROM_CML, **RELATION_ALONE),
    ),
    references=(
        Reference("EASE", dict(zip(TOP_10, (0.437, 0.386, 0.180), strict=True)), _OPTIMISTIC),
        Reference("TF CML", dict(zip(TOP_10, (0.362, 0.326, 0.141), strict=True)), _TENSORFLOW),
        Reference("TF LRML", dict(zip(TOP_10, (0.266, 0.243, 0.094), strict=True)), _TENSORFLOW),
        Reference(
            "TF HLR",
            dict(zip(TOP_10, (0.245, 0.227, 0.083), strict=True)),
            "the same code, stopped at epoch 7 with the validation loss still falling",
        ),
    ),
)

CITEULIKE_T_HLR = Protocol(
    name="citeulike-t-hlr",
    about="CiteULike-t. " + _HLR_SPLIT.format(core=5),
    settings={"data.name": "citeulike_t", "data.predefined": "citeulike-t-hlr"},
    metrics=TOP_10,
    contenders=(
        *PEERS,
        _published("cml", 7.5e-4, 0.5),
        _published("lrml", 1e-3, 0.5),
        _published("hlr", 1e-3, 0.2),
        _published("hlrpp", 1e-3, 0.2),
        _tuned("cml", CITEULIKE_SOFTMAX),
        _tuned("history_mean", CITEULIKE_SOFTMAX, **HISTORIES),
    ),
    references=(Reference("EASE", {"ndcg@10": 0.160}, _OPTIMISTIC),),
)

# ---------------------------------------------------------------------------------------------
# Leave-one-out with given negatives.

_NCF_METRICS = ("hit_rate@10", "ndcg@10")
_NCF_SPLIT = (
    "Leave-one-out split and negatives (99 for each user) of Neural Collaborative Filtering (He et "
    "al. 2017); each user's last training interaction validates, with the whole catalogue ranked."
)

NCF_ML_1M = Protocol(
    name="ncf-ml-1m",
    about="MovieLens 1M. " + _NCF_SPLIT,
    settings={"data.name": "ncf_ml_1m", "evaluation.protocol": "sampled"},
    metrics=_NCF_METRICS,
    contenders=(
        *PEERS,
        _published("cml", 7.5e-4, 0.5),
        _tuned("cml", ML_1M_SOFTMAX, **{"loss.temperature": 0.2}),
    ),
    references=(
        Reference(
            "iALS, d = 192",
            {"hit_rate@10": 0.7310, "ndcg@10": 0.4521},
            "irspack's run of the protocol of “Revisiting iALS”",
        ),
    ),
)

NCF_PINTEREST = Protocol(
    name="ncf-pinterest",
    about="Pinterest. " + _NCF_SPLIT,
    settings={"data.name": "pinterest", "evaluation.protocol": "sampled"},
    metrics=_NCF_METRICS,
    contenders=(*PEERS, _published("cml", 7.5e-4, 0.5)),
)

# ---------------------------------------------------------------------------------------------
# LightGCN's split.

_LIGHTGCN = ("recall@20", "ndcg@20")
_BARS = "the BARS leaderboard (reczoo/BARS, docs/Matching/leaderboard)"

GOWALLA = Protocol(
    name="gowalla",
    about=(
        "Gowalla, LightGCN's test split; its training interactions divided into training and "
        "validation as LightGCN++ does."
    ),
    settings={"data.name": "gowalla", "evaluation.cutoffs": (20,)},
    metrics=_LIGHTGCN,
    select="ndcg@20",
    contenders=(
        Baseline("most_popular"),
        Baseline("item_knn", trials=10),
        Baseline("bpr", trials=10, is_random=True),
        Baseline("ials", trials=10, is_random=True),
        Baseline("ease"),
        _published(
            "cml",
            1e-3,
            1.9,
            **{
                "sampling.negatives": 100,
                "loss.rank_weight": True,
                "training.batch_size": 50_000,
                "training.select": "ndcg@20",
            },
        ),
        _tuned("cml", GOWALLA_CONTRASTIVE),
        _tuned(
            "cml",
            GOWALLA_CONTRASTIVE,
            "tuned-256",
            **{"model.dim": 256, "loss.negative_weight": 80.0},
        ),
        _tuned("history_mean", GOWALLA_HISTORY, "tuned-256"),
        _tuned("history_mean", GOWALLA_HISTORY, "tuned-512", **{"model.dim": 512}),
    ),
    references=tuple(
        Reference(name, dict(zip(_LIGHTGCN, values, strict=True)), _BARS)
        for name, values in (
            ("CML (BARS)", (0.1670, 0.1292)),
            ("MF-BPR (BARS)", (0.1627, 0.1378)),
            ("LightGCN (BARS)", (0.1820, 0.1547)),
            ("EASE (BARS)", (0.1765, 0.1467)),
            ("UltraGCN (BARS)", (0.1862, 0.1580)),
            ("SimpleX (BARS)", (0.1872, 0.1557)),
        )
    ),
)

# ---------------------------------------------------------------------------------------------
# CiteULike as in CML's code.

CITEULIKE_T = Protocol(
    name="citeulike-t",
    about=(
        "CiteULike-t, users with at least 5 items and all of their items; 3:1:1 of each user's "
        "items in random order, as in CML's code (a user's shares are rounded to the nearest "
        "number here, there to lower ones with what is left in test)."
    ),
    settings={
        "data.name": "citeulike_t",
        "data.core": 5,
        "data.item_core": 0,
        "data.split": "per_user",
        "data.valid_fraction": 0.2,
        "data.test_fraction": 0.2,
        "evaluation.cutoffs": (50, 100),
    },
    metrics=("recall@50", "recall@100"),
    select="recall@50",
    contenders=(
        *PEERS,
        Model(
            "cml",
            "published",
            {
                "model.name": "cml",
                "loss.margin": 1.9,
                "loss.rank_weight": True,
                "sampling.negatives": 20,
                "optimizer.name": "adagrad",
                "optimizer.learning_rate": 0.1,
                # Two steps an epoch; its code trains on until somebody stops it.
                "training.batch_size": 50_000,
                "training.epochs": 1000,
                "training.patience": 100,
                "training.select": "recall@50",
            },
        ),
        _tuned("cml", CITEULIKE_PER_USER),
        _tuned("history_mean", CITEULIKE_PER_USER, **HISTORIES),
    ),
    references=(
        Reference(
            "CML, Adam",
            {"recall@50": 0.24},
            "about what a user of CML's code reports (changun/CollMetric, issues 13 and 15)",
        ),
    ),
)

# ---------------------------------------------------------------------------------------------
# The HLR authors' data, for whoever has the files.

_PAPER = "Rule and 72/8/20 split (seed 2021) of the HLR paper."


def _of_the_paper(name: str, data: str, about: str, regularization: float) -> Protocol:
    return Protocol(
        name=name,
        about=f"{about} {_PAPER}",
        settings={"data.name": data},
        metrics=TOP_10,
        contenders=(
            Baseline("most_popular"),
            Baseline(
                "ials",
                settings={"factors": 100, "iterations": 20, "regularization": regularization},
                is_random=True,
            ),
            Baseline("ease", trials=6),
            *(_from_file(model, data) for model in ("cml", "lrml", "hlr", "hlrpp")),
        ),
    )


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        ML_100K_HLR,
        ML_1M_HLR,
        CITEULIKE_T_HLR,
        NCF_ML_1M,
        NCF_PINTEREST,
        GOWALLA,
        CITEULIKE_T,
        _of_the_paper("ml-20m", "ml_20m", "MovieLens 20M, ratings of 4 and more, 10-core.", 30.0),
        _of_the_paper("echonest", "echonest", "Echo Nest, 6 plays and more, 10-core.", 30.0),
        _of_the_paper("yelp", "yelp", "Yelp, 4 stars and more, 5-core.", 20.0),
        _of_the_paper(
            "amazon-books", "amazon_books", "Amazon Books, ratings of 4 and more, 10-core.", 30.0
        ),
    )
}
