"""Data sets from configuration to rows: where they are found, what is kept, how they are split."""

import dataclasses
import gzip
import hashlib
import io
import json
import os
import pathlib
import zipfile

import numpy as np
import polars as pl
import pytest

from hlr_jax.config import DataConfig
from hlr_jax.data import datasets, fetch, locate, prepared, registry
from hlr_jax.data.datasets import load
from hlr_jax.data.registry import Titles
from hlr_jax.errors import InputError

REAL = os.environ.get("HLR_JAX_DATA")
needs_real_data = pytest.mark.skipif(not REAL, reason="HLR_JAX_DATA names no folder of data sets")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Empty data and cache folders, and no network."""

    def offline(url):
        raise OSError("no network in tests")

    monkeypatch.setattr(fetch, "open_https", offline)
    monkeypatch.setenv("HLR_JAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HLR_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data", tmp_path / "cache"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def ratings(num_users=12, num_items=15, separator="\t"):
    """Lines of user, item, rating, timestamp; about half of all pairs, rated 1 to 5."""
    lines = [
        separator.join(map(str, (user, 100 + item, 1 + (user + 2 * item) % 5, 10 * user + item)))
        for user in range(1, num_users + 1)
        for item in range(num_items)
        if (user * 7 + item * 3) % 2
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture
def table(folders):
    return write(folders[0] / "ml-100k" / "u.data", ratings())


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
    path = folders[0] / "ml-100k" / "u.data.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(ratings().encode()))
    assert load(DataConfig(name="ml_100k", core=2)).num_users == 12


def test_the_paper_s_filter_is_the_default(table):
    with pytest.raises(InputError, match=r"config\.data\.core"):
        load(DataConfig(name="ml_100k"))


def test_a_data_set_is_downloaded_into_the_cache(folders, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ml-100k/u.data", ratings())
    content = buffer.getvalue()
    checksum = "sha256:" + hashlib.sha256(content).hexdigest()
    source = registry.SOURCES["ml_100k"]
    download = dataclasses.replace(source.downloads[0], checksum=checksum)
    monkeypatch.setitem(
        registry.SOURCES, "ml_100k", dataclasses.replace(source, downloads=(download,))
    )
    asked = []

    def opener(url):
        asked.append(url)
        response = io.BytesIO(content)
        response.headers = {}
        return response

    monkeypatch.setattr(fetch, "open_https", opener)
    for _ in range(2):
        load(DataConfig(name="ml_100k", core=2), progress=False)
    assert asked == [download.url]
    assert (folders[1] / "ml-100k" / "u.data").is_file()
    assert not any(folders[0].iterdir())


@pytest.mark.parametrize("name", list(registry.SOURCES))
def test_without_network_the_error_says_what_to_put_where(folders, name):
    source = registry.SOURCES[name]
    with pytest.raises(InputError) as caught:
        load(DataConfig(name=name), progress=False)
    message = str(caught.value)
    assert "\n" not in message
    assert "config.data.name" in message
    assert str(folders[0] / source.folders[0]) in message
    assert "https://" in message or "http://" in message
    for file in (*source.files, *(download.file for download in source.downloads)):
        assert file in message
    assert f"HLR_JAX_DATA to a folder that has them in {source.folders[0]}" in message


def test_order_of_time_stands_in_for_ratings_that_nobody_asks_for(folders):
    lists = [f"{user} " + " ".join(str(1 + (user + k) % 9) for k in range(6)) for user in range(9)]
    write(folders[0] / "ml-1m" / "sequences.time-order.txt", "\n".join(lists) + "\n")
    with pytest.raises(InputError, match=r"min_rating=0 .*sequences\.time-order"):
        load(DataConfig(name="ml_1m"), progress=False)
    config = DataConfig(name="ml_1m", min_rating=0.0, core=2, split="leave_one_out")
    dataset = load(config)
    # The last of each list is tested, and the one before validates.
    for user in range(9):
        row = dataset.user_index(user)
        assert dataset.item_ids[dataset.test.of(row)].tolist() == [1 + (user + 5) % 9]
        assert dataset.item_ids[dataset.valid.of(row)].tolist() == [1 + (user + 4) % 9]


def write_ncf(folder, prefix="pinterest-20"):
    train = [f"{u}\t{(u + k) % 7}\t1\t{k}" for u in range(5) for k in (3, 0, 1)]
    write(folder / f"{prefix}.train.rating", "\n".join(train) + "\n")
    test = [f"{u}\t{(u + 4) % 7}\t1\t9" for u in range(4)]
    write(folder / f"{prefix}.test.rating", "\n".join(test) + "\n")
    given = [f"({u},{(u + 4) % 7})\t{(u + 5) % 7}\t99" for u in range(4)]
    write(folder / f"{prefix}.test.negative", "\n".join(given) + "\n")


def test_leave_one_out_with_given_negatives(folders):
    write_ncf(folders[0] / "pinterest")
    dataset = load(DataConfig(name="pinterest"))
    assert dataset.split_sizes == {"train": 10, "valid": 5, "test": 4}
    for user in range(5):
        # Validation is the newest training item.
        assert dataset.valid.of(user).tolist() == [(user + 3) % 7]
    assert dataset.given_negatives.dtype == np.int32
    expected = [[(user + 5) % 7, -1] for user in range(4)]  # item 99 is not in the catalogue
    assert dataset.given_negatives.tolist() == [*expected, [-1, -1]]


def test_a_shipped_split_can_be_drawn_anew_and_then_has_no_given_negatives(folders):
    write_ncf(folders[0] / "pinterest")
    dataset = load(DataConfig(name="pinterest", split="random", test_fraction=0.5))
    assert dataset.split_sizes["test"] == 10
    assert dataset.given_negatives is None


def test_a_shipped_split_is_not_filtered(folders):
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


def write_split(folder, extension="csv", valid=True):
    if extension == "txt":
        parts = {"train": "0 1 2 3\n1 2 3 4\n2 9 1 2\n", "valid": "0 4\n1 1\n2 3\n"}
        parts["test"] = "0 9\n1 9\n2 4\n"
    else:
        parts = {
            "train": "user,item\n7,1\n7,2\n8,2\n8,3\n",
            "valid": "user,item\n7,3\n",
            "test": "user,item\n8,1\n9,5\n",
        }
    for part, text in parts.items():
        if valid or part != "valid":
            write(folder / f"{part}.{extension}", text)
    return folder


@pytest.mark.parametrize("where", ["splits/mine", "mine"])
def test_predefined_by_name(folders, where):
    write_split(folders[0] / where)
    dataset = load(DataConfig(predefined="mine"))
    assert dataset.name == "mine"
    assert dataset.split_sizes == {"train": 4, "valid": 1, "test": 2}
    assert dataset.user_ids.tolist() == [7, 8, 9]
    # An item of the test file only is in the catalogue; a user without training is kept.
    assert dataset.item_ids.tolist() == [1, 2, 3, 5]
    assert dataset.train.counts.tolist() == [2, 2, 0]
    assert dataset.item_titles is None


def test_predefined_by_path_without_validation(tmp_path):
    folder = write_split(tmp_path / "elsewhere", "txt", valid=False)
    dataset = load(DataConfig(predefined=str(folder), valid_fraction=0.25))
    assert dataset.split_sizes == {"train": 7, "valid": 2, "test": 3}


def test_predefined_takes_titles_of_the_data_set_named(folders):
    write_split(folders[0] / "splits" / "mine")
    write(folders[0] / "ml-1m" / "movies.dat", "1::One (1995)::Drama\n5::Five::Comedy\n")
    dataset = load(DataConfig(name="ml_1m", predefined="mine"))
    assert dataset.item_titles.tolist() == ["One (1995)", "", "", "Five"]
    # Titles alone are never worth a download.
    assert load(DataConfig(name="ml_20m", predefined="mine")).item_titles is None


def test_predefined_not_found_lists_those_that_are(folders):
    write_split(folders[0] / "splits" / "beta")
    write_split(folders[0] / "splits" / "alpha")
    (folders[0] / "splits" / "empty").mkdir()
    with pytest.raises(InputError, match=r"config\.data\.predefined='gamma'.*: alpha, beta$"):
        load(DataConfig(predefined="gamma"))
    (folders[0] / "splits").rename(folders[0] / "moved")
    with pytest.raises(InputError, match="none there"):
        locate.find_predefined("x")


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


@pytest.mark.parametrize("split", ["per_user", "leave_one_out", "global_time", "per_user_time"])
def test_every_split(table, split):
    config = DataConfig(name="ml_100k", min_rating=0.0, core=0, split=split, valid_fraction=0.2)
    dataset = load(config)
    assert all(size > 0 for size in dataset.split_sizes.values())


# What cannot be used.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
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
def test_bad_fields_are_named(fields, message):
    with pytest.raises(InputError, match=message) as caught:
        load(DataConfig(**fields))
    assert "\n" not in str(caught.value)


def test_a_split_by_time_needs_timestamps(tmp_path):
    path = write(tmp_path / "a.txt", "0 1 2 3\n1 2 3 4\n")
    config = DataConfig(name="file", path=str(path), format="adjacency", split="global_time")
    with pytest.raises(InputError, match=r"config\.data\.split='global_time'.*timestamp_column"):
        load(config)


def test_a_user_who_touched_everything(folders):
    folder = write_split(folders[0] / "full")
    write(folder / "train.csv", "user,item\n7,1\n7,2\n7,5\n8,2\n")
    with pytest.raises(InputError, match="user 7 has touched all 4 items"):
        load(DataConfig(predefined="full"))


def test_unknown_users_are_named(table):
    dataset = load(DataConfig(name="ml_100k", core=2))
    assert dataset.user_index("3") == dataset.user_index(3) == 2
    for unknown in (99, "x", "", "1.5", -1, 2**80):
        with pytest.raises(InputError, match="user ids look like 1, 2, 3") as caught:
            dataset.user_index(unknown)
        assert repr(unknown) in str(caught.value)


# Prepared data.


def test_the_second_load_does_not_read_the_source(table, monkeypatch):
    config = DataConfig(name="ml_100k", core=2)
    first = load(config)
    monkeypatch.setattr(datasets.origins, "read", _must_not_be_called)
    second = load(config)
    for part in ("train", "valid", "test"):
        mine, yours = getattr(first, part), getattr(second, part)
        np.testing.assert_array_equal(mine.offsets, yours.offsets)
        np.testing.assert_array_equal(mine.items, yours.items)
        assert mine.num_items == yours.num_items
    np.testing.assert_array_equal(first.user_ids, second.user_ids)
    np.testing.assert_array_equal(first.popularity, second.popularity)
    assert first.digest == second.digest == dataclasses.replace(second, _prepared=None).digest
    # Stored values are those of the stored splits alone.
    other = dataclasses.replace(second, train=second.valid)
    assert other.digest != second.digest
    np.testing.assert_array_equal(other.popularity, second.valid.popularity)


def _must_not_be_called(*_):
    raise AssertionError("the source was read")


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(path.read_bytes()[:200] + b"!!" + path.read_bytes()[202:]),
        lambda path: path.unlink(),
        lambda path: np.save(path, np.arange(3)),
        lambda path: np.save(path, np.array([{}], object), allow_pickle=True),
        lambda path: (path.parent / "checksums.json").write_text("{}"),
        lambda path: (path.parent / "checksums.json").write_text("[1"),
    ],
    ids=[
        "empty",
        "cut",
        "flipped",
        "incomplete",
        "another",
        "pickled",
        "no checksums",
        "damaged checksums",
    ],
)
def test_damaged_prepared_data_is_made_again(folders, table, harm):
    config = DataConfig(name="ml_100k", core=2)
    whole = load(config)
    items = np.array(whole.train.items)
    del whole  # whose arrays are the files
    (kept,) = (folders[1] / "prepared").iterdir()
    harm(kept / "train_items.npy")
    np.testing.assert_array_equal(load(config).train.items, items)
    assert datasets._from_arrays("x", prepared.restore(kept)) is not None


def test_large_prepared_data_is_mapped_and_not_read(folders, table, monkeypatch):
    config = DataConfig(name="ml_100k", core=2)
    first = load(config)
    monkeypatch.setattr(prepared, "MOST_CHECKED", 10)
    monkeypatch.setattr(prepared, "_checksum", _must_not_be_called)
    again = load(config)
    assert isinstance(again.train.items, np.memmap)
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.popularity, first.train.popularity)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: path.unlink(),
        lambda path: np.save(path, np.arange(3)),
    ],
    ids=["empty", "cut", "incomplete", "another"],
)
def test_damage_to_the_length_of_large_prepared_data_is_noticed(folders, table, harm, monkeypatch):
    monkeypatch.setattr(prepared, "MOST_CHECKED", 10)
    config = DataConfig(name="ml_100k", core=2)
    items = np.array(load(config).train.items)
    (kept,) = (folders[1] / "prepared").iterdir()
    harm(kept / "train_items.npy")
    assert datasets._from_arrays("x", prepared.restore(kept)) is None
    np.testing.assert_array_equal(load(config).train.items, items)
    assert datasets._from_arrays("x", prepared.restore(kept)) is not None


@pytest.mark.parametrize("name", ["user_ids", "item_ids", "test_offsets", "popularity", "digest"])
def test_prepared_data_without_an_array_is_made_again(folders, table, name):
    config = DataConfig(name="ml_100k", core=2)
    digest = load(config).digest
    (kept,) = (folders[1] / "prepared").iterdir()
    for sizes in ("listed", "not listed"):
        (kept / f"{name}.npy").unlink()
        if sizes == "not listed":
            checksums = json.loads((kept / "checksums.json").read_text())
            del checksums[name]
            (kept / "checksums.json").write_text(json.dumps(checksums))
        again = load(config)
        assert again.digest == digest
        assert (kept / f"{name}.npy").exists()


def test_the_recipe_lies_beside_it_and_nothing_else(folders, table):
    load(DataConfig(name="ml_100k", core=2))
    (kept,) = (folders[1] / "prepared").iterdir()
    assert {path.suffix for path in kept.iterdir()} == {".json", ".npy"}
    recipe = kept / "recipe.json"
    assert json.loads(recipe.read_text())["config"]["core"] == 2


def test_every_field_changes_the_key(folders, table):
    write_split(folders[0] / "mine")
    write(table.parent / "u.item", "100|A|x|x|x|0|1\n")
    base = DataConfig(name="ml_100k", core=2, min_rating=1.0)
    other = {
        "min_rating": 2.0,
        "core": 3,
        "item_core": 1,
        "features": "own",
        "split": "per_user",
        "valid_fraction": 0.1,
        "test_fraction": 0.3,
        "split_seed": 1,
        "predefined": "mine",
    }
    keys = {_key(base)} | {_key(dataclasses.replace(base, **{f: v})) for f, v in other.items()}
    path = str(write(table.parent / "own.tsv", "a\tb\tc\td\tuser\titem\n"))
    own = DataConfig(name="file", path=path)
    changed = {
        "format": "tsv",
        "user_column": "a",
        "item_column": "b",
        "rating_column": "c",
        "timestamp_column": "d",
    }
    keys |= {_key(own)} | {_key(dataclasses.replace(own, **{f: v})) for f, v in changed.items()}
    assert len(keys) == len(other) + len(changed) + 2
    # What `join_valid` joins is prepared as two.
    tried = set(other) | set(changed) | {"name", "path", "join_valid"}
    assert tried == {field.name for field in dataclasses.fields(DataConfig)}


def test_a_rule_given_is_the_same_as_the_data_sets_own(table):
    assert _key(DataConfig(name="ml_100k", min_rating=4.0, core=10, split="random")) == _key(
        DataConfig(name="ml_100k")
    )


def _key(config):
    origin = datasets.origins.find(config, progress=False)
    return prepared.folder_name("x", datasets._recipe(config, origin))


def test_a_changed_source_is_read_again(table):
    config = DataConfig(name="ml_100k", core=2, min_rating=0.0)
    before = load(config)
    write(table, ratings(num_users=13))
    assert load(config).num_users == before.num_users + 1
    titled = write(table.parent / "u.item", "101|Alpha|x\n")
    assert "Alpha" in load(config).item_titles
    write(titled, "101|Alphabet|x\n")
    assert "Alphabet" in load(config).item_titles


def test_a_changed_registry_entry_is_read_again(table, monkeypatch):
    config = DataConfig(name="ml_100k", core=2)
    before = _key(config)
    changed = dataclasses.replace(registry.SOURCES["ml_100k"], format="csv")
    monkeypatch.setitem(registry.SOURCES, "ml_100k", changed)
    assert _key(config) != before


def test_a_cache_that_cannot_be_written_is_done_without(folders, table, caplog):
    write(folders[1], "a file in the way")
    assert load(DataConfig(name="ml_100k", core=2)).num_users == 12
    assert "is not kept" in caplog.text


def test_file_names_are_safe():
    name = prepared.folder_name("../a b", {"x": 1})
    assert "/" not in name
    assert "." not in name
    assert prepared.folder_name("a", {"x": 1}) != prepared.folder_name("a", {"x": 2})


# Where things are.


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("HLR_JAX_DATA")
    assert locate.data_folder() == locate.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HLR_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert locate.cache_folder() == tmp_path / "hlr_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate.cache_folder() == tmp_path / ".cache" / "hlr_jax"


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (Titles("t", ",", header=True), 'id,title\n1,"A, the"\n2\n', {"1": "A, the"}),
        (Titles("t", "::"), "1::A  b\n", {"1": "A b"}),
        (Titles("t", "\t", header=True), 'i\tn\n1\t"Weird\n', {"1": '"Weird'}),
        (Titles("t", "json", "k", "n"), '{"k": "x", "n": "Y"}\n{"k": "z"}\n', {"x": "Y"}),
    ],
)
def test_titles(tmp_path, form, text, expected):
    assert locate.read_titles(write(tmp_path / "t", text), form) == expected


def test_titles_that_cannot_be_read(tmp_path):
    path = write(tmp_path / "t", "{broken\n")
    with pytest.raises(InputError, match="item titles cannot be read"):
        locate.read_titles(path, Titles("t", "json", "k", "n"))


# The embedded data set.


def test_embedded(folders):
    dataset = load(DataConfig())
    assert dataset.name == "embedded"
    assert dataset.num_users == 1200
    assert dataset.num_items == 800
    assert (dataset.train.counts > 0).all()
    assert (dataset.test.counts > 0).mean() > 0.99
    assert all(dataset.item_titles)
    # It is made faster than it is read, so nothing is kept.
    assert not folders[1].exists()


# Real data; the counts are those its publishers and papers give.


@pytest.fixture
def real(monkeypatch):
    monkeypatch.setenv("HLR_JAX_DATA", str(REAL))
    return pathlib.Path(str(REAL))


@needs_real_data
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
def test_real_counts(real, fields, folder, shape, sizes):
    if not (real / folder).is_dir():
        pytest.skip(f"{folder} is not in HLR_JAX_DATA")
    dataset = load(DataConfig(**fields))
    assert (dataset.num_users, dataset.num_items) == shape
    assert tuple(dataset.split_sizes.values()) == sizes


@needs_real_data
def test_real_filter_finds_the_pairs_of_the_published_split(real):
    if not (real / "splits" / "ml-100k-hlr").is_dir() or not (real / "ml-100k").is_dir():
        pytest.skip("ml-100k is not in HLR_JAX_DATA")
    ours = load(DataConfig(name="ml_100k"))
    theirs = load(DataConfig(name="ml_100k", predefined="ml-100k-hlr"))
    np.testing.assert_array_equal(ours.user_ids, theirs.user_ids)
    np.testing.assert_array_equal(ours.item_ids, theirs.item_ids)
    every = [d.train.union(d.valid).union(d.test).items for d in (ours, theirs)]
    np.testing.assert_array_equal(*every)
    assert ours.item_titles[ours.item_ids == 1].tolist() == ["Toy Story (1995)"]


@needs_real_data
def test_real_given_negatives(real):
    if not (real / "ncf-ml-1m").is_dir():
        pytest.skip("ncf-ml-1m is not in HLR_JAX_DATA")
    dataset = load(DataConfig(name="ncf_ml_1m"))
    assert dataset.given_negatives.shape == (6040, 99)
    assert dataset.given_negatives.min() >= 0
    # A known quirk of the published file, which rankers have to expect.
    assert (dataset.given_negatives == dataset.test.items[:, None]).sum() == 156
