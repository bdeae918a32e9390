"""Readers find the numbers of users, items and interactions that real data sets are known for."""

import polars as pl
import pytest
from data_files import fault

from hlr_jax.data.readers import Columns, read_adjacency, read_ncf, read_table, read_user_lists

POSITIONS = Columns(0, 1, 2, 3)


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
def test_real_tables(data_folder, path, columns, kind, sizes):
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
def test_real_adjacency(data_folder, path, sizes):
    assert sizes_of(read_adjacency(data_folder / path)) == sizes


def test_real_user_lists(data_folder):
    frame = read_user_lists(data_folder / "citeulike-t" / "users.dat")
    # Of the 25,975 articles 391 are in nobody's library.
    assert sizes_of(frame) == (7947, 25_584, 134_860)


def test_real_ncf(data_folder):
    folder = data_folder / "ncf-ml-1m"
    result = read_ncf(folder / "ml-1m.test.rating", folder / "ml-1m.test.negative")
    assert result.negatives.shape == (6040, 99)
    # A known quirk of these files.
    assert (result.negatives == result.items[:, None]).sum() == 156


def test_real_latin_1_is_refused(data_folder):
    path = data_folder / "ml-1m" / "movies.dat"
    assert f"{path} line 73: byte 0xe9" in fault(lambda: read_table(path, Columns(0, 1)))


def sizes_of(frame: pl.DataFrame) -> tuple[int, int, int]:
    return frame["user"].n_unique(), frame["item"].n_unique(), frame.height
