"""Lists of integers, and the test files of Neural Collaborative Filtering."""

import numpy as np
import polars as pl
import pytest
from data_files import fault, joined, write
from hypothesis import given, settings
from hypothesis import strategies as st

from hlr_jax.data.readers import read_adjacency, read_item_numbers, read_ncf, read_user_lists

pytestmark = pytest.mark.usefixtures("small_blocks")

integers = st.integers(0, 2**63 - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lists")


@settings(max_examples=30)
@given(
    lists=st.lists(st.tuples(integers, st.lists(integers, max_size=5)), min_size=1, max_size=20),
    blank=st.sampled_from([" ", "\t", "  "]),
    last=st.sampled_from(["", "\n", " \n", "\r\n\n"]),
)
def test_list_round_trips(folder, lists, blank, last):
    pairs = [(user, item) for user, items in lists for item in items]
    adjacency = "\n".join(blank.join(map(str, [user, *items])) for user, items in lists)
    path = write(folder / "t.txt", adjacency + last)
    counted = "\n".join(blank.join(map(str, [len(items), *items])) for _, items in lists)
    counted_path = write(folder / "users.dat.gz", counted + last)
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
        write(folder / "test.rating", joined(rows, "\t")),
        write(folder / "test.negative", "".join(lines)),
    )
    assert result.frame.rows() == rows
    assert result.users.tolist() == [row[0] for row in rows]
    assert result.items.tolist() == [row[1] for row in rows]
    assert result.negatives.tolist() == given_negatives
    assert result.negatives.dtype == np.int64


# Faults.


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
    path = write(tmp_path / "bad.txt", content)
    message = fault(lambda: read(path))
    for part in (str(path), *expected):
        assert part in message


def test_wrong_count(tmp_path):
    path = write(tmp_path / "users.dat", "1 5\n0\n3 5 6\n")
    assert f"{path} line 3: announces 3 items and lists 2" in fault(lambda: read_user_lists(path))


def test_faults_of_features_do_not_speak_of_users(tmp_path):
    """Lists with counts may be of tags, and numbers may describe items."""
    path = write(tmp_path / "tags.dat", "0\n0\n")
    assert fault(lambda: read_user_lists(path)) == (
        f"{path}: lists no items; give a file where some line has one"
    )
    path = write(tmp_path / "tags.dat", "1 5\n\n2 5 6\n")
    assert fault(lambda: read_user_lists(path)) == (
        f"{path} line 2: is blank; a line without items is written 0"
    )
    path = write(tmp_path / "f.csv", "id,a\n10,x\n")
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
    paths = write(tmp_path / "test.rating", rating), write(tmp_path / "test.negative", negative)
    message = fault(lambda: read_ncf(*paths))
    for part in expected:
        assert part in message
