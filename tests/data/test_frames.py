"""Data sets of data frames and sparse matrices, in memory: the same as of the same table in a file.

Ids come in any order, of any type; whatever cannot be used is one clear error.
"""

import dataclasses
import datetime
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse

from hlr_jax import Dataset, InputError
from hlr_jax.config import DataConfig
from hlr_jax.data import load

ROWS = 600


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "who": [f"u{x}" for x in rng.integers(0, 30, ROWS)],
            "what": rng.integers(100, 140, ROWS),
            "stars": rng.integers(1, 6, ROWS),
            "when": pd.date_range("2024-01-01", periods=ROWS, freq="90min"),
        }
    )


def of_frame(frame, **rules):
    rules = {"min_rating": 3, "core": 3, "split": "per_user_time"} | rules
    return Dataset.from_frame(frame, "who", "what", "stars", "when", **rules)


class Exported:
    """Some library's frame, that exports itself as an Arrow stream."""

    def __init__(self, frame):
        self.__arrow_c_stream__ = frame.__arrow_c_stream__


class Exchanged:
    """Some library's frame, of the data frame interchange protocol."""

    def __init__(self, frame):
        self.__dataframe__ = frame.__dataframe__


FORMS = {
    "pandas": lambda t: t,
    "polars": lambda t: pl.DataFrame(t.to_dict("list")),
    "lazy": lambda t: pl.LazyFrame(t.to_dict("list")),
    "dict": lambda t: t.to_dict("list"),
    "dict of arrays": lambda t: {name: t[name].to_numpy() for name in t},
    "Arrow": lambda t: Exported(pl.DataFrame(t.to_dict("list"))),
    "interchange": lambda t: Exchanged(pa.table(t.to_dict("list"))),
    "categories": lambda t: t.astype({"who": "category"}),
    "objects": lambda t: t.astype({"who": "object", "what": "object"}),
    "nullable": lambda t: t.astype({"what": "Int64", "stars": "Float32"}),
    "whole floats": lambda t: t.astype({"what": float}),
    "unsigned": lambda t: t.astype({"what": "uint16"}),
    "ISO dates": lambda t: t.assign(when=t["when"].dt.strftime("%Y-%m-%d %H:%M:%S")),
    "zone": lambda t: t.assign(when=t["when"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")),
    "seconds": lambda t: t.assign(when=t["when"].astype("int64")),
    "another index": lambda t: t.set_index(t.index[::-1]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_frame_gives_the_data_set_of_the_file(table, form, tmp_path, monkeypatch):
    monkeypatch.setenv("HLR_JAX_CACHE", str(tmp_path / "cache"))
    table.assign(when=table["when"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_csv(
        tmp_path / "table.csv", index=False
    )
    columns = {"user": "who", "item": "what", "rating": "stars", "timestamp": "when"}
    named = {f"{role}_column": column for role, column in columns.items()}
    rules = {"min_rating": 3.0, "core": 3, "split": "per_user_time", "keep_times": True}
    file = load(DataConfig("file", path=str(tmp_path / "table.csv"), **named, **rules))
    found = of_frame(FORMS[form](table), keep_times=True)
    assert found.digests == file.digests != of_frame(table).digests
    assert len(found.test)


def test_rows_are_merged_as_those_of_a_file_are():
    frame = {"user": ["a", "a", "b"], "item": [1, 1, 2], "stars": [1, 5, 2]}
    assert Dataset.from_frame(frame, rating="stars", min_rating=2, split=None).split_sizes == {
        "train": 2,
        "valid": 0,
        "test": 0,
    }


def test_texts_stay_texts_and_other_ids_become_text():
    days = [datetime.date(2024, 1, day) for day in (2, 1)]
    ids = [uuid.UUID(int=2), uuid.UUID(int=1)]
    found = Dataset.from_frame({"user": ["10", "9"], "item": days}, split=None)
    assert found.user_ids.tolist() == ["10", "9"]
    assert found.item_ids.tolist() == ["2024-01-01", "2024-01-02"]
    found = Dataset.from_frame({"user": ids, "item": [(1, "x"), (0, "y")]}, split=None)
    assert found.user_ids.tolist() == [str(ids[1]), str(ids[0])]
    assert found.item_ids.tolist() == ["(0, 'y')", "(1, 'x')"]


def test_every_user_of_unordered_ids_is_found():
    rng = np.random.default_rng(1)
    ids = rng.permutation(1000)[:40]
    found = Dataset.from_frame({"user": ids, "item": ids[::-1]}, split=None)
    assert [found.user_ids[found.user_index(int(user))] for user in ids] == ids.tolist()


def test_a_sparse_matrix_gives_the_data_set_of_its_pairs():
    rng = np.random.default_rng(2)
    matrix = scipy.sparse.random(20, 30, 0.3, format="csc", random_state=rng)
    rows, columns = matrix.nonzero()
    names = [f"u{x}" for x in rng.permutation(20)]
    frame = {"user": [names[row] for row in rows], "item": columns}
    expected = Dataset.from_frame(frame, split=None)
    assert Dataset.from_csr(matrix, names, split=None).digest == expected.digest
    plain = Dataset.from_csr(matrix, split=None)
    assert plain.user_ids.tolist() == sorted(set(rows.tolist()))


def test_titles_are_given_by_id(table):
    found = of_frame(table).with_titles({100: "A  film", 7: "Nobody's"})
    assert found.item_titles[0] == "A film"
    assert (found.item_titles[1:] == "").all()
    with pytest.raises(InputError, match=r"none is of an item .* look like 100, 101"):
        found.with_titles({7: "Nobody's"})
    for wrong in (pl.DataFrame({"sku": [100], "title": ["A film"]}), ["A film"]):
        with pytest.raises(InputError, match=r"titles: a .*; give a mapping from items to titles"):
            found.with_titles(wrong)


BAD = {
    "missing column": (lambda t: t.drop(columns="what"), "item='what': the column is not there"),
    "twice": (
        lambda t: pd.concat([t, t[["what"]]], axis=1),
        "item='what': the column is there more than once",
    ),
    "no id": (lambda t: t.assign(what=t["what"].where(t.index != 7)), "row 7: item nan is missing"),
    "none": (lambda t: t.assign(who=t["who"].where(t.index != 7)), "row 7: user None is missing"),
    "empty id": (lambda t: t.assign(who=""), "row 0: user '' is empty"),
    "mixed": (
        lambda t: t.assign(who=[3 if i == 5 else x for i, x in enumerate(t["who"])]),
        "row 5: user 3 is of another type than 'u",
    ),
    "factorized": (lambda t: t.assign(what=-1), "row 0: item -1 is outside 0"),
    "large": (lambda t: t.assign(what=np.uint64(2**63)), "row 0: item 9223372036854775808 is out"),
    "fractions": (lambda t: t.assign(what=1.5), "row 0: item 1.5 is no whole number"),
    "truth": (lambda t: t.assign(what=True), "item: the column holds Boolean"),
    "lists": (lambda t: t.assign(who=[[1]] * ROWS), "user: the column holds List"),
    "NUL": (lambda t: t.assign(who="a\0"), "has a NUL byte"),
    "rating": (lambda t: t.assign(stars="good"), "rating .column stars. 'good' is not a finite"),
    "infinite": (lambda t: t.assign(stars=np.inf), "rating .column stars. inf is not a finite"),
    "time": (lambda t: t.assign(when="soon"), "timestamp .column when. 'soon' is not a number"),
    "date": (
        lambda t: t.assign(when=["2024-01-01"] + ["soon"] * (ROWS - 1)),
        "row 1: timestamp .column when. 'soon' is not a date",
    ),
    "lengths": (
        lambda t: t.to_dict("list") | {"who": ["u1"]},
        "different lengths .user 1, item 600",
    ),
    "no rows": (lambda t: t[:0], "the frame has no rows"),
    "no frame": (lambda t: 5, "int is no data frame"),
    "a table": (lambda t: t.to_dict("list") | {"who": np.ones((2, 2))}, r"\(2, 2\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_frame_that_cannot_be_used_is_one_clear_error(table, name):
    change, message = BAD[name]
    with pytest.raises(InputError, match=message) as error:
        of_frame(change(table))
    assert "\n" not in str(error.value)


RULES = {
    "unknown": ({"minimum": 3}, "minimum: there is no such rule; there are min_rating, core"),
    "split": ({"split": "half"}, "^split='half': use one of"),
    "core": ({"core": 500}, "^core: no interaction is left"),
    "rating": ({"min_rating": 9}, "^min_rating=9.0?: the highest rating is 5.0"),
    "fraction": ({"test_fraction": 1.0}, "^test_fraction=1.0: use a fraction between"),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_cannot_be_used_is_named_as_the_argument(table, name):
    rules, message = RULES[name]
    with pytest.raises(InputError, match=message):
        of_frame(table, **rules)


def test_a_column_that_a_rule_needs_is_named_as_the_argument(table):
    with pytest.raises(InputError, match=r"min_rating=3.*name it in rating or"):
        Dataset.from_frame(table, "who", "what", min_rating=3)
    with pytest.raises(InputError, match=r"split='leave_one_out'.* has no timestamps"):
        Dataset.from_frame(table, "who", "what", split="leave_one_out")


MATRIX = scipy.sparse.csr_matrix(np.eye(4))
BAD_MATRICES = {
    "zero": (scipy.sparse.csr_matrix(([0.0], [1], [0, 1])), (), "entry 0.0 at row 0, column 1"),
    "negative": (-MATRIX, (), "entry -1.0 at row 0"),
    "NaN": (MATRIX * np.nan, (), "entry nan at row 0"),
    "dense": (np.eye(4), (), "takes a sparse matrix of SciPy, not ndarray"),
    "empty": (scipy.sparse.csr_matrix((3, 3)), (), "has no entries"),
    "few ids": (MATRIX, ([1, 2],), "there are 2 user_ids for 4 users"),
    "equal ids": (MATRIX, (None, [1, 2, 2, 3]), "item_ids has 2 twice"),
    "no id": (MATRIX, (["a", None, "b", "c"],), "row 1: user None is missing"),
}


@pytest.mark.parametrize("name", BAD_MATRICES)
def test_a_matrix_that_cannot_be_used_is_one_clear_error(name):
    matrix, ids, message = BAD_MATRICES[name]
    with pytest.raises(InputError, match=message):
        Dataset.from_csr(matrix, *ids, split=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_ids": lambda ids: ids[::-1]}, "user_ids do not increase"),
        ({"item_ids": lambda ids: ids[1:]}, "item_ids has the shape"),
        ({"user_ids": lambda ids: ids.astype(object)}, "user_ids are object"),
        ({"valid": lambda part: part.part(slice(2))}, "valid has 2 users"),
    ],
)
def test_a_data_set_that_is_put_together_by_hand_is_checked(table, change, message):
    found = of_frame(table)
    changed = {name: of(getattr(found, name)) for name, of in change.items()}
    with pytest.raises(InputError, match=message):
        dataclasses.replace(found, **changed)
