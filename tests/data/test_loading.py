"""Data sets from configuration to interactions: what is read and kept, and how it is split."""

import dataclasses
import re

import numpy as np
import polars as pl
import pytest
from data_files import fault, joined, ratings, write, write_ncf, write_split

from hlr_jax.config import DataConfig
from hlr_jax.data import Interactions, load
from hlr_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("folders", "generated_once")


def pairs(interactions):
    return set(zip(interactions.users.tolist(), interactions.items.tolist(), strict=True))


# Public data sets.


def test_a_data_set_in_the_data_folder(table):
    (table.parent / "u.item").write_bytes("100|Caf\u00e9 Noir|x\n101|Beta|x\n".encode("latin-1"))
    dataset = load(DataConfig(name="ml_100k", min_rating=2.0, core=2))
    names = ["user", "item", "rating", "timestamp"]
    kept = pl.read_csv(table, separator="\t", has_header=False, new_columns=names)
    kept = kept.filter(pl.col("rating") >= 2)
    assert sum(dataset.split_sizes.values()) == kept.height
    assert dataset.name == "ml_100k"
    assert set(dataset.user_ids) == set(kept["user"])
    assert set(dataset.item_ids) == set(kept["item"])
    titles = dict(zip(dataset.item_ids.tolist(), dataset.item_titles.tolist(), strict=True))
    assert titles[100] == "Caf\u00e9 Noir"
    assert titles[101] == "Beta"
    assert titles[102] == ""
    splits = [pairs(getattr(dataset, part)) for part in ("train", "valid", "test")]
    assert len(set.union(*splits)) == sum(map(len, splits))


def test_a_compressed_file_will_do(folders):
    write(folders[0] / "ml-100k" / "u.data.gz", ratings())
    assert load(DataConfig(name="ml_100k", core=2)).num_users == 12


def test_the_filter_of_the_paper_is_the_default(table):
    with pytest.raises(InputError, match=r"config\.data\.core"):
        load(DataConfig(name="ml_100k"))


def test_leave_one_out_with_given_negatives(folders):
    write_ncf(folders[0] / "pinterest")
    dataset = load(DataConfig(name="pinterest"))
    assert dataset.split_sizes == {"train": 10, "valid": 5, "test": 4}
    for user in range(5):
        # Validation is the newest training item.
        assert dataset.valid.of(user).tolist() == [(user + 3) % 7]
    assert dataset.given_negatives.dtype == np.int32
    expected = [[(user + 5) % 7, -1] for user in range(4)]  # nobody has item 99
    assert dataset.given_negatives.tolist() == [*expected, [-1, -1]]


def test_a_published_data_set_can_be_split_again_and_then_has_no_given_negatives(folders):
    write_ncf(folders[0] / "pinterest")
    dataset = load(DataConfig(name="pinterest", split="random", test_fraction=0.5))
    assert dataset.split_sizes["test"] == 10
    assert dataset.given_negatives is None


def test_a_published_split_is_not_filtered(folders):
    write_split(folders[0] / "gowalla", "txt")
    with pytest.raises(InputError, match=r"config\.data\.core=5"):
        load(DataConfig(name="gowalla", core=5))
    assert load(DataConfig(name="gowalla", core=0)).split_sizes["valid"] == 3


def test_items_can_have_a_core_of_their_own(table):
    rows = [f"{user}\t{item}\t5\t0\n" for user in range(3) for item in range(user + 1)]
    write(table, "".join(rows))  # users of 1, 2 and 3 items; items of 3, 2 and 1 users
    dataset = load(DataConfig(name="ml_100k", core=2, item_core=0, split="per_user"))
    assert dataset.user_ids.tolist() == [1, 2]
    assert dataset.item_ids.tolist() == [0, 1, 2]
    write_split(table.parents[1] / "gowalla", "txt")
    with pytest.raises(InputError, match=r"config\.data\.item_core=2"):
        load(DataConfig(name="gowalla", item_core=2))


# Predefined splits.


@pytest.mark.parametrize("where", ["splits/mine", "mine"])
def test_predefined_by_name(folders, where):
    write_split(folders[0] / where)
    dataset = load(DataConfig(predefined="mine"))
    assert dataset.name == "mine"
    assert dataset.split_sizes == {"train": 4, "valid": 1, "test": 2}
    assert dataset.user_ids.tolist() == [7, 8, 9]
    # An item that only the test file has is kept, and so is a user without training interactions.
    assert dataset.item_ids.tolist() == [1, 2, 3, 5]
    assert dataset.train.counts.tolist() == [2, 2, 0]
    assert dataset.item_titles is None


def test_predefined_by_path_without_validation(tmp_path):
    folder = write_split(tmp_path / "elsewhere", "txt", valid=False)
    dataset = load(DataConfig(predefined=str(folder), valid_fraction=0.25))
    assert dataset.split_sizes == {"train": 7, "valid": 2, "test": 3}


@pytest.mark.parametrize("rule", ["", "per_user", "per_user_last"])
def test_a_pair_that_is_repeated_in_train_is_in_one_split(tmp_path, rule):
    train = [(user, item) for user in range(6) for item in range(8)]
    lines = [f"{user},{item}" for user, item in [*train, *train]]
    write(tmp_path / "train.csv", "\n".join(["user,item", *lines]) + "\n")
    write(tmp_path / "test.csv", "user,item\n0,8\n")
    config = DataConfig(predefined=str(tmp_path), valid_split=rule, valid_fraction=0.25)
    dataset = load(config)
    assert dataset.split_sizes == {"train": 36, "valid": 12, "test": 1}
    assert not pairs(dataset.train) & pairs(dataset.valid)


def test_predefined_takes_titles_of_the_data_set_named(folders):
    write_split(folders[0] / "splits" / "mine")
    write(folders[0] / "ml-1m" / "movies.dat", "1::One (1995)::Drama\n5::Five::Comedy\n")
    dataset = load(DataConfig(name="ml_1m", predefined="mine"))
    assert dataset.item_titles.tolist() == ["One (1995)", "", "", "Five"]
    # Titles alone are never worth a download.
    assert load(DataConfig(name="ml_20m", predefined="mine")).item_titles is None


# The user's own table.


def test_own_table(tmp_path):
    lines = "who;what".replace(";", ",") + "\n"
    lines += "".join(f"u{n},i{m}\n" for n in range(6) for m in range(9) if (n + m) % 3)
    path = write(tmp_path / "plays.csv", lines)
    config = DataConfig(name="file", path=str(path), user_column="who", item_column="what")
    dataset = load(config)
    assert dataset.name == "plays.csv"
    assert dataset.user_ids.tolist() == [f"u{n}" for n in range(6)]
    assert dataset.user_ids.dtype.kind == "U"
    assert dataset.user_index("u3") == 3
    again = load(config)
    np.testing.assert_array_equal(again.user_ids, dataset.user_ids)
    np.testing.assert_array_equal(again.train.items, dataset.train.items)


@pytest.mark.parametrize(
    ("form", "text"),
    [("adjacency", "0 1 2 3\n1 2 3 4\n2 1 3 4\n"), ("lists", "3 1 2 3\n3 2 3 4\n3 1 3 4\n")],
)
def test_own_lists(tmp_path, form, text):
    path = write(tmp_path / "lists.txt", text)
    dataset = load(DataConfig(name="file", path=str(path), format=form))
    assert dataset.user_ids.tolist() == [0, 1, 2]
    assert dataset.item_ids.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "split",
    ["per_user", "leave_one_out", "global_time", "per_user_time", "held_out_users"],
)
def test_every_split(table, split):
    config = DataConfig(name="ml_100k", min_rating=0.0, core=0, split=split, valid_fraction=0.2)
    dataset = load(config)
    assert all(size > 0 for size in dataset.split_sizes.values())


# Users who are held out.

STRONG = {"name": "ml_100k", "min_rating": 0.0, "core": 0, "split": "held_out_users"}


def test_held_out_users_have_what_is_given_and_what_is_to_be_predicted(table):
    # Another user, who has an item of its own, and one with too few to be asked of.
    lines = ratings() + "".join(f"50\t{item}\t5\t0\n" for item in (100, 102, 104, 106, 108, 999))
    write(table, lines + "51\t100\t5\t0\n51\t102\t5\t0\n")
    pairs_of_file = {tuple(map(int, line.split()[:2])) for line in lines.splitlines()}
    pairs_of_file |= {(51, 100), (51, 102)}
    was_alone = was_silent = False
    for seed in range(12):
        dataset = load(
            DataConfig(**STRONG, split_seed=seed, valid_fraction=0.25, test_fraction=0.25)
        )
        parts = {
            name: {
                (int(dataset.user_ids[user]), int(dataset.item_ids[item]))
                for user, item in pairs(getattr(dataset, name))
            }
            for name in ("train", "valid", "test", "given")
        }
        trained = {user for user, _ in parts["train"]}
        known = {item for _, item in parts["train"]}
        # The catalogue is what training users have; the rest of the file is all there.
        assert set(dataset.item_ids.tolist()) == known
        kept = {(user, item) for user, item in pairs_of_file if item in known}
        assert set.union(*parts.values()) == kept
        assert sum(map(len, parts.values())) == len(kept)
        asked = [{user for user, _ in parts[name]} for name in ("valid", "test")]
        assert not asked[0] & asked[1]
        assert not trained & set.union(*asked)
        assert len(trained) == 14 - 4 - 4
        for user in set(dataset.user_ids.tolist()) - trained:
            row, mine = dataset.user_index(user), {item for one, item in kept if one == user}
            predicted = len(dataset.valid.of(row)) + len(dataset.test.of(row))
            assert predicted == len(mine) // 5
            assert dataset.given.counts[row] == len(mine) - predicted
        was_alone |= 999 not in dataset.item_ids
        was_silent |= 51 not in trained
        assert dataset.split_sizes["given"] == len(parts["given"])
    assert was_alone
    assert was_silent


def test_what_is_given_is_known_and_moves_with_validation(table):
    config = DataConfig(**STRONG, valid_fraction=0.25, test_fraction=0.25)
    dataset = load(config)
    later = load(dataclasses.replace(config, join_valid=True))
    for user in range(dataset.num_users):
        of = {name: set(getattr(dataset, name).of(user)) for name in ("train", "valid", "given")}
        assert set(dataset.known("valid").of(user)) == of["train"] | of["given"]
        assert set(dataset.known("test").of(user)) == of["train"] | of["given"] | of["valid"]
        moved = of["given"] if of["valid"] else set()
        assert set(later.train.of(user)) == of["train"] | of["valid"] | moved
        assert set(later.given.of(user)) == of["given"] - moved
    part = slice(3, 8)
    for split in ("valid", "test"):
        mine, whole = dataset.known(split, part), dataset.known(split)
        assert [mine.of(user).tolist() for user in range(5)] == [
            whole.of(user).tolist() for user in range(3, 8)
        ]
    assert len(later.given) > 0
    assert len({dataset.digest, later.digest, _without_given(dataset).digest}) == 3
    again = load(config)  # as it was stored
    np.testing.assert_array_equal(again.given.offsets, dataset.given.offsets)
    np.testing.assert_array_equal(again.given.items, dataset.given.items)
    assert again.digest == dataclasses.replace(again, _stored=None).digest == dataset.digest
    assert _without_given(again).digest == _without_given(dataset).digest


def _without_given(dataset):
    nothing = Interactions.none(dataset.num_users, dataset.num_items)
    return dataclasses.replace(dataset, given=nothing)


def test_a_held_out_user_who_has_every_item_is_left_out(folders):
    rows = [(user, item) for user in range(9) for item in range(9 if user else 10)]
    for user in range(10, 20):
        rows += [(user, item) for item in range(10) if (user + item) % 3]
    path = write(folders[0] / "a.csv", "user,item\n" + joined(rows, ","))
    dataset = load(DataConfig(name="file", path=str(path), split="held_out_users", split_seed=3))
    assert dataset.filtered.full_users == 1
    assert 0 not in dataset.user_ids
    assert dataset.num_items == 10


# Validation of a split that is shipped.


@pytest.fixture
def shipped(folders):
    """Five users with a list of items in an order of their own, of which a few are validation."""
    rng = np.random.default_rng(0)
    lists = {user: rng.permutation(40)[: 9 + 3 * user].tolist() for user in range(5)}
    lines = dict.fromkeys(("train", "valid", "test"), "")
    for user, items in lists.items():
        parts = {"train": items[4:], "valid": items[:2], "test": items[2:4]}
        for name, mine in parts.items():
            lines[name] += " ".join(map(str, [user, *mine])) + "\n"
    for name, text in lines.items():
        write(folders[0] / "gowalla" / f"{name}.txt", text)
    return lists


@pytest.mark.parametrize("rule", ["", "random", "per_user", "per_user_last"])
def test_validation_of_a_shipped_split_is_drawn_by_a_rule(shipped, rule):
    config = DataConfig(name="gowalla", valid_split=rule, valid_fraction=0.3)
    dataset, seeded = load(config), load(dataclasses.replace(config, split_seed=1))
    assert (pairs(seeded.valid) != pairs(dataset.valid)) == (rule in ("random", "per_user"))
    total = 0
    for user, items in shipped.items():
        row = dataset.user_index(user)
        train, valid, test = (
            {int(dataset.item_ids[item]) for item in getattr(dataset, part).of(row)}
            for part in ("train", "valid", "test")
        )
        assert test == set(items[2:4])
        assert train | valid == set(items) - test
        assert not train & valid
        number = int(np.floor(round(0.3 * (len(items) - 2), 6) + 0.5))
        if rule == "":
            assert valid == set(items[:2])
        elif rule == "per_user":
            assert len(valid) == number
        elif rule == "per_user_last":
            assert valid == set(items[-number:])
        total += len(valid)
    if rule == "random":
        assert total == round(0.3 * sum(len(items) - 2 for items in shipped.values()))


def test_validation_that_is_not_shipped_can_be_each_users_last(folders):
    write(folders[0] / "mine" / "train.txt", "0 5 4 3 2 1\n1 1 2 3 4 5\n")
    write(folders[0] / "mine" / "test.txt", "0 6\n1 6\n")
    config = DataConfig(predefined="mine", valid_split="per_user_last", valid_fraction=0.4)
    assert pairs(load(config).valid) == {(0, 0), (0, 1), (1, 3), (1, 4)}


# What cannot be used.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"valid_split": "random"}, r"config\.data\.valid_split='random'.*draws validation and"),
        (
            {"name": "ml_100k", "core": 2, "split": "per_user", "valid_split": "per_user"},
            r"config\.data\.valid_split='per_user': config\.data\.split='per_user' draws",
        ),
        (
            {"name": "pinterest", "valid_split": "per_user_last"},
            r"valid_split='per_user_last': val",
        ),
        (
            {"name": "gowalla", "valid_split": "per_user", "valid_fraction": 0.01},
            r"config\.data\.valid_split='per_user': there are too few.*valid_fraction=0\.01",
        ),
        ({"name": "ml-100k"}, r"config\.data\.name='ml-100k'.*did you mean ml_100k"),
        ({"name": "zzz"}, r"config\.data\.name='zzz'.*use one of embedded, file, ml_100k"),
        ({"name": "zzz", "predefined": "mine"}, r"config\.data\.name='zzz'"),
        ({"name": "file", "path": "/no/such.csv"}, r"config\.data\.path='/no/such\.csv'"),
        ({"split": "fixed"}, r"config\.data\.split='fixed'.*'embedded' ships no split"),
        ({"name": "ml_100k", "split": "fixed"}, r"config\.data\.split='fixed'.*use random"),
        ({"min_rating": 4.0}, r"config\.data\.min_rating=4\.0"),
        ({"core": 5000}, r"config\.data\.core"),
    ],
)
def test_bad_fields_are_named(folders, table, fields, message):
    write_ncf(folders[0] / "pinterest")
    write_split(folders[0] / "gowalla", "txt")
    assert re.search(message, fault(lambda: load(DataConfig(**fields))))


def test_a_split_by_time_needs_timestamps(tmp_path):
    path = write(tmp_path / "a.txt", "0 1 2 3\n1 2 3 4\n")
    config = DataConfig(name="file", path=str(path), format="adjacency", split="global_time")
    with pytest.raises(InputError, match=r"config\.data\.split='global_time'.*timestamp_column"):
        load(config)


def test_a_user_of_a_split_who_has_every_item_is_left_out(folders):
    folder = write_split(folders[0] / "full")
    write(folder / "train.csv", "user,item\n7,1\n7,2\n7,5\n8,2\n")
    dataset = load(DataConfig(predefined="full"))
    assert dataset.user_ids.tolist() == [8, 9]
    assert dataset.item_ids.tolist() == [1, 2, 5]


def test_unknown_users_are_named(table):
    dataset = load(DataConfig(name="ml_100k", core=2))
    assert dataset.user_index("3") == dataset.user_index(3) == 2
    for unknown in (99, "x", "", "1.5", -1, 2**80):
        with pytest.raises(InputError, match="user ids look like 1, 2, 3") as caught:
            dataset.user_index(unknown)
        assert repr(unknown) in str(caught.value)


# The embedded data set.


def test_embedded(folders):
    dataset = load(DataConfig())
    assert dataset.name == "embedded"
    assert dataset.num_users == 1200
    assert dataset.num_items == 800
    assert (dataset.train.counts > 0).all()
    assert (dataset.test.counts > 0).mean() > 0.99
    assert all(dataset.item_titles)
    # It is generated faster than it would be read, so nothing is stored.
    assert not folders[1].exists()
