"""List the protocols whose tables `tables.py` fills, and the entries of each. Plain data.

Hyperparameters stand in the configurations that entries name. To add an entry, add a line; the next
run of its protocol fills it in. An entry whose configuration has changed is run again.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from benchmarks.accuracy.entries import Baseline, Model, Protocol, Reference, full_catalog
from benchmarks.accuracy.strong_generalization import STRONG_GENERALIZATION

TOP_10 = ("ndcg@10", "precision@10", "recall@10")
PEERS = (
    Baseline("most_popular"),
    Baseline("item_knn"),
    Baseline("bpr", is_random=True),
    Baseline("ials", is_random=True),
    Baseline("ials_scaled", is_random=True),
    Baseline("rp3beta"),
    Baseline("slim"),
    Baseline("ease"),
)


def _published(data: str, *models: str) -> list[Model]:
    """Models with published hyperparameters."""
    return [Model(name, "published", f"published.py:{data}/{name}") for name in models]


def _tuned(data: str, *models: str) -> list[Model]:
    """Models with hyperparameters chosen on validation."""
    return [Model(name, "tuned", f"tuned/{data}_{name}.py") for name in models]


def _recent(data: str, *models: str) -> list[Model]:
    """Models that read the order of time."""
    return [Model(name, "recent", f"recent.py:{data}/{name}") for name in models]


def _tuned_from_cml(data: str, *models: str) -> list[Model]:
    """The same for models that start from the tables of tuned CML."""
    return [
        Model(name, "tuned", f"tuned/{data}_{name}_from_cml.py", pretrained="cml-tuned")
        for name in models
    ]


# ---------------------------------------------------------------------------------------------
# The HLR authors' own protocol, on data that they did not publish figures or
# hyperparameters for: `published` ones are those that they published for other data.

_TENSORFLOW = "the HLR authors' TensorFlow code, one seed, epoch of the lowest validation loss"
_OPTIMISTIC = "the best regularization of four *on test*"

_HLR_SPLIT = (
    "Random 72/8/20 split as the HLR authors' code makes it (seed 2021), after a {core}-core."
)

ML_100K_HLR = Protocol(
    name="ml-100k-hlr",
    about="MovieLens 100k, ratings of 4 and more. " + _HLR_SPLIT.format(core=10),
    config="published.py:ml_100k/cml",
    settings={"data.predefined": "ml-100k-hlr"},
    metrics=TOP_10,
    entries=(
        *PEERS,
        *_published("ml_100k", "cml", "lrml", "hlr", "hlrpp", "adacml", "transcf"),
        *_tuned("ml_100k", "cml"),
        *_tuned_from_cml("ml_100k", "lrml", "hlr", "hlrpp"),
        *_tuned("ml_100k", "adacml", "transcf"),
        *full_catalog("ml_100k", "cml", "items_only", "history_mean", "transcf"),
        *full_catalog("ml_100k", "nearest_items", "lrml", "hlr", "hlrpp"),
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
    config="published.py:ml_1m/cml",
    settings={"data.predefined": "ml-1m-hlr"},
    metrics=TOP_10,
    entries=(
        *PEERS,
        *_published("ml_1m", "cml", "lrml", "hlr", "hlrpp", "adacml", "transcf"),
        *_tuned("ml_1m", "cml"),
        *_tuned_from_cml("ml_1m", "lrml", "hlr"),
        *full_catalog("ml_1m", "cml", "items_only", "lrml", "hlr"),
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
    config="published.py:citeulike_t/cml",
    settings={"data.predefined": "citeulike-t-hlr"},
    metrics=TOP_10,
    entries=(
        *PEERS,
        *_published("citeulike_t", "cml", "lrml", "hlr", "hlrpp"),
        *_tuned("citeulike_t", "cml", "history_mean"),
        *full_catalog("citeulike_t", "cml", "items_only"),
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
    config="published.py:ncf_ml_1m/cml",
    settings={"evaluation.protocol": "sampled"},
    metrics=_NCF_METRICS,
    entries=(
        *PEERS,
        *_published("ncf_ml_1m", "cml"),
        *_tuned("ncf_ml_1m", "cml"),
        *full_catalog("ncf_ml_1m", "cml"),
        *_recent("ncf_ml_1m", "recent_items"),
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
    config="published.py:pinterest/cml",
    settings={"evaluation.protocol": "sampled"},
    metrics=_NCF_METRICS,
    entries=(*PEERS, *_published("pinterest", "cml")),
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
    config="published.py:gowalla/cml",
    metrics=_LIGHTGCN,
    selection_metric="ndcg@20",
    entries=(
        Baseline("most_popular"),
        Baseline("item_knn", trials=10),
        Baseline("bpr", trials=10, is_random=True),
        Baseline("ials", trials=10, is_random=True),
        Baseline("ease"),
        *_published("gowalla", "cml"),
        *_tuned("gowalla", "cml"),
        Model("cml", "tuned-256", "tuned/gowalla_cml_256.py"),
        Model("history_mean", "tuned-256", "tuned/gowalla_history_mean.py"),
        Model("history_mean", "tuned-512", "tuned/gowalla_history_mean_512.py"),
    ),
    references=tuple(
        Reference(name, dict(zip(_LIGHTGCN, values, strict=True)), source)
        for name, values, source in (
            ("CML (BARS)", (0.1670, 0.1292), _BARS),
            ("MF-BPR (BARS)", (0.1627, 0.1378), _BARS),
            ("LightGCN (BARS)", (0.1820, 0.1547), _BARS),
            ("EASE (BARS)", (0.1765, 0.1467), _BARS),
            ("UltraGCN (BARS)", (0.1862, 0.1580), _BARS),
            ("SimpleX (BARS)", (0.1872, 0.1557), _BARS),
            ("BSPM", (0.1920, 0.1597), "Choi et al., SIGIR 2023"),
            ("NESCL", (0.1917, 0.1617), "Sun et al., 2023"),
        )
    ),
)

GOWALLA_LAST = Protocol(
    name="gowalla-last",
    about=(
        "Gowalla, LightGCN's test split. Its test part is the last of each user's list, not a "
        "random part: validation is drawn in the same way, the last tenth of each user's training "
        "interactions in the order of the file (those that LightGCN++ drew for validation, whose "
        "place is unknown, are trained on)."
    ),
    config="published.py:gowalla/cml",
    settings={"data.valid_split": "per_user_last", "data.valid_fraction": 0.1},
    metrics=_LIGHTGCN,
    selection_metric="ndcg@20",
    entries=(
        Baseline("most_popular"),
        Baseline("item_knn", trials=10),
        Baseline("ials", trials=10, is_random=True),
        Baseline("ease"),
        *full_catalog("gowalla", "cml", "items_only", "history_mean"),
    ),
    references=GOWALLA.references,
)

# ---------------------------------------------------------------------------------------------
# More data, on which CML was tuned as the baselines are: by some trials on validation.


def _more(
    name: str,
    about: str,
    data: str,
    settings: Mapping[str, str] = MappingProxyType({}),
    others: Sequence[Model] = (),
) -> Protocol:
    return Protocol(
        name=name,
        about=about,
        config=f"published.py:{data}/cml",
        settings=settings,
        metrics=TOP_10,
        entries=(
            *(peer for peer in PEERS if peer.name != "bpr"),
            *full_catalog(data, "cml", "items_only", "history_mean"),
            *others,
        ),
    )


_MORE_DATA = (
    _more(
        "ml-1m-rating3",
        "MovieLens 1M, ratings of 3 and more, split as LightGCN++ publishes it.",
        "ml_1m_rating3",
    ),
    _more(
        "ml-latest-small",
        "MovieLens latest small, ratings of 4 and more. Random 72/8/20 split after a 10-core.",
        "ml_latest_small",
    ),
    _more("lastfm-2k", "Last.fm. Random 72/8/20 split after a 10-core.", "lastfm_2k"),
    _more(
        "amazon-hin",
        "Amazon, ratings of 4 and more, 10-core. Each user's newest fifth for test, and the 8 % "
        "before for validation.",
        "amazon_hin",
        {"data.split": "per_user_time"},
        _recent("amazon_hin", "history_mean", "recent_items"),
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
    config="published.py:citeulike_t_per_user/cml",
    metrics=("recall@50", "recall@100"),
    selection_metric="recall@50",
    entries=(
        *PEERS,
        *_published("citeulike_t_per_user", "cml"),
        *_tuned("citeulike_t_per_user", "cml", "history_mean"),
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
        config=f"published.py:{data}/cml",
        metrics=TOP_10,
        entries=(
            Baseline("most_popular"),
            Baseline(
                "ials",
                settings={"factors": 100, "iterations": 20, "regularization": regularization},
                is_random=True,
            ),
            Baseline("ease", trials=6),
            *_published(data, "cml", "lrml", "hlr", "hlrpp"),
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
        GOWALLA_LAST,
        CITEULIKE_T,
        *STRONG_GENERALIZATION,
        *_MORE_DATA,
        _of_the_paper("ml-20m", "ml_20m", "MovieLens 20M, ratings of 4 and more, 10-core.", 30.0),
        _of_the_paper("echonest", "echonest", "Echo Nest, 6 plays and more, 10-core.", 30.0),
        _of_the_paper("yelp", "yelp", "Yelp, 4 stars and more, 5-core.", 20.0),
        _of_the_paper(
            "amazon-books", "amazon_books", "Amazon Books, ratings of 4 and more, 10-core.", 30.0
        ),
    )
}
