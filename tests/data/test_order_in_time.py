"""Data sets that keep which interactions of a user came first."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from data_files import write, write_split

from hlr_jax.config import DataConfig
from hlr_jax.data import load
from hlr_jax.data.interactions import NO_TIMES
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


def test_a_split_that_comes_as_files_has_no_order(folders):
    write_split(folders[0] / "mine")
    with pytest.raises(InputError, match=r"keep_times=True: .*come.* as files.*split by time"):
        load(DataConfig(predefined="mine", keep_times=True))


def test_the_digest_knows_the_order_of_what_is_trained_on_alone(table):
    dataset = load(DataConfig(name="ml_100k", core=2, keep_times=True))
    test, train = dataset.test, dataset.train
    others = np.where(np.arange(len(test)) == 0, 10**6, test.times).astype(np.int32)
    changed = dataclasses.replace(dataset, test=dataclasses.replace(test, times=others))
    assert dataclasses.replace(changed, _stored=None).digest == dataset.digest
    swapped = train.times.copy()
    swapped[:2] = swapped[1::-1]
    changed = dataclasses.replace(dataset, train=dataclasses.replace(train, times=swapped))
    assert changed.digest != dataset.digest


def test_times_are_of_all_parts_or_of_none(table):
    dataset = load(DataConfig(name="ml_100k", core=2, keep_times=True))
    valid = dataclasses.replace(dataset.valid, times=NO_TIMES)
    with pytest.raises(InputError, match="not when those of valid; give times of all parts"):
        dataclasses.replace(dataset, valid=valid)
    assert len(valid) > 0
    with pytest.raises(InputError, match=r"99 times for \d+ interactions; give one for each"):
        dataclasses.replace(dataset.valid, times=np.arange(99, dtype=np.int32))
