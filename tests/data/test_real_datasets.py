"""Real data sets have the counts that their publishers and papers give."""

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("fields", "folder", "shape", "sizes"),
    [
        ({"name": "ml_100k"}, "ml-100k", (887, 822), (37_989, 4_222, 10_553)),
        (
            {"name": "ml_100k", "min_rating": 0.0, "core": 0},
            "ml-100k",
            (943, 1682),
            (72_000, 8_000, 20_000),
        ),
        (
            {"name": "ml_1m", "min_rating": 0.0},
            "ml-1m",
            (6040, 3260),
            (718_947, 79_884, 199_708),
        ),
        ({"name": "citeulike_t"}, "citeulike-t", (3527, 6339), (55_832, 6_204, 15_510)),
        (
            {"name": "citeulike_t", "core": 0},
            "citeulike-t",
            (7947, 25_584),
            (97_099, 10_789, 26_972),
        ),
        ({"name": "gowalla"}, "gowalla", (29_858, 40_981), (719_081, 91_047, 217_242)),
        (
            {"name": "ml_1m_rating3"},
            "ml-1m-rating3",
            (6039, 3628),
            (590_733, 80_897, 164_848),
        ),
        ({"name": "ncf_ml_1m"}, "ncf-ml-1m", (6040, 3706), (988_129, 6_040, 6_040)),
        (
            {"name": "lastfm_2k", "core": 0},
            "hetrec-lastfm-2k",
            (1892, 17_632),
            (66_840, 7_427, 18_567),
        ),
        (
            {"name": "ml_latest_small", "min_rating": 0.0, "core": 0},
            "ml-latest-small",
            (610, 9724),
            (72_601, 8_067, 20_168),
        ),
        (
            {"name": "amazon_hin", "min_rating": 0.0, "core": 0},
            "amazon-hin",
            (6170, 2753),
            (140_968, 15_664, 39_159),
        ),
        (
            {"predefined": "ml-100k-hlr", "name": "ml_100k"},
            "splits/ml-100k-hlr",
            (887, 822),
            (37_989, 4_222, 10_553),
        ),
        (
            {"predefined": "ml-1m-hlr"},
            "splits/ml-1m-hlr",
            (6040, 3260),
            (718_947, 79_884, 199_708),
        ),
        (
            {"predefined": "citeulike-t-hlr"},
            "splits/citeulike-t-hlr",
            (3527, 6339),
            (55_832, 6_204, 15_510),
        ),
    ],
    ids=lambda value: ",".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_real_counts(load_real, fields, folder, shape, sizes):
    dataset = load_real(folder, **fields)
    assert (dataset.num_users, dataset.num_items) == shape
    assert tuple(dataset.split_sizes.values()) == sizes


def test_real_filter_finds_the_pairs_of_the_published_split(load_real):
    ours = load_real("ml-100k", name="ml_100k")
    theirs = load_real("splits/ml-100k-hlr", name="ml_100k", predefined="ml-100k-hlr")
    np.testing.assert_array_equal(ours.user_ids, theirs.user_ids)
    np.testing.assert_array_equal(ours.item_ids, theirs.item_ids)
    every = [d.train.union(d.valid).union(d.test).items for d in (ours, theirs)]
    np.testing.assert_array_equal(*every)
    assert ours.item_titles[ours.item_ids == 1].tolist() == ["Toy Story (1995)"]


def test_real_given_negatives(load_real):
    dataset = load_real("ncf-ml-1m", name="ncf_ml_1m")
    assert dataset.given_negatives.shape == (6040, 99)
    assert dataset.given_negatives.min() >= 0
    # A known quirk of the published file, which rankers have to expect.
    assert (dataset.given_negatives == dataset.test.items[:, None]).sum() == 156
