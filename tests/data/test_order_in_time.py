"""Data sets that keep which interactions of a user came first."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from data_files import write

from hlr_jax.config import DataConfig
from hlr_jax.data import load
from hlr_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("folders", "generated_once")


def pairs(interactions):
    return set(zip(interactions.users.tolist(), interactions.items.tolist(), strict=True))


def test_the_order_in_time_is_kept_on_request(folders, table):
    config = DataConfig(name="ml_100k", core=2, split="per_user", valid_fraction=0.2)
    names = ["user", "item", "rating", "timestamp"]
    read = pl.read_csv(table, separator="\t", has_header=False, new_columns=names)
    when = {(user, item): time for user, item, _, time in read.rows()}
    timed, untimed = (load(dataclasses.replace(config, keep_times=keep)) for keep in (True, False))
    assert not untimed.train.has_times
    assert timed.digest != untimed.digest
    again = load(dataclasses.replace(config, keep_times=True))
    assert again.digest == timed.digest
    for dataset in (timed, again):
        ranks, times = [], []
        for part in ("train", "valid", "test"):
            rows = getattr(dataset, part)
            assert pairs(rows) == pairs(getattr(untimed, part))
            ids = zip(dataset.user_ids[rows.users], dataset.item_ids[rows.items], strict=True)
            times += [when[pair] for pair in ids]
            ranks += rows.times.tolist()
        # Of all parts together; equal times are told apart, by rows of the file.
        assert len(set(ranks)) == len(ranks)
        assert [times[n] for n in np.argsort(ranks)] == sorted(times)
    # What is joined, and what is known, are in order too.
    joined_times = timed.joined().train.times
    assert sorted(joined_times) == sorted([*timed.train.times, *timed.valid.times])
    assert timed.known("test").has_times


def test_an_order_that_nobody_knows_cannot_be_kept(folders, tmp_path):
    path = write(tmp_path / "a.csv", "user,item\n0,1\n0,2\n1,2\n1,3\n")
    with pytest.raises(InputError, match=r"config\.data\.keep_times=True: .*timestamp_column"):
        load(DataConfig(name="file", path=str(path), keep_times=True))
