"""Errors in tables name the file, the line and what is wrong."""

import gzip

import polars as pl
import pytest
from data_files import fault, write

from hlr_jax.data.readers import (
    Columns,
    Dialect,
    blocks,
    read_adjacency,
    read_table,
    read_user_lists,
)

pytestmark = pytest.mark.usefixtures("small_blocks")

ALL = Columns(rating="rating", timestamp="timestamp")

HEAD = "user,item,rating,timestamp\n"
GOOD = HEAD + "".join(f"{k},{k + 1},4.5,{k + 100}\n" for k in range(10))
FAULTY_CSV = {
    "one column": ("user/item/rating/timestamp\n1/2/3/4\n", ["line 1", "separator"]),
    "empty file": (b"", ["no interactions"]),
    "blank file": (b"\n\n", ["no interactions"]),
    "header only": (HEAD, ["no interactions"]),
    "missing column": ("user,thing,rating,timestamp\n1,2,3,4\n", ["line 1", "'item'", "'thing'"]),
    "column twice": ("user,item,item,rating,timestamp\n1,2,2,3,4\n", ["line 1", "twice"]),
    "word for rating": (GOOD + "1,2,good,4\n", ["line 12", "rating", "'good'"]),
    "nan rating": (GOOD + "1,2,nan,4\n", ["line 12", "rating", "'nan'"]),
    "infinite rating": (GOOD + "1,2,-inf,4\n", ["line 12", "rating", "'-inf'"]),
    "overflowing rating": (GOOD + "1,2,1e999,4\n", ["line 12", "rating", "'1e999'"]),
    "empty rating": (GOOD + "1,2,,4\n", ["line 12", "rating", "(empty)"]),
    "quoted empty rating": (GOOD + '1,2,"",4\n', ["line 12", "rating", "(empty)"]),
    "word for time": (GOOD + "1,2,3,2001-01-01\n", ["line 12", "timestamp", "'2001-01-01'"]),
    "empty user": (GOOD + ",2,3,4\n" + "1,2,3,4\n", ["line 12", "user is empty"]),
    "quoted empty item": (GOOD + '1,"",3,4\n', ["line 12", "item is empty"]),
    "blank item": (GOOD + "1, ,3,4\n", ["line 12", "item is empty"]),
    "short line": (GOOD + "1,2,3\n" + "1,2,3,4\n", ["line 12", "3 fields", "4"]),
    "long line": (GOOD + "1,2,3,4,5\n", ["line 12", "5 fields", "4"]),
    "short and long line": (GOOD + "1,2,3\n1,2,3,4,5\n", ["line 12", "3 fields"]),
    "long and short line": (GOOD + "1,2,3,4,5\n1,2,3\n", ["line 12", "5 fields"]),
    "not utf-8": (GOOD.encode() + b"caf\xe9,2,3,4\n", ["line 12", "0xe9", "UTF-8"]),
    "utf-16": (GOOD.encode("utf-16"), ["line 1", "UTF-8"]),
    "nul": (GOOD + "1\0,2,3,4\n", ["line 12", "NUL"]),
    "open quote": (GOOD + '1,"2,3,4\n1,2,3,4\n', ["line 12", "quote"]),
    "stray quote": (GOOD + '1,2"x",3,4\n', ["line 12", "quote"]),
    "stray quote in the header": ('us"er,item,rating,timestamp\n1,2,3,4\n', ["line 1", "quote"]),
    "after quoted newline": (GOOD + '1,"a\nb",3,4\n1,2,bad,4\n', ["line 14", "rating", "'bad'"]),
}


@pytest.mark.parametrize("case", FAULTY_CSV)
def test_faulty_csv_names_file_and_line(tmp_path, monkeypatch, case):
    """The same compressed or not, and in small or large blocks."""
    content, expected = FAULTY_CSV[case]
    for name in ("bad.csv", "bad.csv.gz"):
        path = write(tmp_path / name, content)
        for block_bytes in (40, 2**20):
            monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
            message = fault(lambda path=path: read_table(path, ALL))
            for part in (str(path), *expected):
                assert part in message


FAULTY_NDJSON = {
    "empty": ("", ["no interactions"]),
    "not json": ('{"user":1,"item":2}\n{"user":1,\n', ["line 2", "JSON"]),
    "not an object": ('{"user":1,"item":2}\n[1,2]\n', ["line 2", "object"]),
    "two objects": ('{"user":1,"item":2}\n{"user":1,"item":2}{}\n', ["line 2", "JSON"]),
    "nan": ('{"user":1,"item":2}\n{"user":NaN,"item":2}\n', ["line 2", "NaN"]),
    "no such field": ('{"user":1,"thing":2}\n', ["line 1", "'item'", "'thing'"]),
    "field missing": ('{"user":1,"item":2}\n{"user":1}\n', ["line 2", "item is empty"]),
    "null": ('{"user":1,"item":2}\n{"user":null,"item":2}\n', ["line 2", "user is empty"]),
    "list": ('{"user":"a","item":2}\n{"user":[1],"item":2}\n', ["line 2", "user", "[1]"]),
    "object": ('{"user":"a","item":2}\n{"user":{},"item":2}\n', ["line 2", "user", "{}"]),
    "truth": ('{"user":"true","item":2}\n{"user":true,"item":2}\n', ["line 2", "user", "True"]),
    "not utf-8": (b'{"user":"caf\xe9","item":2}\n', ["line 1", "UTF-8"]),
}


@pytest.mark.parametrize("case", FAULTY_NDJSON)
def test_faulty_ndjson_names_file_and_line(tmp_path, case):
    content, expected = FAULTY_NDJSON[case]
    path = write(tmp_path / "bad.ndjson", content)
    message = fault(lambda: read_table(path, Columns()))
    for part in (str(path), *expected):
        assert part in message


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ({"user": [1], "thing": [1]}, ["'item'", "thing"]),
        ({"user": [1, None], "item": [1, 2]}, ["row 2", "user is empty"]),
        ({"user": ["a", None], "item": [1, 2]}, ["row 2", "user is empty"]),
        ({"user": ["a", ""], "item": [1, 2]}, ["row 2", "user is empty"]),
        ({"user": [1.5], "item": [1]}, ["user", "Float64"]),
        ({"user": [1.0, None], "item": [1, 2]}, ["row 2", "user is empty"]),
        ({"user": [True], "item": [1]}, ["user", "Boolean"]),
        ({"user": [], "item": []}, ["user"]),
        ({"user": pl.Series([], dtype=pl.Int64), "item": []}, ["item"]),
    ],
)
def test_faulty_parquet_names_file_and_row(tmp_path, frame, expected):
    path = tmp_path / "bad.parquet"
    pl.DataFrame(frame).write_parquet(path)
    message = fault(lambda: read_table(path, Columns()))
    for part in (str(path), *expected):
        assert part in message


@pytest.mark.parametrize(
    ("values", "expected"),
    [([4.0, float("nan")], "row 2: rating nan"), ([4.0, None], "row 2: rating (empty)")],
)
def test_faulty_parquet_rating(tmp_path, values, expected):
    path = tmp_path / "bad.parquet"
    pl.DataFrame({"user": [1, 2], "item": [3, 4], "rating": values}).write_parquet(path)
    assert f"{path} {expected}" in fault(lambda: read_table(path, Columns(rating="rating")))


def test_parquet_of_other_types(tmp_path):
    path = tmp_path / "t.parquet"
    pl.DataFrame(
        {
            "user": pl.Series(["a", "b"], dtype=pl.Categorical),
            "item": pl.Series([1, 2], dtype=pl.UInt16),
            "rating": pl.Series([1, 2], dtype=pl.Int8),
            "timestamp": [1.0, 2e9],
        }
    ).write_parquet(path)
    assert read_table(path, ALL).rows() == [("a", 1, 1.0, 1), ("b", 2, 2.0, 2_000_000_000)]


def test_corrupt_parquet(tmp_path):
    path = write(tmp_path / "bad.parquet", b"PAR1 this is not Parquet PAR1")
    assert str(path) in fault(lambda: read_table(path, Columns()))


@pytest.mark.parametrize("damage", ["plain", "cut", "altered"])
def test_corrupt_gzip(tmp_path, damage):
    whole = gzip.compress(GOOD.encode())
    altered = whole[:30] + b"\xff\xff" + whole[32:]
    path = tmp_path / "bad.csv.gz"
    path.write_bytes({"plain": GOOD.encode(), "cut": whole[:-9], "altered": altered}[damage])
    message = fault(lambda: read_table(path, ALL))
    assert str(path) in message
    assert "cannot be read past line" in message


@pytest.mark.parametrize("read", [read_adjacency, read_user_lists, lambda p: read_table(p, ALL)])
def test_missing_file_and_folder(tmp_path, read):
    missing = tmp_path / "missing.csv"
    assert f"{missing}: no such file" in fault(lambda: read(missing))
    assert f"{tmp_path}: is a folder" in fault(lambda: read(tmp_path))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (Columns(0, 7), ["line 1", "item column 7", "4 columns", "0 to 3"]),
        (Columns(0, "item"), ["mix names and positions"]),
        (Columns(0, -1), ["position -1", "negative"]),
        (Columns(0, "0"), ["user and item are both '0'"]),
        (Columns(0, "00"), ["mix names and positions"]),
        (Columns("", 1), ["no user column"]),
        (Columns(0, 1), ["line 1", "'user'", "header"]),
    ],
)
def test_faulty_columns(tmp_path, columns, expected):
    path = write(tmp_path / "t.csv", GOOD)
    message = fault(lambda: read_table(path, columns))
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("u.data", {"columns": Columns("a", "b")}, "neither the extension '.data' nor"),
        ("t.csv", {"format": "excel"}, "'excel'"),
        ("t.csv", {"format": "adjacency"}, "'adjacency'"),
        ("t.csv", {"dialect": Dialect('"')}, "separator '\"'"),
        ("t.ndjson", {"dialect": Dialect(",")}, "no separator"),
    ],
)
def test_faulty_format(tmp_path, name, options, expected):
    path = write(tmp_path / name, GOOD)
    message = fault(lambda: read_table(path, **({"columns": ALL} | options)))
    assert str(path) in message
    assert expected in message
