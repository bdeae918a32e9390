"""Groups of interactions, from columns of every kind."""

import datetime

import numpy as np
import polars as pl
from data_files import fault

from hlr_jax.data.groupings import MOST_GROUPS, groupings


def only(name, values):
    (found,) = groupings({name: values})
    assert found.name == name
    return found


def test_an_item_of_several_genres_is_shared_among_them():
    found = only("genre", pl.Series([["War", "Drama", "Drama"], [], None, ["War"], ["Noir"]]))
    assert found.groups == ("Drama", "Noir", "War")
    wanted = [[0.5, 0, 0.5], [0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0]]
    np.testing.assert_array_equal(found.shares, wanted)


def test_few_numbers_are_groups_and_many_are_quartered():
    found = only("rating", pl.Series([5.0, 0.5, None, float("nan"), 0.5]))
    assert found.groups == ("0.5", "5")
    np.testing.assert_array_equal(found.shares, [[0, 1], [1, 0], [0, 0], [0, 0], [1, 0]])
    plays = np.random.default_rng(0).permutation(40)
    found = only("plays", pl.Series(plays))
    assert found.groups == ("0 to 9", "10 to 19", "20 to 29", "30 to 39")
    np.testing.assert_array_equal(found.shares.argmax(axis=1), plays // 10)
    # More than a quarter of all are the lowest: the first two quarters are one.
    found = only("plays", pl.Series([*[1] * 60, *range(2, 42)]))
    assert found.groups == ("1 to 16", "17 to 41")


def test_rare_texts_are_put_together():
    texts = [str(number) for number in range(30) for _ in range(1 + number)]
    found = only("tag", pl.Series(texts))
    assert len(found.groups) == MOST_GROUPS
    assert found.groups[-1] == "others"
    np.testing.assert_array_equal(
        found.shares.argmax(axis=1) == MOST_GROUPS - 1, [int(text) < 7 for text in texts]
    )


def test_times_are_periods_and_hours():
    moments = [datetime.datetime(1998, month, 3, 2 + month) for month in (1, 1, 4)]
    seconds = [(x - datetime.datetime(1970, 1, 1)).total_seconds() for x in moments]
    texts = [f"{x:%Y-%m-%dT%H:%M:%S}" for x in moments]
    for times in (moments, seconds, texts):
        period, hour = groupings({"timestamp": pl.Series([*times, None])})
        assert (period.name, hour.name) == ("period", "hour")
        assert period.groups == ("1998-01", "1998-04")
        assert hour.groups == ("03", "06")
        np.testing.assert_array_equal(period.shares, [[1, 0], [1, 0], [0, 1], [0, 0]])
    years = pl.Series([datetime.date(year, 5, 1) for year in range(1990, 2020)])
    period = only_period(years)
    assert period.groups == (*map(str, range(1990, 1990 + MOST_GROUPS - 1)), "others")
    for wrong in (pl.Series(["soon", "1998-01-03"]), pl.Series([1e15, 0.0])):
        assert "is no time; give seconds since 1970" in fault(groupings, {"timestamp": wrong})


def test_what_is_no_text_is_refused_in_one_line():
    for values in (pl.Series([b"a", b"\xff"]), pl.Series([[["a"]], [["b"]]])):
        message = fault(groupings, {"mood": values})
        assert message.startswith("mood: cannot group by ")
        assert "\n" not in message


def only_period(times):
    (found,) = groupings({"timestamp": times})
    return found


def test_a_single_group_is_none():
    assert groupings({"a": pl.Series([1, 1]), "b": pl.Series([None, None], dtype=pl.String)}) == []
    assert groupings({"c": pl.Series([True, False])})[0].groups == ("false", "true")
