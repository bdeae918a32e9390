"""An id is a label: any text is one, and comes out as it went in."""

import logging

import polars as pl
import pytest
from data_files import fault, write

from hlr_jax.config import DataConfig
from hlr_jax.data import load
from hlr_jax.data.readers import Columns, read_table

pytestmark = pytest.mark.usefixtures("small_blocks", "folders")


def read(path, content, *arguments, **named):
    """Write a table and read it; returns its rows."""
    return read_table(write(path, content), *(arguments or (Columns(),)), **named).rows()


def column(path, name, values):
    """Read one column of ids; the other is 1, 2, 3, ..."""
    other = "item" if name == "user" else "user"
    lines = [f"{value},{number}" for number, value in enumerate(values, 1)]
    table = write(path, f"{name},{other}\n" + "\n".join(lines) + "\n")
    return read_table(table, Columns())[name]


# An id is a label.


@pytest.mark.parametrize(
    "ids",
    [
        ["0001048767", "1842124412", "0439023483", "B00006HAXW", "034545104X"],
        ["10001", "10002", "02134", "90210"],
        ["02134", "10001", "10002"],
        ["1", "-2", "3"],
        ["1", "9223372036854775808"],
        ["1", "99999999999999999999999"],
        ["1", "2", "3", "A7"],
        ["1.0", "2.5"],
        ["1.0", "x"],
        ["1.0", "01.0"],
        ["1e3", "2"],
        ["+1", "2"],
        ["nan", "NA", "null", "None"],
        ["Ünï", "日本", "a b"],
    ],
)
@pytest.mark.parametrize("name", ["user", "item"])
def test_labels_stay_as_they_are(tmp_path, ids, name):
    assert column(tmp_path / "t.csv", name, ids).to_list() == ids


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["1", "0", "9223372036854775807"], [1, 0, 2**63 - 1]),
        (["1.0", "2.0"], [1, 2]),
        (["1.0", "2", "0", "300000.0"], [1, 2, 0, 300_000]),
        (["1", "2", "3", "4", "5", "6", "7", "8.0"], [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_plain_integers(tmp_path, ids, expected):
    found = column(tmp_path / "t.csv", "user", ids)
    assert found.dtype == pl.Int64
    assert found.to_list() == expected


def test_ids_of_other_formats(tmp_path):
    lines = '{"user": "02134", "item": 1.0}\n{"user": 7, "item": 2.0}\n{"user": -1, "item": 3}\n'
    rows = read(tmp_path / "t.ndjson", lines)
    assert rows == [("02134", 1), ("7", 2), ("-1", 3)]
    pl.DataFrame({"user": [-1, 5], "item": [1.0, 2.0]}).write_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", Columns()).rows() == [("-1", 1), ("5", 2)]
    large = pl.DataFrame({"user": pl.Series([1, 2**63], dtype=pl.UInt64), "item": [1, 2]})
    large.write_parquet(tmp_path / "l.parquet")
    assert read_table(tmp_path / "l.parquet", Columns()).rows() == [("1", 1), (str(2**63), 2)]


@pytest.mark.parametrize(
    ("train", "test", "items"),
    [
        ("1,101\n1,102\n2,101\n", "2,A7\n", ["101", "102", "A7"]),
        ("1,A1\n1,A2\n2,A1\n", "2,7\n", ["7", "A1", "A2"]),
        ("1,1.0\n1,2.0\n2,1.0\n", "2,A7\n", ["1", "2", "A7"]),
        ("1,A1\n1,7\n2,A2\n", "2,7.0\n", ["7", "A1", "A2"]),
    ],
)
def test_words_in_one_file_of_a_split(tmp_path, train, test, items):
    for name, rows in (("train", train), ("test", test)):
        write(tmp_path / "split" / f"{name}.csv", "user,item\n" + rows)
    dataset = load(DataConfig(name="file", predefined=str(tmp_path / "split"), valid_fraction=0.4))
    assert dataset.item_ids.tolist() == items
    assert dataset.user_ids.tolist() == [1, 2]
    assert dataset.split_sizes["test"] == 1


def test_positions_on_a_header(tmp_path, caplog):
    """A header that is read as a row would be a user and an item."""
    path = write(tmp_path / "t.csv", "userId,movieId\n1,2\n3,4\n")
    message = fault(lambda: read_table(path, Columns("0", "1")))
    assert message == (
        f"{path} line 1: is a header ('userId' and 'movieId' above integers); name the columns "
        "instead of their positions"
    )
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        rows = read(tmp_path / "w.csv", "user,item\na,2\nb,4\n", Columns("0", "1"))
    assert rows == [("user", "item"), ("a", "2"), ("b", "4")]
    assert "line 1: 'item' stands above integers; if this is a header" in caplog.text
