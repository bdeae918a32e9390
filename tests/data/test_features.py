"""Features of items: those of public data sets, tables of one's own, and what is wrong in them."""

import dataclasses
import io
import json
from typing import ClassVar

import numpy as np
import pytest
from data_files import fault, write

from hlr_jax.config import DataConfig
from hlr_jax.data import features, fetch, load, locate, prepared, registry
from hlr_jax.data.arrays import from_arrays
from hlr_jax.data.registry import FeatureFile

pytestmark = pytest.mark.usefixtures("folders", "generated_once")

# Raw ids of the data set's items.
ITEMS = np.array([10, 11, 12, 20])
FLAGS = FeatureFile("u.item", "flags", "|", first_field=2, encoding="latin-1")
WORDS = FeatureFile("movies.dat", "words", "::", first_field=2, encoding="latin-1")
QUOTED = FeatureFile("movies.csv", "words", ",", first_field=2, header=True)
LISTS = FeatureFile("tag-item.dat", "lists", min_items=2)
ROOT = 0.5**0.5


@pytest.fixture
def data(folders):
    return folders[0]


# The forms of public data sets.


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        # Nobody has the third; item 99 is not in the data set, and 20 not in the file.
        (
            FLAGS,
            "12|Caf\u00e9|0|1|0\n10|A|1|1|0\n11|B|0|0|0\n99|C|0|0|1\n",
            [[ROOT, ROOT], [0, 0], [0, 1], [0, 0]],
        ),
        # In the order of the alphabet; the same word twice counts once.
        (
            WORDS,
            "99::X::War\n12::Caf\u00e9::Drama\r\n10::A::Comedy|Drama|Drama\n20::B::\n",
            [[ROOT, ROOT], [0, 0], [0, 1], [0, 0]],
        ),
        # Fields may be quoted.
        (
            QUOTED,
            'movieId,title,genres\r\n10,"A, the",War|Drama\r\n12,"B ""b""\nc",Drama\r\n',
            [[ROOT, ROOT], [0, 0], [1, 0], [0, 0]],
        ),
        # The second tag has one item of the data set only, the last one twice.
        (LISTS, "3 10 12 99\n2 11 99\n2 12 20\n2 11 11\n", [[1, 0], [0, 0], [ROOT, ROOT], [0, 1]]),
    ],
    ids=["flags", "words", "quoted", "lists"],
)
def test_each_form(tmp_path, form, text, expected):
    found = features.read(write(tmp_path / form.file, text, "latin-1"), form, ITEMS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_names_of_features(tmp_path):
    flags = dataclasses.replace(FLAGS, names=("War", "Drama"))
    path = write(tmp_path / "u.item", "12|A|0|1\n10|B|1|1\n11|C|0|0\n")
    assert features.labels(path, flags) == {"12": ["Drama"], "10": ["War", "Drama"]}
    path = write(tmp_path / "movies.dat", "7::A::Comedy|Drama\n8::B::\n")
    assert features.labels(path, WORDS) == {"7": ["Comedy", "Drama"]}
    path = write(tmp_path / "more", "12|A|0|0|1\n")
    assert "item '12' has flag 3 of 2 that have names" in fault(features.labels, path, flags)


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (FLAGS, "10|A|1|0\n11|B|0|2\n", "line 2: expected 4 fields, all after the first 2 of them"),
        (FLAGS, "10|A|1|0\n11|B|0\n", "line 2: expected 4 fields"),
        (FLAGS, "10|A|1|0\n11\n", "line 2: has 1 fields when split at '|', expected more than 2"),
        (WORDS, "10::A::Drama\n11|B|War\n", "line 2: has 1 fields when split at '::'"),
        (WORDS, "98::A::Drama\n99::B::War\n", "describes no item of the data set: its ids are"),
        (WORDS, "", "its ids are like nothing, the items' like '10', '11', '12'"),
        (LISTS, "2 10 11\n3 10 11\n", "line 2: announces 3 items and lists 2"),
        (LISTS, "2 10 x\n", "line 1: 'x' is not an id"),
        (LISTS, "1 10\n1 11\n", "no feature is one of at least 2 items of the data set"),
    ],
)
def test_malformed_files_are_named(tmp_path, form, text, expected):
    path = write(tmp_path / form.file, text, "latin-1")
    message = fault(features.read, path, form, ITEMS)
    assert message.startswith(str(path))
    assert expected in message


def test_a_file_that_cannot_be_read(tmp_path):
    assert "features cannot be read" in fault(features.read, tmp_path / "none", WORDS, ITEMS)
    path = tmp_path / "movies.dat"
    path.write_bytes(b"10::Caf\xe9::Drama\n")
    utf8 = dataclasses.replace(WORDS, encoding="utf-8")
    assert "features cannot be read" in fault(features.read, path, utf8, ITEMS)


# A table of one's own.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("f.csv", 'movie,"a, b",b\n12,0,-2e0\n10,3,4\n99,7,7\n11,0,0\n'),
        ("f.tsv", "movie\ta\tb\n10\t3\t4\n12\t0\t-2\n99\t7\t7\n11\t0\t0\n"),
        # Names may be numbers, or the same.
        ("f.csv", "id,0,0\n10,3e30,4e30\n12,0,-2e-30\n"),
    ],
)
def test_a_table_in_any_order(tmp_path, name, text):
    found = features.read(write(tmp_path / name, text), None, ITEMS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [0, -1], [0, 0]], rtol=1e-6)


def test_a_compressed_table_of_words(tmp_path):
    path = write(tmp_path / "f.csv.gz", "id,a\nx,2\nzz,1\n")
    found = features.read(path, None, np.array(["w", "x"]))
    np.testing.assert_array_equal(found, [[0], [1]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ": is empty; give a header"),
        ("id,a\n", ": has no line but the header"),
        ("id\n10\n", " line 1: only one column when split at ','"),
        ("10,1\n11,2\n", " line 1: is that of an item ('10', '1'); give a header above it"),
        ("9,1\n11,2\n", " line 1: is that of an item ('9', '1'); give a header above it"),
        ("id,a,b\n10,1,2\n11,x,2\n", " line 3: feature 1 (column a) 'x' is not a finite number"),
        ("id,a,b\n10,1,\n", " line 2: feature 2 (column b) (empty) is not a finite number"),
        ("id,a,b\n10,1,nan\n", " line 2: feature 2 (column b) 'nan' is not a finite number"),
        ("id,a,b\n10,1,2\n11,1\n", " line 3: has 2 fields where the first line has 3"),
        ("id,a\n10,1\n,2\n", " line 3: item (column id) is empty"),
        ("id,a\n10,1\n11,1\n10,2\n", ": item '10' has two lines; leave one"),
        (
            "id,a\nm10,1\nm11,1\n",
            ": describes no item of the data set: its ids are like 'm10', 'm11', the items' like "
            "'10', '11', '12'",
        ),
    ],
)
def test_a_bad_table_is_named(tmp_path, text, expected):
    path = write(tmp_path / "f.csv", text)
    assert fault(features.read, path, None, ITEMS).startswith(f"{path}{expected}")


@pytest.mark.parametrize("name", ["f.parquet", "f.txt", "f"])
def test_a_table_of_another_kind_is_refused(tmp_path, name):
    path = write(tmp_path / name, "id,a\n10,1\n")
    assert str(path) in fault(features.read, path, None, ITEMS)


# By configuration.


@pytest.fixture
def split(data):
    """A predefined split of items 1, 2, 3 and 5."""
    folder = data / "splits" / "mine"
    write(folder / "train.csv", "user,item\n7,1\n7,2\n8,2\n8,3\n")
    write(folder / "valid.csv", "user,item\n7,3\n")
    write(folder / "test.csv", "user,item\n8,1\n9,5\n")
    return folder


MOVIES = "1::One (1995)::Drama|War\n5::Five::Comedy\n3::Three::War\n"


def test_own_features_are_those_of_the_data_set_named(data, split):
    write(data / "ml-1m" / "movies.dat", MOVIES)
    config = DataConfig(name="ml_1m", predefined="mine", features="own")
    first, again = load(config), load(config)
    expected = [[0, ROOT, ROOT], [0, 0, 0], [0, 0, 1], [1, 0, 0]]
    for dataset in (first, again, again.joined()):
        np.testing.assert_allclose(dataset.features, expected, rtol=1e-6)
        assert dataset.num_features == 3
    assert isinstance(again.features, np.memmap)
    without = load(dataclasses.replace(config, features=""))
    assert without.features is None
    assert without.num_features == 0
    # What parameters depend on.
    assert first.digest == again.digest == dataclasses.replace(again, _stored=None).digest
    assert without.digest == dataclasses.replace(again, features=None).digest != first.digest
    assert dataclasses.replace(again, features=2 * again.features).digest != first.digest


def test_features_of_a_changed_file_are_read_again(data, split, tmp_path):
    path = write(tmp_path / "f.csv", "id,a\n1,1\n")
    config = DataConfig(predefined="mine", features=str(path))
    assert load(config).features.tolist() == [[1], [0], [0], [0]]
    write(path, "id,a,b\n1,1,0\n5,0,3\n")
    assert load(config).features.tolist() == [[1, 0], [0, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize("listed", [True, False])
def test_prepared_data_without_features_is_prepared_again(data, split, tmp_path, listed):
    config = DataConfig(predefined="mine", features=str(write(tmp_path / "f.csv", "i,a\n2,1\n")))
    load(config)
    (kept,) = (tmp_path / "cache" / "prepared").iterdir()
    (kept / "features.npy").unlink()
    if not listed:
        checksums = json.loads((kept / "checksums.json").read_text())
        del checksums["features"]
        (kept / "checksums.json").write_text(json.dumps(checksums))
    assert load(config).features.tolist() == [[0], [1], [0], [0]]
    assert (kept / "features.npy").exists()


def test_prepared_features_of_other_items_are_no_good(data, split, tmp_path):
    config = DataConfig(predefined="mine", features=str(write(tmp_path / "f.csv", "i,a\n2,1\n")))
    load(config)
    (kept,) = (tmp_path / "cache" / "prepared").iterdir()
    arrays = dict(prepared.restore(kept))
    assert from_arrays("x", arrays).features.shape == (4, 1)
    assert from_arrays("x", arrays | {"features": np.ones((3, 1))}) is None


def test_the_embedded_data_set_can_have_a_table_too(tmp_path):
    items = load(DataConfig()).item_ids.tolist()
    lines = ["id,a", *(f"{item},{item + 1}" for item in items)]
    path = write(tmp_path / "f.csv", "\n".join(lines) + "\n")
    assert (load(DataConfig(features=str(path))).features == 1).all()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"features": "own"}, "data set 'embedded' has no features of its own (ml_100k, ml_1m, "),
        ({"name": "gowalla", "features": "own"}, "data set 'gowalla' has no features of its own"),
        (
            {"name": "ml_1m", "features": "own"},
            "needs movies.dat of data set 'ml_1m', and it is not here; get it from",
        ),
        (
            {"name": "citeulike_t", "features": "own"},
            "needs tag-item.dat of data set 'citeulike_t', and downloading it did not work (no "
            "network in tests); get it from https://",
        ),
        ({"features": "no/such.csv"}, "there is no such file; give a path, or own"),
    ],
)
def test_features_that_are_not_there(data, split, fields, expected):
    predefined = "" if fields.get("name", "embedded") == "embedded" else "mine"
    write(data / "gowalla" / "unused", "")
    config = DataConfig(predefined=predefined, **fields)
    message = fault(load, config)
    assert message.startswith(f"config.data.features={fields['features']!r}: {expected}")


def test_features_are_fetched_where_they_are_wanted_and_missing(data, split, monkeypatch):
    """Into the cache, beside whatever is there, and once."""
    content, asked = b"3 10 11 12\n", []

    class Answer(io.BytesIO):
        headers: ClassVar = {}

    def answer(url):
        asked.append(url)
        return Answer(content)

    monkeypatch.setattr(fetch, "open_https", answer)
    monkeypatch.setattr(fetch, "verify", lambda path, checksum: None)
    other = write(data.parent / "cache" / "citeulike-t" / "tags.dat", "of another kind")
    spec = registry.specs()["citeulike_t"]
    assert load(DataConfig(name="citeulike_t", predefined="mine")).features is None
    assert not asked
    for _ in range(2):
        found = locate.find_features(spec, spec.features, progress=False)
        assert found == data.parent / "cache" / "citeulike-t" / "tag-item.dat"
        assert found.read_bytes() == content
    assert asked == [spec.features.download.url]
    assert other.read_text() == "of another kind"


def test_a_table_of_words_without_a_header_is_refused(tmp_path):
    path = write(tmp_path / "f.csv", "tt1,0.5\ntt2,0.25\n")
    message = fault(features.read, path, None, np.array(["tt1", "tt2"]))
    assert message.endswith(
        "f.csv line 1: is that of an item ('tt1', '0.5'); give a header above it"
    )
    # Names of columns may be numbers.
    path = write(tmp_path / "g.csv", "id,1980\ntt1,0.5\ntt2,0.25\n")
    assert features.read(path, None, np.array(["tt1", "tt2"])).tolist() == [[1], [1]]


# Real data.


@pytest.mark.parametrize(
    ("fields", "folder", "shape"),
    [
        # Without the genre "unknown", which none of these items has.
        ({"name": "ml_100k"}, "ml-100k", (822, 18)),
        ({"name": "ml_100k", "core": 0, "min_rating": 0.0}, "ml-100k", (1682, 19)),
        ({"name": "ml_100k", "predefined": "ml-100k-hlr"}, "ml-100k", (822, 18)),
        ({"name": "ml_1m", "min_rating": 0.0}, "ml-1m", (3260, 18)),
        ({"name": "citeulike_t"}, "citeulike-t", (6339, 4468)),
    ],
    ids=lambda value: ",".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_real_features(load_real, fields, folder, shape):
    dataset = load_real(folder, **fields, features="own")
    assert dataset.features.shape == shape
    np.testing.assert_allclose(np.linalg.norm(dataset.features, axis=1), 1, rtol=1e-5)
    of_several = (dataset.features > 0).sum(axis=0)
    assert of_several.min() >= (5 if fields["name"] == "citeulike_t" else 1)
    if fields["name"] == "citeulike_t":
        # The first tag's articles are 15135 and 2058: too few of the data set's.
        return
    # Toy Story: animation, children's, comedy; as GoldenEye: action, adventure, thriller.
    for movie in (1, 2):
        row = dataset.features[dataset.item_ids == movie]
        np.testing.assert_allclose(row[row > 0], 3**-0.5, rtol=1e-6)
        assert (row > 0).sum() == 3
