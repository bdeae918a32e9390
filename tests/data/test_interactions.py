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


timed_lists = st.lists(
    st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), st.integers(0, 9)), max_size=40
)


def timed(rows) -> Interactions:
    table = np.array(rows, np.int32).reshape(-1, 3)
    return Interactions.from_pairs(*table[:, :2].T, USERS, ITEMS, table[:, 2])


def times_of(rows: Interactions) -> dict[tuple[int, int], int]:
    return dict(zip(pairs_of(rows), rows.times.tolist(), strict=True))


@settings(max_examples=60)
@given(rows=timed_lists, more=timed_lists, chosen=st.sets(st.integers(0, USERS - 1)))
def test_times_stay_with_their_pairs_and_the_first_counts(rows, more, chosen):
    first: dict[tuple[int, int], int] = {}
    for user, item, time in rows:
        first[user, item] = min(time, first.get((user, item), 9))
    found = timed(rows)
    assert times_of(found) == first
    is_chosen = np.isin(np.arange(USERS), list(chosen))
    kept = {pair: time for pair, time in first.items() if pair[0] in chosen}
    assert times_of(found.of_users(is_chosen)) == kept
    renumbered = {(sorted(chosen).index(u), i): time for (u, i), time in kept.items()}
    assert times_of(found.of_rows(np.array(sorted(chosen), int))) == renumbered
    last = {(user - 2, item): time for (user, item), time in first.items() if user >= 2}
    assert times_of(found.part(slice(2, None))) == last
    others = timed(more)
    left = {pair: time for pair, time in first.items() if pair not in pairs_of(others)}
    assert times_of(found.without(others)) == left
    union = times_of(found.union(others))
    assert union == {
        pair: min(x[pair] for x in (first, times_of(others)) if pair in x) for pair in union
    }


@settings(max_examples=60)
@given(rows=timed_lists)
def test_items_in_order_of_time(rows):
    found = timed(rows)
    places, ranks = found.oldest_first()
    for user in range(USERS):
        row = slice(*found.offsets[user : user + 2])
        expected = sorted(range(found.counts[user]), key=lambda n: (found.times[row][n], n))
        assert places[row].tolist() == expected
        assert ranks[row].tolist() == [expected.index(n) for n in range(found.counts[user])]


def test_times_that_are_not_known_of_a_part_are_not_known_of_all():
    known, unknown = timed([(0, 1, 3)]), build([(1, 1)])
    assert known.has_times
    assert not unknown.has_times
    for union in (known.union(unknown), unknown.union(known)):
        assert not union.has_times
        assert [len(x) for x in union.oldest_first()] == [0, 0]
    assert known.union(build([])).times.tolist() == [3]
    assert build([]).union(known).times.tolist() == [3]
