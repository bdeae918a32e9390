"""Tables as programs write them: separators, quotes, encodings, headers, ends of lines, times."""

import datetime
import logging

import polars as pl
import pytest
from data_files import fault, write

from hlr_jax.config import DataConfig
from hlr_jax.data import Dataset, load
from hlr_jax.data.readers import Columns, Dialect, blocks, read_table

pytestmark = pytest.mark.usefixtures("small_blocks", "folders")


def read(path, content, *arguments, **named):
    """Write a table and read it; returns its rows."""
    return read_table(write(path, content), *(arguments or (Columns(),)), **named).rows()


# The shape of real tables.

BOOKS = '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n"276726";"0155061224";"5"\n'
BOOK_COLUMNS = Columns("User-ID", "ISBN", "Book-Rating")
BOOK_ROWS = [(276725, "034545104X", 0.0), (276726, "0155061224", 5.0)]


@pytest.mark.parametrize("separator", ["", ";"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_semicolons_and_quotes(tmp_path, separator, ending):
    content = BOOKS.replace("\n", ending)
    assert read(tmp_path / "t.csv", content, BOOK_COLUMNS, "", Dialect(separator)) == BOOK_ROWS


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("1;2;3\n4;5;6\n", Columns(0, 1)),
        ("1\t2\t3,5\n4\t5\t3,5\n", Columns(0, 1)),
        ("user|item\n1|2\n4|5\n", Columns()),
        ("user,item;x\n1,2\n4,5\n", Columns("user", "item;x")),
        ("user,item,note\n1,2,a;b\n4,5,c;d\n", Columns()),
    ],
)
def test_separators_are_found(tmp_path, content, columns):
    rows = read(tmp_path / "t.csv", content, columns)
    assert [row[0] for row in rows] == [1, 4]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("ending", ["\n", "\r"])
def test_encodings(tmp_path, encoding, ending):
    content = BOOKS.replace("034545104X", "caf\u00e9").replace("\n", ending).encode(encoding)
    rows = read(tmp_path / "t.csv", content, BOOK_COLUMNS, "", Dialect(encoding=encoding))
    assert [row[1] for row in rows] == ["caf\u00e9", "0155061224"]


def test_a_wrong_encoding(tmp_path):
    path = write(tmp_path / "t.csv", "user,item\n1,caf\u00e9\n", "latin-1")
    message = fault(lambda: read_table(path, Columns()))
    assert "line 2: byte 0xe9 is not UTF-8; set config.data.encoding, as latin-1" in message
    ascii_only = Dialect(encoding="ascii")
    assert "is not ascii" in fault(lambda: read_table(path, Columns(), "", ascii_only))


@pytest.mark.parametrize("header", ['"user"\t"item"\n', "user\titem\n"])
def test_quotes_in_tsv(tmp_path, header):
    assert read(tmp_path / "t.tsv", header + '"1"\t"2"\n"3"\t"a\tb"\n') == [(1, "2"), (3, "a\tb")]


def test_quotes_of_texts_in_tsv_stay(tmp_path):
    rows = read(tmp_path / "t.tsv", 'user\titem\n1\t7" vinyl\n2\t"live" at home\n')
    assert rows == [(1, '7" vinyl'), (2, '"live" at home')]


def test_typed_headers(tmp_path):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    path = write(tmp_path / "ml.inter", header + "196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    assert read_table(path, Columns()).rows() == [(196, 242), (186, 302)]
    columns = Columns("user_id", "item_id", "rating", "timestamp")
    assert read_table(path, columns).rows()[0] == (196, 242, 3.0, 881250949)
    columns = Columns("user_id:token", "item_id", "rating", "timestamp")
    assert "'user_id:token' is not in the header" in fault(lambda: read_table(path, columns))


def test_blanks_behind_separators(tmp_path):
    assert read(tmp_path / "t.csv", "user, item\n1, 2\n3,   x y\n") == [(1, "2"), (3, "x y")]
    assert read(tmp_path / "t.csv", "1, 2\n3, 4\n", Columns(0, 1)) == [(1, 2), (3, 4)]
    quoted = '"user"; "item"\n 1; " a; b"\n2; "c"\n'
    assert read(tmp_path / "t.csv", quoted) == [(1, " a; b"), (2, "c")]
    assert read(tmp_path / "t.tsv", "user\titem\n1\t a\n") == [(1, " a")]


def test_an_index_without_a_name(tmp_path):
    content = ",0,1\n0,5,6\n1,7,8\n"
    assert read(tmp_path / "t.csv", content, Columns("0", "1")) == [(5, 6), (7, 8)]
    named = ",user,item\n0,5,6\n1,7,8\n"
    assert read(tmp_path / "t.csv", named) == [(5, 6), (7, 8)]
    # Without such a column, digits are positions.
    assert read(tmp_path / "t.csv", "0,1\n5,6\n", Columns("0", "1")) == [(0, 1), (5, 6)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "user,item\nu1,1\n\nu2,2\n \n\n"),
        ("t.csv", "user,item\n\n\nu1,1\r\n\r\nu2,2\r\n"),
        ("t.tsv", "user\titem\n\nu1\t1\n\nu2\t2\n"),
        ("t.ndjson", '\n{"user": "u1", "item": 1}\n \n{"user": "u2", "item": 2}\n'),
    ],
)
def test_blank_lines_are_skipped_and_counted(tmp_path, caplog, name, content):
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path / name, content) == [("u1", 1), ("u2", 2)]
    assert f"{name}: 2 blank lines are skipped" in caplog.text or "\\r" in repr(content)


def test_lines_below_blank_ones_keep_their_numbers(tmp_path):
    path = write(tmp_path / "t.csv", "user,item,rating\n1,1,1\n\n\n2,2,x\n")
    assert "line 5: rating 'x'" in fault(lambda: read_table(path, Columns(rating="rating")))


def test_carriage_returns_alone(tmp_path):
    assert read(tmp_path / "t.csv", "user,item\ru1,1\ru2,2\r") == [("u1", 1), ("u2", 2)]


@pytest.mark.parametrize("name", ["u.data", "ratings.txt", "ratings", "ratings.txt.gz"])
@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("196\t242\t3\n186\t302\t3\n", Columns("0", "1")),
        ("196::242::3\n186::302::3\n", Columns("0", "1")),
        ("user;item\n196;242\n186;302\n", Columns()),
        ('{"user": 196, "item": 242}\n{"user": 186, "item": 302}\n', Columns()),
    ],
)
def test_names_that_tell_no_format(tmp_path, name, content, columns):
    assert read(tmp_path / name, content, columns) == [
        (196, 242, *()),
        (186, 302),
    ]


def test_movielens_as_it_is_called(data_folder, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2**16)  # It is larger than what is made up here.
    path = data_folder / "ml-100k" / "u.data"
    if not path.is_file():
        pytest.skip("ml-100k is not in HLR_JAX_DATA")
    config = DataConfig(name="file", path=str(path), user_column="0", item_column="1")
    assert sum(load(config, progress=False).split_sizes.values()) == 100_000


# Time.


@pytest.mark.parametrize(
    "stamps",
    [
        ["2010-10-19T23:55:27Z", "2010-10-19T23:55:28Z"],
        ["2010-10-19 23:55:27", "2010-10-19 23:55:28.5"],
        ["2010-10-19", "2010-10-20"],
        ["1260759144", "1260759144.5"],
        ["1260759144.25", "1260759144.5"],
        ["1260759144500", "1260759144501"],
    ],
)
def test_times_keep_their_order(tmp_path, stamps):
    lines = "".join(f"1,{row},{stamp}\n" for row, stamp in enumerate(reversed(stamps)))
    path = write(tmp_path / "t.csv", "user,item,when\n" + lines)
    found = read_table(path, Columns(timestamp="when"))["timestamp"]
    assert found[0] > found[1]


def test_fractions_keep_their_value(tmp_path):
    rows = read(tmp_path / "t.csv", "1,2,7\n1,3,1260759144.5\n", Columns(0, 1, timestamp=2))
    assert [row[2] for row in rows] == [7.0, 1260759144.5]


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_datetimes_of_parquet_and_frames(tmp_path, zone):
    start = datetime.datetime(2010, 10, 19, 23, 55, 27)
    times = pl.Series([start + datetime.timedelta(seconds=k) for k in (2, 0, 1)])
    times = times.dt.replace_time_zone(zone)
    frame = pl.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3], "time": times})
    frame.write_parquet(tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet", Columns(timestamp="time"))["timestamp"]
    assert found.arg_sort().to_list() == [1, 2, 0]
    more = pl.concat([frame, frame.with_columns(user=pl.col("user") + 1, item=pl.col("item") + 1)])
    dataset = Dataset.from_frame(more, timestamp="time", split="leave_one_out")
    assert dataset.item_ids[dataset.test.items].tolist() == [1, 2]


def test_ties_keep_the_order_of_the_file(tmp_path):
    lines = "".join(f"{user},{item},5\n" for item in (3, 1, 2) for user in (1, 2))
    path = write(tmp_path / "t.csv", "user,item,time\n" + lines + "3,9,1\n")
    config = DataConfig(name="file", path=str(path), timestamp_column="time", split="leave_one_out")
    dataset = load(config)
    assert dataset.item_ids[dataset.test.items].tolist() == [2, 2]
