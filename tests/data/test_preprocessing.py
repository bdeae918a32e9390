from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlr_jax.data import readers
from hlr_jax.data.preprocessing import encode, k_core, keep_rated, merge_duplicates
from hlr_jax.errors import InputError

small_ids = st.integers(0, 6)
wide_ids = st.integers(0, 2**63 - 1)
words = st.text(st.sampled_from("ab1é"), min_size=1, max_size=3)


def pair_lists(ids, min_size=1):
    return st.lists(st.tuples(ids, ids), min_size=min_size, max_size=40)


def frame_of(pairs) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema=["user", "item"], orient="row")


def naive_k_core(pairs, user_core: int, item_core: int):
    while True:
        users, items = (Counter(pair[side] for pair in pairs) for side in (0, 1))
        kept = [(u, i) for u, i in pairs if users[u] >= user_core and items[i] >= item_core]
        if len(kept) == len(pairs):
            return kept
        pairs = kept


@settings(max_examples=100)
@given(
    pairs=st.one_of(pair_lists(small_ids), pair_lists(words)),
    user_core=st.integers(0, 4),
    item_core=st.integers(0, 4),
)
def test_k_core_is_the_naive_one(pairs, user_core, item_core):
    expected = naive_k_core(pairs, user_core, item_core)
    if expected:
        assert k_core(frame_of(pairs), user_core, item_core).rows() == expected
    else:
        with pytest.raises(InputError, match=r"config\.data\.core"):
            k_core(frame_of(pairs), user_core, item_core)


def test_k_core_keeps_the_other_columns():
    frame = frame_of([(1, 1), (1, 2), (2, 1), (2, 2), (3, 9)]).with_columns(
        rating=pl.Series([1.0, 2.0, 3.0, 4.0, 5.0])
    )
    assert k_core(frame, 2, 2).equals(frame[:4])


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.tuples(small_ids, small_ids, st.integers(1, 5).map(float), st.integers(0, 9)),
        min_size=1,
        max_size=40,
    )
)
def test_merge_keeps_first_place_highest_rating_earliest_time(rows):
    expected = {}
    for user, item, rating, stamp in rows:
        best, first = expected.get((user, item), (rating, stamp))
        expected[user, item] = (max(best, rating), min(first, stamp))
    frame = pl.DataFrame(rows, schema=["user", "item", "rating", "timestamp"], orient="row")
    merged = merge_duplicates(frame)
    assert merged.rows() == [(*pair, *values) for pair, values in expected.items()]
    assert merged.schema == frame.schema
    assert merge_duplicates(merged).equals(merged)


@settings(max_examples=40)
@given(pairs=st.one_of(pair_lists(words), pair_lists(wide_ids)))
def test_merge_of_bare_pairs(pairs):
    assert merge_duplicates(frame_of(pairs)).rows() == list(dict.fromkeys(pairs))


@settings(max_examples=60)
@given(pairs=st.one_of(pair_lists(small_ids), pair_lists(words), pair_lists(wide_ids)))
def test_encode_numbers_the_sorted_ids(pairs):
    encoded = encode(frame_of(pairs))
    for codes, ids, raw in (
        (encoded.users, encoded.user_ids, [user for user, _ in pairs]),
        (encoded.items, encoded.item_ids, [item for _, item in pairs]),
    ):
        assert codes.dtype == np.int32
        assert ids.tolist() == sorted(set(raw))
        assert ids[codes].tolist() == raw


def test_integer_ids_are_ordered_as_numbers():
    encoded = encode(frame_of([(10, 3), (9, 20)]))
    assert encoded.user_ids.tolist() == [9, 10]
    assert encoded.users.tolist() == [1, 0]


def test_keep_rated():
    frame = frame_of([(1, 1), (1, 2), (2, 1)]).with_columns(rating=pl.Series([4.0, 3.5, 5.0]))
    assert keep_rated(frame, 4).rows() == [(1, 1, 4.0), (2, 1, 5.0)]
    with pytest.raises(InputError, match=r"config\.data\.min_rating=6.*highest rating is 5\.0"):
        keep_rated(frame, 6)
    with pytest.raises(InputError, match="rating column"):
        keep_rated(frame.drop("rating"), 4)


def test_real_data_after_filters(data_folder):
    """HLR's protocol gives the counts of the authors' own files."""
    raw = readers.read_table(data_folder / "ml-100k" / "u.data", readers.Columns(0, 1, 2), "tsv")
    kept = k_core(merge_duplicates(keep_rated(raw, 4)), 10, 10)
    encoded = encode(kept)
    sizes = (encoded.user_ids.size, encoded.item_ids.size, kept.height)
    assert sizes == (887, 822, 37_989 + 4_222 + 10_553)
