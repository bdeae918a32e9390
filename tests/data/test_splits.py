import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hlr_jax.data.splits import (
    GIVEN,
    TEST,
    TRAIN,
    UNKNOWN,
    VALID,
    global_time,
    held_out_users,
    last_of_users,
    leave_one_out,
    per_user_ratio,
    per_user_time,
    random_split,
    read_predefined,
)
from hlr_jax.errors import InputError

fractions = st.sampled_from([(0.08, 0.2), (0.1, 0.1), (0.2, 0.2), (0.3, 0.6), (0.01, 0.05)])
# Few different times, so that there are ties.
histories = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=30, max_size=90)


def arrays(history):
    users, stamps = np.array(history).T
    return users.astype(np.int32), stamps


def counts_of(labels):
    return np.bincount(labels, minlength=3).tolist()


def in_time(users, stamps, user):
    """Rows of a user, oldest first, ties in row order."""
    return sorted(np.flatnonzero(users == user), key=lambda row: (stamps[row], row))


@settings(max_examples=60)
@given(num_rows=st.integers(20, 3000), share=fractions, seed=st.integers(0, 2**32))
def test_random_split_rounds_up(num_rows, share, seed):
    labels = random_split(num_rows, *share, seed)
    test, valid = (int(np.ceil(round(num_rows * fraction, 6))) for fraction in share[::-1])
    assert counts_of(labels) == [num_rows - test - valid, valid, test]
    assert labels.dtype == np.int8
    np.testing.assert_array_equal(labels, random_split(num_rows, *share, seed))


def test_random_split_depends_on_seed_and_is_even():
    labels = random_split(100_000, 0.08, 0.2, 1)
    assert (labels != random_split(100_000, 0.08, 0.2, 2)).any()
    for part in np.split(labels, 10):
        np.testing.assert_allclose(np.bincount(part) / part.size, [0.72, 0.08, 0.2], atol=0.02)


@pytest.mark.parametrize(
    ("num_rows", "expected"),
    [
        (52_764, [37_989, 4_222, 10_553]),
        (998_539, [718_947, 79_884, 199_708]),
        (77_546, [55_832, 6_204, 15_510]),
    ],
)
def test_random_split_has_the_counts_of_the_authors(num_rows, expected):
    assert counts_of(random_split(num_rows, 0.08, 0.2, 2021)) == expected


@settings(max_examples=50)
@given(history=histories, share=fractions)
def test_global_time_never_trains_on_the_future(history, share):
    _, stamps = arrays(history)
    labels = global_time(stamps, *share)
    order = sorted(range(len(stamps)), key=lambda row: (stamps[row], row))
    assert (np.diff(labels[order]) >= 0).all()
    assert counts_of(labels) == counts_of(random_split(len(stamps), *share, 0))


@settings(max_examples=50)
@given(history=histories, share=fractions, seed=st.integers(0, 9))
def test_per_user_proportions(history, share, seed):
    users, stamps = arrays(history)
    try:
        by_chance = per_user_ratio(users, *share, seed)
    except InputError:
        largest = np.bincount(users).max()
        assert largest * share[1] < 0.5
        assume(False)
    by_time = per_user_time(users, stamps, *share)
    assert by_chance.dtype == by_time.dtype == np.int8
    np.testing.assert_array_equal(by_chance, per_user_ratio(users, *share, seed))
    for user in np.unique(users):
        rows = in_time(users, stamps, user)
        test = min(int(np.floor(round(len(rows) * share[1], 6) + 0.5)), len(rows) - 1)
        valid = int(np.floor(round(len(rows) * share[0], 6) + 0.5))
        valid = min(valid, len(rows) - 1 - test)
        expected = [len(rows) - test - valid, valid, test]
        assert counts_of(by_chance[rows]) == expected
        assert by_time[rows].tolist() == np.repeat([TRAIN, VALID, TEST], expected).tolist()


@settings(max_examples=50)
@given(history=histories)
def test_leave_one_out_takes_the_last_two(history):
    users, stamps = arrays(history)
    labels = leave_one_out(users, stamps)
    for user in np.unique(users):
        rows = in_time(users, stamps, user)
        expected = (
            [TRAIN] * (len(rows) - 2) + [VALID, TEST] if len(rows) > 2 else [TRAIN] * len(rows)
        )
        assert labels[rows].tolist() == expected


@settings(max_examples=80)
@given(
    num_users=st.integers(20, 40),
    num_items=st.integers(10, 60),
    share=st.sampled_from([(0.08, 0.2), (0.1, 0.1), (0.2, 0.2), (0.3, 0.6)]),
    seed=st.integers(0, 2**32),
)
def test_held_out_users_are_never_trained_on(num_users, num_items, share, seed):
    chosen = np.random.default_rng(seed).random((num_users, num_items)) < 0.3
    users, items = np.nonzero(chosen)
    users = np.unique(users, return_inverse=True)[1]
    try:
        labels = held_out_users(users, items, *share, seed)
    except InputError:  # nobody has five interactions with items of training users
        assume(False)
    assert labels.dtype == np.int8
    np.testing.assert_array_equal(labels, held_out_users(users, items, *share, seed))
    # By loops: which users are trained on, and what these have.
    of_user = {user: [] for user in users.tolist()}
    for row, user in enumerate(users.tolist()):
        of_user[user].append(row)
    trained = [user for user, rows in of_user.items() if TRAIN in labels[rows]]
    known = {int(items[row]) for user in trained for row in of_user[user]}
    roles = {TRAIN: len(trained), VALID: 0, TEST: 0}
    silent = 0  # held-out users with too few interactions to tell for what
    for user, rows in of_user.items():
        found = set(labels[rows].tolist())
        if user in trained:
            assert found == {TRAIN}
            continue
        countable = [row for row in rows if int(items[row]) in known]
        assert all(labels[row] == UNKNOWN for row in rows if row not in countable)
        number = len(countable) // 5
        predicted = found & {VALID, TEST}
        assert len(predicted) == (number > 0)
        assert counts_of(labels[countable]) == [
            0,
            number * (VALID in found),
            number * (TEST in found),
            *([len(countable) - number] if countable else []),
        ]
        for role in predicted:
            roles[role] += 1
        silent += not predicted
    total = len(of_user)
    wanted = {VALID: share[0], TEST: share[1]}
    wanted = {role: int(np.ceil(round(total * part, 6))) for role, part in wanted.items()}
    assert roles[TRAIN] == total - sum(wanted.values())
    assert all(roles[role] <= number for role, number in wanted.items())
    assert silent == sum(wanted.values()) - roles[VALID] - roles[TEST]


def test_held_out_users_by_hand():
    # Users 0 to 9 have items 0 to 9 and one of their own, of which nobody else knows.
    users = np.repeat(np.arange(10), 11)
    items = np.tile(np.arange(11), 10)
    items[10::11] += np.arange(10)
    labels = held_out_users(users, items, 0.2, 0.3, 5).reshape(10, 11)
    assert (
        sorted(row[row < GIVEN].max() for row in labels) == [TRAIN] * 5 + [VALID] * 2 + [TEST] * 3
    )
    for row in labels:
        if row[0] != TRAIN or row[-1] != TRAIN:
            assert row[-1] == UNKNOWN
            assert (row[:-1] == GIVEN).sum() == 8
    other = held_out_users(users, items, 0.2, 0.3, 6).reshape(10, 11)
    assert (other != labels).any()


def test_what_is_to_be_predicted_is_drawn_evenly():
    users, items = np.divmod(np.arange(200 * 10), 10)
    labels = held_out_users(users, items, 0.1, 0.8, 3).reshape(200, 10)
    assert ((labels == TEST).sum(1)[(labels == TEST).any(1)] == 2).all()
    # Of 160 users, 32 are expected to be tested on each item; the deviation is about 5.
    assert ((labels == TEST).sum(0) - 32).__abs__().max() < 20


@settings(max_examples=50)
@given(history=histories, fraction=st.sampled_from([0.05, 0.2, 0.5, 0.9]))
def test_the_last_of_users_by_loops(history, fraction):
    users, stamps = arrays(history)
    found = last_of_users(users, stamps, fraction)
    for user in np.unique(users):
        rows = in_time(users, stamps, user)
        number = min(int(np.floor(round(len(rows) * fraction, 6) + 0.5)), len(rows) - 1)
        assert found[rows].tolist() == [False] * (len(rows) - number) + [True] * number


def test_without_timestamps_the_order_of_rows_is_time():
    users = np.array([1, 0, 1, 1, 0, 1, 0])
    assert leave_one_out(users, None).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert per_user_time(users, None, 0.3, 0.3).tolist() == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "call",
    [
        lambda: random_split(0, 0.1, 0.1, 0),
        lambda: random_split(2, 0.1, 0.1, 0),
        lambda: global_time(np.array([5, 6]), 0.1, 0.2),
        lambda: per_user_ratio(np.arange(5), 0.1, 0.2, 0),
        lambda: per_user_ratio(np.zeros(0, np.int64), 0.1, 0.2, 0),
        lambda: per_user_time(np.arange(5), np.arange(5), 0.1, 0.2),
        lambda: leave_one_out(np.array([0, 0, 1, 1]), np.arange(4)),
        lambda: held_out_users(np.zeros(0, int), np.zeros(0, int), 0.1, 0.1, 0),
        lambda: held_out_users(np.arange(4).repeat(4), np.tile(np.arange(4), 4), 0.2, 0.2, 0),
    ],
)
def test_no_test_row_is_an_error(call):
    with pytest.raises(InputError, match=r"config\.data\."):
        call()


# --- predefined splits

PAIRS = {"train": [(1, 5), (2, 6)], "valid": [(1, 6)], "test": [(2, 5), (1, 7)]}


def write_split(folder, name: str, pairs):
    path = folder / name
    if name.endswith(".txt"):
        path.write_text("".join(f"{user} {item}\n" for user, item in pairs))
    elif name.endswith(".parquet"):
        pl.DataFrame(pairs, schema=["user", "item"], orient="row").write_parquet(path)
    else:
        separator = "\t" if name.endswith(".tsv") else ","
        lines = [("user", "item"), *pairs]
        path.write_text("".join(f"{user}{separator}{item}\n" for user, item in lines))


@pytest.mark.parametrize("extension", ["csv", "tsv", "parquet", "txt"])
@pytest.mark.parametrize("splits", [("train", "valid", "test"), ("train", "test")])
def test_predefined_round_trip(tmp_path, extension, splits):
    for split in splits:
        write_split(tmp_path, f"{split}.{extension}", PAIRS[split])
    frames = read_predefined(tmp_path)
    assert list(frames) == ["train", "valid", "test"]
    for split, frame in frames.items():
        if split in splits:
            assert frame is not None
            assert frame.rows() == PAIRS[split]
        else:
            assert frame is None


def test_predefined_with_other_columns(tmp_path):
    for split, pairs in PAIRS.items():
        text = "".join(f"{item},{user}\n" for user, item in pairs)
        (tmp_path / f"{split}.csv").write_text(text)
    frames = read_predefined(tmp_path, columns=("1", "0"))
    assert [frame.rows() for frame in frames.values() if frame is not None] == [*PAIRS.values()]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ["no train.csv", "train.csv", ".txt"]),
        ({"train.csv": PAIRS["train"]}, ["no test.csv"]),
        (
            {"train.csv": [(1, 5)], "train.txt": [(1, 5)], "test.csv": [(2, 5)]},
            ["train.csv", "train.txt"],
        ),
        (
            {"train.csv": [(1, 5), (2, 6)], "test.csv": [(2, 5), (2, 6)]},
            ["test.csv: user 2 and item 6", "train.csv"],
        ),
        (
            {"train.csv": [(1, 5)], "valid.csv": [(3, 3)], "test.csv": [(3, 3)]},
            ["test.csv: user 3 and item 3", "valid.csv"],
        ),
        ({"train.csv": [(1, 5)], "test.csv": []}, ["test.csv", "no interactions"]),
        ({"train.csv": [(1, 5)], "valid.csv": [], "test.csv": [(1, 6)]}, ["valid.csv"]),
    ],
)
def test_faulty_predefined(tmp_path, files, expected):
    for name, pairs in files.items():
        write_split(tmp_path, name, pairs)
    with pytest.raises(InputError) as caught:
        read_predefined(tmp_path)
    for part in (str(tmp_path), *expected):
        assert part in str(caught.value)


def test_predefined_without_a_test_item(tmp_path):
    write_split(tmp_path, "train.txt", PAIRS["train"])
    (tmp_path / "test.txt").write_text("1\n2\n")
    with pytest.raises(InputError, match=r"test\.txt: lists no items"):
        read_predefined(tmp_path)


def test_predefined_missing_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_predefined(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("folder", "sizes"),
    [
        ("splits/ml-100k-hlr", (37_989, 4_222, 10_553)),
        ("splits/ml-1m-hlr", (718_947, 79_884, 199_708)),
        ("splits/citeulike-t-hlr", (55_832, 6_204, 15_510)),
        ("ml-1m-rating3", (590_733, 80_897, 164_848)),
        ("gowalla", (719_081, 91_047, 217_242)),
    ],
)
def test_real_splits(data_folder, folder, sizes):
    frames = read_predefined(data_folder / folder)
    assert tuple(frame.height for frame in frames.values() if frame is not None) == sizes
