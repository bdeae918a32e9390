"""Tables are read as they were written, whatever the format."""

import csv
import json

import polars as pl
import pytest
from data_files import joined, write
from hypothesis import given, settings
from hypothesis import strategies as st

from hlr_jax.data.readers import Columns, Dialect, blocks, read_table

pytestmark = pytest.mark.usefixtures("small_blocks")

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
    return st.lists(st.tuples(user, item, ratings, timestamps), min_size=1, max_size=15)


tables = st.one_of(rows_of(integers, integers), rows_of(words, integers), rows_of(words, words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readers")


def names(*values):
    return st.sampled_from(values)


@settings(max_examples=40)
@given(rows=tables, name=names("t.tsv", "t.tsv.gz"), ending=st.sampled_from(["\n", "\r\n"]))
def test_tsv_round_trip(folder, rows, name, ending):
    header = "user\titem\trating\ttimestamp" + ending
    path = write(folder / name, header + joined(rows, "\t", ending))
    assert read_table(path, ALL).rows() == rows


@settings(max_examples=30)
@given(rows=tables, name=names("t.dat", "t.dat.gz"))
def test_dat_round_trip(folder, rows, name):
    path = write(folder / name, joined(rows, "::"))
    assert read_table(path, POSITIONS).rows() == rows


@settings(max_examples=40)
@given(
    rows=st.one_of(tables, rows_of(quoted_words, quoted_words)),
    extra=quoted_words,
    name=names("t.csv", "t.csv.gz"),
)
def test_csv_round_trip_with_quotes(folder, rows, extra, name):
    plain = folder / "plain.csv"
    with open(plain, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a, title", "timestamp", "item", "user", "rating"])
        writer.writerows([extra, stamp, item, user, rating] for user, item, rating, stamp in rows)
    path = write(folder / name, plain.read_bytes())
    assert read_table(path, ALL).rows() == rows


@settings(max_examples=40)
@given(
    rows=st.one_of(tables, rows_of(quoted_words, words)),
    name=names("t.ndjson", "t.ndjson.gz", "t.jsonl"),
)
def test_ndjson_round_trip(folder, rows, name):
    keys = ("user", "item", "rating", "timestamp")
    lines = [json.dumps(dict(zip(keys, row, strict=True), more=[1, {}])) + "\n" for row in rows]
    assert read_table(write(folder / name, "".join(lines)), ALL).rows() == rows


@settings(max_examples=30)
@given(rows=st.one_of(tables, rows_of(quoted_words, words)))
def test_parquet_round_trip(folder, rows):
    path = folder / "t.parquet"
    frame = pl.DataFrame(rows, schema=["user", "item", "rating", "timestamp"], orient="row")
    frame.write_parquet(path)
    assert read_table(path, ALL).rows() == rows


# Details.


def test_types_and_order_of_columns(tmp_path):
    path = write(tmp_path / "t.csv", "rating,item,user\n5,b,2\n3.5,a,1\n")
    frame = read_table(path, Columns(rating="rating"))
    assert frame.schema == {"user": pl.Int64, "item": pl.String, "rating": pl.Float64}
    assert frame.rows() == [(2, "b", 5.0), (1, "a", 3.5)]


def test_positions_may_be_digits_and_formats_explicit(tmp_path):
    path = write(tmp_path / "u.data", "1\t2\t3\n4\t5\t6\n")
    assert read_table(path, Columns("2", 0), "tsv").rows() == [(3, 1), (6, 4)]


@pytest.mark.parametrize("separator", ["|", ";", " ", "<->", "é", "::"])
def test_any_separator(tmp_path, separator):
    path = write(tmp_path / "t.txt", joined([("user", "item"), (1, "x:y"), (2, "z")], separator))
    frame = read_table(path, Columns(), "csv", Dialect(separator))
    assert frame.rows() == [(1, "x:y"), (2, "z")]


def test_zero_padded_ids_stay_words(tmp_path):
    path = write(tmp_path / "t.csv", "user,item\n007,7\n7,8\n08,9\n")
    assert read_table(path, Columns())["user"].to_list() == ["007", "7", "08"]


def test_quoted_header(tmp_path):
    path = write(tmp_path / "t.csv", '"the ""user"", a\nname",item\n1,2\n')
    assert read_table(path, Columns('the "user", a\nname')).rows() == [(1, 2)]


def test_byte_order_mark_and_blank_end(tmp_path):
    path = write(tmp_path / "t.csv", b"\xef\xbb\xbfuser,item\r\n1,2\r\n\r\n\r\n")
    assert read_table(path, Columns()).rows() == [(1, 2)]


def test_text_that_looks_compressed(tmp_path):
    path = write(tmp_path / "t.csv", "x^,1\nx^,2\n")
    assert read_table(path, Columns(0, 1)).rows() == [("x^", 1), ("x^", 2)]


def test_timestamps_in_scientific_notation(tmp_path):
    path = write(tmp_path / "t.csv", "1,2,9.5e8\n1,3,12.0\n1,4,9007199254740993\n")
    stamps = read_table(path, Columns(0, 1, timestamp=2))["timestamp"]
    assert stamps.to_list() == [950_000_000, 12, 9_007_199_254_740_993]


def test_large_blocks_read_the_same(tmp_path, monkeypatch):
    rows = [(k, f"i{k}", k / 2, k) for k in range(150)]
    path = write(tmp_path / "t.dat", joined(rows, "::"))
    small = read_table(path, POSITIONS)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2**20)
    assert read_table(path, POSITIONS).equals(small)
    assert small.rows() == rows
