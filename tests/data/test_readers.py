import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlr_jax.data.readers import (
    Columns,
    blocks,
    read_adjacency,
    read_item_numbers,
    read_ncf,
    read_table,
    read_user_lists,
)
from hlr_jax.errors import InputError

ALL = Columns(rating="rating", timestamp="timestamp")
POSITIONS = Columns(0, 1, 2, 3)

integers = st.integers(0, 2**63 - 1)
# A letter in front: words, whatever follows.
words = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters=":\x1f"), max_size=8
).map(lambda text: "w" + text)
quoted_words = st.text(st.sampled_from('aé,"\n\t; '), max_size=6).map(lambda text: "w" + text + "w")
ratings = st.floats(allow_nan=False, allow_infinity=False, width=32)
timestamps = st.integers(-(2**62), 2**62)


def rows_of(user, item):
    return st.lists(st.tuples(user, item, ratings, timestamps), min_size=1, max_size=30)


tables = st.one_of(rows_of(integers, integers), rows_of(words, integers), rows_of(words, words))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a few lines, so that every test crosses their borders."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readers")


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def joined(rows, separator: str, end: str = "\n") -> str:
    return "".join(separator.join(str(value) for value in row) + end for row in rows)


def fault(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- round trips


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz"])
@settings(max_examples=30)
@given(rows=tables)
def test_tsv_round_trip(folder, name, ending, rows):
    header = "user\titem\trating\ttimestamp" + ending
    path = write(folder, name, header + joined(rows, "\t", ending))
    assert read_table(path, ALL).rows() == rows


@pytest.mark.parametrize("name", ["t.dat", "t.dat.gz"])
@settings(max_examples=30)
@given(rows=tables)
def test_dat_round_trip(folder, name, rows):
    path = write(folder, name, joined(rows, "::"))
    assert read_table(path, POSITIONS).rows() == rows


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
@settings(max_examples=30)
@given(rows=st.one_of(tables, rows_of(quoted_words, quoted_words)), extra=quoted_words)
def test_csv_round_trip_with_quotes(folder, name, rows, extra):
    plain = folder / "plain.csv"
    with open(plain, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a, title", "timestamp", "item", "user", "rating"])
        writer.writerows([extra, stamp, item, user, rating] for user, item, rating, stamp in rows)
    path = write(folder, name, plain.read_bytes())
    assert read_table(path, ALL).rows() == rows


@pytest.mark.parametrize("name", ["t.ndjson", "t.ndjson.gz", "t.jsonl"])
@settings(max_examples=30)
@given(rows=st.one_of(tables, rows_of(quoted_words, words)))
def test_ndjson_round_trip(folder, name, rows):
    names = ("user", "item", "rating", "timestamp")
    lines = [json.dumps(dict(zip(names, row, strict=True), more=[1, {}])) + "\n" for row in rows]
    assert read_table(write(folder, name, "".join(lines)), ALL).rows() == rows


@settings(max_examples=30)
@given(rows=st.one_of(tables, rows_of(quoted_words, words)))
def test_parquet_round_trip(folder, rows):
    path = folder / "t.parquet"
    frame = pl.DataFrame(rows, schema=["user", "item", "rating", "timestamp"], orient="row")
    frame.write_parquet(path)
    assert read_table(path, ALL).rows() == rows


@settings(max_examples=30)
@given(
    lists=st.lists(st.tuples(integers, st.lists(integers, max_size=5)), min_size=1, max_size=20),
    blank=st.sampled_from([" ", "\t", "  "]),
    last=st.sampled_from(["", "\n", " \n", "\r\n\n"]),
)
def test_list_round_trips(folder, lists, blank, last):
    pairs = [(user, item) for user, items in lists for item in items]
    adjacency = "\n".join(blank.join(map(str, [user, *items])) for user, items in lists)
    path = write(folder, "t.txt", adjacency + last)
    counted = "\n".join(blank.join(map(str, [len(items), *items])) for _, items in lists)
    counted_path = write(folder, "users.dat.gz", counted + last)
    if not pairs:
        assert "lists no items" in fault(lambda: read_adjacency(path))
        assert "lists no items" in fault(lambda: read_user_lists(counted_path))
        return
    frame = read_adjacency(path)
    assert frame.rows() == pairs
    assert frame.schema == {"user": pl.Int64, "item": pl.Int64}
    numbered = [(line, item) for line, (_, items) in enumerate(lists) for item in items]
    assert read_user_lists(counted_path).rows() == numbered


@settings(max_examples=30)
@given(
    pairs=st.lists(st.tuples(integers, integers, st.integers(1, 5), integers), min_size=1),
    width=st.integers(1, 4),
    fields=st.integers(2, 4),
)
def test_ncf_round_trip(folder, pairs, width, fields):
    rows = [row[:fields] for row in pairs]
    given_negatives = [[(5 * k + j) % 97 for j in range(width)] for k in range(len(rows))]
    lines = [
        "\t".join([f"({row[0]},{row[1]})", *map(str, negatives)]) + "\n"
        for row, negatives in zip(rows, given_negatives, strict=True)
    ]
    result = read_ncf(
        write(folder, "test.rating", joined(rows, "\t")),
        write(folder, "test.negative", "".join(lines)),
    )
    assert result.frame.rows() == rows
    assert result.users.tolist() == [row[0] for row in rows]
    assert result.items.tolist() == [row[1] for row in rows]
    assert result.negatives.tolist() == given_negatives
    assert result.negatives.dtype == np.int64


# --- details


def test_types_and_order_of_columns(tmp_path):
    path = write(tmp_path, "t.csv", "rating,item,user\n5,b,2\n3.5,a,1\n")
    frame = read_table(path, Columns(rating="rating"))
    assert frame.schema == {"user": pl.Int64, "item": pl.String, "rating": pl.Float64}
    assert frame.rows() == [(2, "b", 5.0), (1, "a", 3.5)]


def test_positions_may_be_digits_and_formats_explicit(tmp_path):
    path = write(tmp_path, "u.data", "1\t2\t3\n4\t5\t6\n")
    assert read_table(path, Columns("2", 0), "tsv").rows() == [(3, 1), (6, 4)]


@pytest.mark.parametrize("separator", ["|", ";", " ", "<->", "é", "::"])
def test_any_separator(tmp_path, separator):
    path = write(tmp_path, "t.txt", joined([("user", "item"), (1, "x:y"), (2, "z")], separator))
    frame = read_table(path, Columns(), "csv", separator=separator)
    assert frame.rows() == [(1, "x:y"), (2, "z")]


def test_zero_padded_ids_stay_words(tmp_path):
    path = write(tmp_path, "t.csv", "user,item\n007,7\n7,8\n08,9\n")
    assert read_table(path, Columns())["user"].to_list() == ["007", "7", "08"]


def test_quoted_header(tmp_path):
    path = write(tmp_path, "t.csv", '"the ""user"", a\nname",item\n1,2\n')
    assert read_table(path, Columns('the "user", a\nname')).rows() == [(1, 2)]


def test_byte_order_mark_and_blank_end(tmp_path):
    path = write(tmp_path, "t.csv", b"\xef\xbb\xbfuser,item\r\n1,2\r\n\r\n\r\n")
    assert read_table(path, Columns()).rows() == [(1, 2)]


def test_text_that_looks_compressed(tmp_path):
    path = write(tmp_path, "t.csv", "x^,1\nx^,2\n")
    assert read_table(path, Columns(0, 1)).rows() == [("x^", 1), ("x^", 2)]


def test_timestamps_in_scientific_notation(tmp_path):
    path = write(tmp_path, "t.csv", "1,2,9.5e8\n1,3,12.0\n1,4,9007199254740993\n")
    stamps = read_table(path, Columns(0, 1, timestamp=2))["timestamp"]
    assert stamps.to_list() == [950_000_000, 12, 9_007_199_254_740_993]


def test_large_blocks_read_the_same(tmp_path, monkeypatch):
    rows = [(k, f"i{k}", k / 2, k) for k in range(500)]
    path = write(tmp_path, "t.dat", joined(rows, "::"))
    small = read_table(path, POSITIONS)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2**20)
    assert read_table(path, POSITIONS).equals(small)
    assert small.rows() == rows


# --- faults

HEAD = "user,item,rating,timestamp\n"
GOOD = HEAD + "".join(f"{k},{k + 1},4.5,{k + 100}\n" for k in range(10))
FAULTY_CSV = {
    "empty file": (b"", ["no interactions"]),
    "blank file": (b"\n\n", ["no interactions"]),
    "header only": (HEAD, ["no interactions"]),
    "missing column": ("user,thing,rating,timestamp\n1,2,3,4\n", ["line 1", "'item'", "'thing'"]),
    "column twice": ("user,item,item,rating,timestamp\n1,2,2,3,4\n", ["line 1", "twice"]),
    "one column": ("user;item;rating;timestamp\n1;2;3;4\n", ["line 1", "separator"]),
    "word for rating": (GOOD + "1,2,good,4\n", ["line 12", "rating", "'good'"]),
    "nan rating": (GOOD + "1,2,nan,4\n", ["line 12", "rating", "'nan'"]),
    "infinite rating": (GOOD + "1,2,-inf,4\n", ["line 12", "rating", "'-inf'"]),
    "overflowing rating": (GOOD + "1,2,1e999,4\n", ["line 12", "rating", "'1e999'"]),
    "empty rating": (GOOD + "1,2,,4\n", ["line 12", "rating", "(empty)"]),
    "quoted empty rating": (GOOD + '1,2,"",4\n', ["line 12", "rating", "(empty)"]),
    "word for time": (GOOD + "1,2,3,2001-01-01\n", ["line 12", "timestamp", "'2001-01-01'"]),
    "half a second": (GOOD + "1,2,3,1.5\n", ["line 12", "timestamp", "'1.5'"]),
    "empty user": (GOOD + ",2,3,4\n" + "1,2,3,4\n", ["line 12", "user is empty"]),
    "quoted empty item": (GOOD + '1,"",3,4\n', ["line 12", "item is empty"]),
    "blank item": (GOOD + "1, ,3,4\n", ["line 12", "item is empty"]),
    "word among integers": (GOOD + "1,x7,3,4\n1,y,3,4\n", ["line 12", "item", "'x7'", "integer"]),
    "large and negative id": (GOOD + "1,-99999999999999999999,3,4\n", ["line 12", "negative"]),
    "negative id": (GOOD + "-3,2,3,4\n1,-1,3,4\n", ["line 12", "user", "-3", "negative"]),
    "large id": (GOOD + "1,9223372036854775808,3,4\n", ["line 12", "item 9223372036854775808"]),
    "short line": (GOOD + "1,2,3\n" + "1,2,3,4\n", ["line 12", "3 fields", "4"]),
    "long line": (GOOD + "1,2,3,4,5\n", ["line 12", "5 fields", "4"]),
    "short and long line": (GOOD + "1,2,3\n1,2,3,4,5\n", ["line 12", "3 fields"]),
    "long and short line": (GOOD + "1,2,3,4,5\n1,2,3\n", ["line 12", "5 fields"]),
    "blank line": (GOOD + "\n1,2,3,4\n", ["line 12", "blank"]),
    "not utf-8": (GOOD.encode() + b"caf\xe9,2,3,4\n", ["line 12", "0xe9", "UTF-8"]),
    "utf-16": (GOOD.encode("utf-16"), ["line 1", "UTF-8"]),
    "nul": (GOOD + "1\0,2,3,4\n", ["line 12", "NUL"]),
    "open quote": (GOOD + '1,"2,3,4\n1,2,3,4\n', ["line 12", "quote"]),
    "stray quote": (GOOD + '1,2"x",3,4\n', ["line 12", "quote"]),
    "stray quote in the header": ('us"er,item,rating,timestamp\n1,2,3,4\n', ["line 1", "quote"]),
    "carriage returns only": (HEAD.replace("\n", "\r") + "1,2,3,4\r", ["line 1", "timestamp"]),
    "blank line after the header": (HEAD + "\n1,2,3,4\n", ["line 2", "blank"]),
    "after quoted newline": (GOOD + '1,"a\nb",3,4\n1,2,bad,4\n', ["line 14", "rating", "'bad'"]),
}


@pytest.mark.parametrize("block_bytes", [40, 2**20])
@pytest.mark.parametrize("name", ["bad.csv", "bad.csv.gz"])
@pytest.mark.parametrize("case", FAULTY_CSV)
def test_faulty_csv_names_file_and_line(tmp_path, monkeypatch, case, name, block_bytes):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    content, expected = FAULTY_CSV[case]
    path = write(tmp_path, name, content)
    message = fault(lambda: read_table(path, ALL))
    for part in (str(path), *expected):
        assert part in message


FAULTY_NDJSON = {
    "empty": ("", ["no interactions"]),
    "not json": ('{"user":1,"item":2}\n{"user":1,\n', ["line 2", "JSON"]),
    "not an object": ('{"user":1,"item":2}\n[1,2]\n', ["line 2", "object"]),
    "two objects": ('{"user":1,"item":2}\n{"user":1,"item":2}{}\n', ["line 2", "JSON"]),
    "blank line": ('{"user":1,"item":2}\n\n{"user":1,"item":3}\n', ["line 2", "blank"]),
    "nan": ('{"user":1,"item":2}\n{"user":NaN,"item":2}\n', ["line 2", "NaN"]),
    "no such field": ('{"user":1,"thing":2}\n', ["line 1", "'item'", "'thing'"]),
    "field missing": ('{"user":1,"item":2}\n{"user":1}\n', ["line 2", "item is empty"]),
    "null": ('{"user":1,"item":2}\n{"user":null,"item":2}\n', ["line 2", "user is empty"]),
    "list": ('{"user":"a","item":2}\n{"user":[1],"item":2}\n', ["line 2", "user", "[1]"]),
    "object": ('{"user":"a","item":2}\n{"user":{},"item":2}\n', ["line 2", "user", "{}"]),
    "truth": ('{"user":"true","item":2}\n{"user":true,"item":2}\n', ["line 2", "user", "True"]),
    "negative": ('{"user":1,"item":2}\n{"user":-1,"item":2}\n', ["line 2", "negative"]),
    "not utf-8": (b'{"user":"caf\xe9","item":2}\n', ["line 1", "UTF-8"]),
}


@pytest.mark.parametrize("case", FAULTY_NDJSON)
def test_faulty_ndjson_names_file_and_line(tmp_path, case):
    content, expected = FAULTY_NDJSON[case]
    path = write(tmp_path, "bad.ndjson", content)
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
        ({"user": ["1", "2", "x"], "item": [1, 2, 3]}, ["row 3", "user", "'x'"]),
        ({"user": [1, -2], "item": [1, 2]}, ["row 2", "negative"]),
        ({"user": pl.Series([1, 2**63], dtype=pl.UInt64), "item": [1, 2]}, ["row 2", str(2**63)]),
        ({"user": [1.0], "item": [1]}, ["user", "Float64"]),
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
    path = write(tmp_path, "bad.parquet", b"PAR1 this is not Parquet PAR1")
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
    path = write(tmp_path, "t.csv", GOOD)
    message = fault(lambda: read_table(path, columns))
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("u.data", {}, "extension 'data'"),
        ("t.csv", {"format": "excel"}, "'excel'"),
        ("t.csv", {"format": "adjacency"}, "'adjacency'"),
        ("t.csv", {"separator": ""}, "separator ''"),
        ("t.csv", {"separator": '"'}, "separator '\"'"),
        ("t.ndjson", {"separator": ","}, "no separator"),
    ],
)
def test_faulty_format(tmp_path, name, options, expected):
    path = write(tmp_path, name, GOOD)
    message = fault(lambda: read_table(path, ALL, **options))
    assert str(path) in message
    assert expected in message


FAULTY_LISTS = {
    "empty": ("", ["lists no items"]),
    "blank line": ("2 5 6\n\n1 7\n", ["line 2", "blank"]),
    "word": ("2 5 6\n1 x7\n", ["line 2", "'x7'"]),
    "negative": ("2 5 6\n1 -7\n", ["line 2", "'-7'"]),
    "float": ("2 5 6\n1 7.5\n", ["line 2", "'7.5'"]),
    "padded": ("2 5 6\n1 07\n", ["line 2", "'07'"]),
    "large": ("2 5 6\n1 9223372036854775808\n", ["line 2", "'9223372036854775808'"]),
    "larger": ("2 5 6\n1 " + "9" * 5000 + "\n", ["line 2", "'9999"]),
    "form feed": ("2 5 6\n1 7\f\n", ["line 2", r"'7\x0c'"]),
    "commas": ("2 5 6\n1,7\n", ["line 2", "'1,7'"]),
    "not utf-8": (b"2 5 6\n1 \xe9\n", ["line 2", "UTF-8"]),
}


@pytest.mark.parametrize("read", [read_adjacency, read_user_lists])
@pytest.mark.parametrize("case", FAULTY_LISTS)
def test_faulty_lists_name_file_and_line(tmp_path, read, case):
    content, expected = FAULTY_LISTS[case]
    path = write(tmp_path, "bad.txt", content)
    message = fault(lambda: read(path))
    for part in (str(path), *expected):
        assert part in message


def test_wrong_count(tmp_path):
    path = write(tmp_path, "users.dat", "1 5\n0\n3 5 6\n")
    assert f"{path} line 3: announces 3 items and lists 2" in fault(lambda: read_user_lists(path))


def test_faults_of_features_do_not_speak_of_users(tmp_path):
    """Lists with counts may be of tags, and numbers may describe items."""
    path = write(tmp_path, "tags.dat", "0\n0\n")
    assert fault(lambda: read_user_lists(path)) == (
        f"{path}: lists no items; give a file where some line has one"
    )
    path = write(tmp_path, "tags.dat", "1 5\n\n2 5 6\n")
    assert fault(lambda: read_user_lists(path)) == (
        f"{path} line 2: is blank; a line without items is written 0"
    )
    path = write(tmp_path, "f.csv", "id,a\n10,x\n")
    assert fault(lambda: read_item_numbers(path)) == (
        f"{path} line 2: feature 1 (column a) 'x' is not a finite number; correct the line, or do "
        "without this column"
    )


RATING = "0\t25\t5\t97\n1\t133\t3\t98\n"
NEGATIVE = "(0,25)\t7\t8\n(1,133)\t9\t10\n"


@pytest.mark.parametrize(
    ("rating", "negative", "expected"),
    [
        ("", NEGATIVE, ["test.rating", "empty"]),
        (RATING, "", ["test.negative", "empty"]),
        ("0\n", NEGATIVE, ["test.rating line 1", "1 fields"]),
        ("a\t25\n", NEGATIVE, ["test.rating line 1", "integers"]),
        (RATING, "(0,25)\t7\t8\n(1,133)\t9\n", ["test.negative line 2", "1 negatives", "2"]),
        (RATING, "(0,25)\n(1,133)\n", ["test.negative line 1", "0 negatives"]),
        (RATING, "(0,25)\t7\t8\n(1,134)\t9\t10\n", ["test.negative line 2", "(1,133)"]),
        (RATING, NEGATIVE + "(2,3)\t1\t2\n", ["test.negative", "line 3", "2 lines"]),
        (RATING, "(0,25)\t7\t8\n", ["test.negative", "line 1", "2 lines"]),
        (RATING, "(0,25)\t7\t8\n1\t133\t9\t10\n", ["test.negative line 2", "(user,item)"]),
        (RATING, "(0,25)\t7\t8\n)1,133(\t9\t10\n", ["test.negative line 2", "(user,item)"]),
        (RATING, "(0,25)\t7\t8\n(1,133)\tx\t10\n", ["test.negative line 2", "'x'"]),
        (RATING, "(0,25)\t7\t8\n\n(1,133)\t9\t10\n", ["test.negative line 2"]),
        (RATING, "(0,25)7\t8\n(1,133)\t9\t10\n", ["test.negative line 1", "(user,item)"]),
        (RATING, "(0 1,25)\t8\n(1,133)\t9\t10\n", ["test.negative line 1", "(user,item)"]),
    ],
)
def test_faulty_ncf(tmp_path, rating, negative, expected):
    paths = write(tmp_path, "test.rating", rating), write(tmp_path, "test.negative", negative)
    message = fault(lambda: read_ncf(*paths))
    for part in expected:
        assert part in message


# --- real data


class TestRealData:
    @pytest.fixture(autouse=True)
    def large_blocks(self, small_blocks, monkeypatch):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", 2**20)

    @pytest.mark.parametrize(
        ("path", "columns", "kind", "sizes"),
        [
            ("ml-100k/u.data", POSITIONS, "tsv", (943, 1682, 100_000)),
            (
                "ml-latest-small/ratings.csv",
                Columns("userId", "movieId", "rating", "timestamp"),
                "",
                (610, 9724, 100_836),
            ),
            (
                "hetrec-lastfm-2k/user_artists.dat",
                Columns("userID", "artistID", "weight"),
                "tsv",
                (1892, 17_632, 92_834),
            ),
            ("amazon-hin/user_item.dat", POSITIONS, "tsv", (6170, 2753, 195_791)),
        ],
    )
    def test_tables(self, data_folder, path, columns, kind, sizes):
        assert sizes_of(read_table(data_folder / path, columns, kind)) == sizes

    @pytest.mark.parametrize(
        ("path", "sizes"),
        [
            ("ml-1m/sequences.time-order.txt", (6040, 3706, 1_000_209)),
            ("ncf-ml-1m/ml-1m.train.lists.txt", (6040, 3704, 994_169)),
            # Two of the catalogue's 40,981 items are in the other files only.
            ("gowalla/train.txt", (29_858, 40_979, 719_081)),
        ],
    )
    def test_adjacency(self, data_folder, path, sizes):
        assert sizes_of(read_adjacency(data_folder / path)) == sizes

    def test_user_lists(self, data_folder):
        frame = read_user_lists(data_folder / "citeulike-t" / "users.dat")
        # Of the 25,975 articles 391 are in nobody's library.
        assert sizes_of(frame) == (7947, 25_584, 134_860)

    def test_ncf(self, data_folder):
        folder = data_folder / "ncf-ml-1m"
        result = read_ncf(folder / "ml-1m.test.rating", folder / "ml-1m.test.negative")
        assert result.negatives.shape == (6040, 99)
        # A known quirk of these files.
        assert (result.negatives == result.items[:, None]).sum() == 156

    def test_latin_1_is_refused(self, data_folder):
        path = data_folder / "ml-1m" / "movies.dat"
        assert f"{path} line 73: byte 0xe9" in fault(lambda: read_table(path, Columns(0, 1)))


def sizes_of(frame: pl.DataFrame) -> tuple[int, int, int]:
    return frame["user"].n_unique(), frame["item"].n_unique(), frame.height
