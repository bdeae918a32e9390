import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlr_jax.data import interactions
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError

USERS, ITEMS = 6, 8
pair_lists = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), max_size=40)


def build(pairs, num_users=USERS, num_items=ITEMS) -> Interactions:
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return Interactions.from_pairs(table[:, 0], table[:, 1], num_users, num_items)


def pairs_of(rows: Interactions):
    return list(zip(rows.users.tolist(), rows.items.tolist(), strict=True))


@settings(max_examples=60)
@given(pairs=pair_lists)
def test_holds_each_pair_once_in_order(pairs):
    rows = build(pairs)
    assert pairs_of(rows) == sorted(set(pairs))
    assert len(rows) == len(set(pairs))
    assert (rows.num_users, rows.num_items) == (USERS, ITEMS)
    assert (rows.offsets.dtype, rows.items.dtype) == (np.int64, np.int32)
    for user in range(USERS):
        items = sorted({item for u, item in pairs if u == user})
        assert rows.of(user).tolist() == items
        assert rows.counts[user] == len(items)
    assert rows.popularity.tolist() == [len({u for u, i in pairs if i == k}) for k in range(ITEMS)]


@settings(max_examples=40)
@given(first=pair_lists, second=pair_lists)
def test_union(first, second):
    union = build(first).union(build(second))
    assert pairs_of(union) == sorted(set(first) | set(second))


def test_union_of_different_sizes():
    with pytest.raises(ValueError, match="different users or items"):
        build([(0, 0)]).union(build([(0, 0)], num_items=ITEMS + 1))


def test_empty():
    rows = build([])
    assert len(rows) == 0
    assert rows.counts.tolist() == [0] * USERS
    assert rows.popularity.tolist() == [0] * ITEMS
    assert rows.of(2).size == 0


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(0, 0), (USERS, 0)], "user id 6 is outside 0..5"),
        ([(0, 0), (-1, 0)], "user id -1 is outside 0..5"),
        ([(0, ITEMS)], "item id 8 is outside 0..7"),
        ([(0, -2)], "item id -2 is outside 0..7"),
    ],
)
def test_ids_out_of_bounds(pairs, message):
    with pytest.raises(InputError, match=message):
        build(pairs)


def test_too_many_users_or_interactions(monkeypatch):
    with pytest.raises(InputError, match="2147483648 users"):
        build([], num_users=2**31)
    with pytest.raises(InputError, match="2147483648 items"):
        build([], num_items=2**31)
    monkeypatch.setattr(interactions, "MAX_SIZE", 10)
    with pytest.raises(InputError, match="12 interactions"):
        build([(user, item) for user in range(3) for item in range(4)])


@pytest.mark.parametrize("users", [(0, 4), (1, 3), (2, 2), (3, 9), (4, 9), (0, 0)])
def test_a_part_has_consecutive_users_numbered_from_0(users):
    rows = [[1, 4], [], [0, 2, 5], [3]]
    pairs = [(user, item) for user, items in enumerate(rows) for item in items]
    whole = Interactions.from_pairs(*np.array(pairs).T, 4, 6)
    part = whole.part(slice(*users))
    assert part.num_items == 6
    assert [part.of(user).tolist() for user in range(part.num_users)] == rows[slice(*users)]
    assert len(part) == sum(map(len, rows[slice(*users)]))


@settings(max_examples=40)
@given(pairs=pair_lists, chosen=st.lists(st.booleans(), min_size=USERS, max_size=USERS))
def test_the_interactions_of_some_users(pairs, chosen):
    kept = build(pairs).of_users(np.array(chosen))
    assert pairs_of(kept) == sorted({(user, item) for user, item in pairs if chosen[user]})
    assert (kept.num_users, kept.num_items) == (USERS, ITEMS)
    assert kept.offsets.dtype == np.int64


def test_nothing_adds_nothing():
    rows, nothing = build([(0, 3), (2, 1)]), Interactions.none(USERS, ITEMS)
    assert rows.union(nothing) is rows
    assert pairs_of(nothing.union(rows)) == pairs_of(rows)
    assert (len(nothing), nothing.num_users, nothing.num_items) == (0, USERS, ITEMS)
