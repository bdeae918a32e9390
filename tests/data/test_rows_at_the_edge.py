"""Users who have everything or nearly nothing, rows that cannot be used, and their settings."""

import logging

import numpy as np
import pytest
from data_files import fault, write

from hlr_jax.config import DataConfig
from hlr_jax.data import Dataset, load
from hlr_jax.data.readers import Columns, Dialect, read_table
from hlr_jax.data.splits import read_predefined
from hlr_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("small_blocks", "folders")


def read(path, content, *arguments, **named):
    """Write a table and read it; returns its rows."""
    return read_table(write(path, content), *(arguments or (Columns(),)), **named).rows()


# Users at the edge.


def test_a_user_who_has_every_item(tmp_path, caplog):
    others = "".join(f"u{k},{k % 5}\nu{k},{(k + 1) % 5}\nu{k},{(k + 2) % 5}\n" for k in range(6))
    path = write(tmp_path / "t.csv", "user,item\n" + others + "".join(f"z,{k}\n" for k in range(5)))
    config = DataConfig(name="file", path=str(path), split="none")
    for _ in range(2):  # The second time as it was prepared.
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            dataset = load(config)
        assert "t.csv: 1 users have every item and are left out" in caplog.text
        assert dataset.user_ids.tolist() == [f"u{k}" for k in range(6)]
        assert "5 of users who have every item (1 users)" in str(dataset.filtered)
    assert len(dataset.train) == 18


def test_items_that_only_such_users_have_go_too():
    """Without user 0 there are two items, and user 1 has both."""
    users, items = [0, 0, 0, 1, 1, 2, 3], [0, 1, 2, 0, 1, 0, 1]
    dataset = Dataset.from_frame({"user": users, "item": items}, split=None)
    assert dataset.user_ids.tolist() == [2, 3]
    assert dataset.item_ids.tolist() == [0, 1]
    assert dataset.filtered.full_users == 2


def test_only_users_who_have_every_item():
    with pytest.raises(InputError, match="has all 2 items, so no negative can be drawn"):
        Dataset.from_frame({"user": [1, 1, 2, 2], "item": [1, 2, 1, 2]}, split=None)


def test_one_interaction_of_each_user(tmp_path):
    path = write(tmp_path / "t.csv", "user,item,time\n1,1,1\n2,2,2\n3,1,3\n")
    config = DataConfig(name="file", path=str(path), timestamp_column="time", split="leave_one_out")
    assert "no user has three interactions" in fault(lambda: load(config))


RATED = "user,item,rating\n1,1,5\n1,2,\n2,1,4\n2,,3\n3,1,x\n3,2,2,9\n3,3,1\n"


def test_a_bad_row_is_named(tmp_path):
    path = write(tmp_path / "t.csv", RATED)
    config = DataConfig(name="file", path=str(path), rating_column="rating")
    message = fault(lambda: load(config))
    assert message.startswith(f"{path} line 3: rating (empty) is not a finite number")
    assert message.endswith("config.data.on_bad_row=drop leaves such rows out")


def test_how_many_bad_rows_there_are(tmp_path, monkeypatch):
    monkeypatch.undo()
    path = write(tmp_path / "t.csv", "user,item,rating\n" + "1,1,\n" * 3 + "2,1,1\n")
    assert "(and 2 more rows cannot be used)" in fault(
        lambda: read_table(path, Columns(rating="rating"))
    )


def test_bad_rows_are_dropped_and_counted(tmp_path, caplog):
    path = write(tmp_path / "t.csv", RATED)
    with caplog.at_level(logging.WARNING):
        dialect = Dialect(drops_bad_rows=True)
        rows = read_table(path, Columns(rating="rating"), "", dialect).rows()
    assert rows == [(1, 1, 5.0), (2, 1, 4.0), (3, 3, 1.0)]
    assert "4 rows that cannot be used are dropped; the first: " in caplog.text
    assert f"{path} line 3: rating (empty)" in caplog.text


def test_ids_of_dropped_rows_do_not_count(tmp_path):
    dialect = Dialect(drops_bad_rows=True)
    rows = read(
        tmp_path / "t.csv", "user,item,rating\nx,1,\n2,1,4\n", Columns(rating="rating"), "", dialect
    )
    assert rows == [(2, 1, 4.0)]
    message = fault(read, tmp_path / "t.csv", "user,item\n,1\n", Columns(), "", dialect)
    assert "has no interactions" in message


def test_decimal_commas(tmp_path):
    content = 'user,item,rating\n1,2,"3,5"\n1,3,"4"\n'
    path = write(tmp_path / "t.csv", content)
    columns = Columns(rating="rating")
    assert "set config.data.decimal=','" in fault(lambda: read_table(path, columns))
    rows = read_table(path, columns, "", Dialect(decimal=",")).rows()
    assert rows == [(1, 2, 3.5), (1, 3, 4.0)]
    semicolons = "1;2;3,5\n1;3;4,5\n"
    rows = read(tmp_path / "s.csv", semicolons, Columns(0, 1, 2), "", Dialect(decimal=","))
    assert rows == [(1, 2, 3.5), (1, 3, 4.5)]


# The settings, and what is none.


def test_settings_reach_the_reader(tmp_path):
    content = "user/item/rating\n1/caf\u00e9/3,5\n1/b/\n2/b/4\n2/c/4\n3/b/1\n"
    path = write(tmp_path / "t.csv", content, "latin-1")
    config = DataConfig(
        name="file",
        path=str(path),
        separator="/",
        encoding="latin-1",
        decimal=",",
        on_bad_row="drop",
        rating_column="rating",
        split="none",
    )
    dataset = load(config)
    assert dataset.item_ids.tolist() == ["b", "c", "caf\u00e9"]
    assert np.array_equal(dataset.user_ids, [1, 2, 3])


@pytest.mark.parametrize(
    ("setting", "value"),
    [("encoding", "klingon"), ("encoding", "hex"), ("decimal", ";"), ("on_bad_row", "mend")],
)
def test_settings_that_are_none(setting, value):
    message = fault(lambda: DataConfig(name="file", path="x", **{setting: value}))
    assert message.startswith(f"config.data.{setting}='{value}': use ")


def test_settings_of_tables_go_with_tables():
    message = fault(lambda: DataConfig(separator=";"))
    assert message.startswith("config.data.separator=';': leave it out")


def test_a_split_in_another_encoding(tmp_path):
    for name, rows in (("train", "1;\u00e9\n1;b\n"), ("test", "2;b\n")):
        write(tmp_path / f"{name}.csv", "user;item\n" + rows, "latin-1")
    frames = read_predefined(tmp_path, dialect=Dialect(encoding="latin-1"))
    assert frames["train"].rows() == [(1, "\u00e9"), (1, "b")]
