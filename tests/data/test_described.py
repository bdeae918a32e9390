"""What raw files say besides: genres, ratings and times, found where they are, never downloaded."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from data_files import ratings, write, write_split

from hlr_jax.config import DataConfig
from hlr_jax.data import Dataset, Interactions, described, load

ITEM = "{}|A|01-Jan-1995||x|{}\n"


def genre_lines(items, number):
    flags = "|".join("1" if place == number else "0" for place in range(19))
    return "".join(ITEM.format(item, flags) for item in items)


def test_a_public_data_set(table, folders):
    config = DataConfig(name="ml_100k", core=2)
    data = load(config, progress=False)
    assert described.genres(config, data) == {}
    write(table.with_name("u.item"), genre_lines([101, 102], 8) + genre_lines([103], 17))
    found = described.genres(config, data)
    assert found == {"101": ["Drama"], "102": ["Drama"], "103": ["War"]}
    rated = described.interactions(config, data)
    assert rated.columns == ["user", "item", "rating", "timestamp"]
    assert rated.height == len(ratings().splitlines())
    assert rated["rating"].min() == 1
    table.unlink()
    assert described.interactions(config, data).height == 0


def test_a_split_of_a_public_data_set(folders):
    write_split(folders[0] / "splits" / "mine")
    write(folders[0] / "ml-100k" / "u.item", genre_lines([1, 2], 8))
    config = DataConfig(name="ml_100k", predefined="mine")
    data = load(config, progress=False)
    assert described.genres(config, data) == {"1": ["Drama"], "2": ["Drama"]}
    # Nothing says that a folder is of the generated data, or of another data set's items.
    assert described.genres(DataConfig(predefined="mine"), data) == {}
    other = dataclasses.replace(data, name="frame")
    assert described.genres(config, other) == {}
    assert described.interactions(config, other).height == 0


def test_the_generated_data_set(generated_once, folders):
    config = DataConfig()
    data = load(config, progress=False)
    genres = described.genres(config, data)
    for row in (0, 5, 100):
        title = str(data.item_titles[row])
        assert genres[str(data.item_ids[row])] == [title.rsplit(" ", 1)[0]]
    assert "timestamp" in described.interactions(config, data).columns


def test_a_file_of_ones_own(folders, tmp_path):
    path = write(
        tmp_path / "mine.csv",
        "user,item,stars\n"
        + "".join(
            f"{user},{item},{user % 5}\n" for user in range(6) for item in range(6) if user != item
        ),
    )
    config = DataConfig(name="file", path=str(path), rating_column="stars")
    data = load(config, progress=False)
    assert described.genres(config, data) == {}
    assert described.interactions(config, data)["rating"].n_unique() == 5
    unrated = dataclasses.replace(config, rating_column="")
    assert described.interactions(unrated, data).height == 0
    path.unlink()
    assert described.interactions(config, data).equals(pl.DataFrame({"user": [], "item": []}))


@pytest.mark.parametrize(
    ("name", "folder", "genres", "rated"),
    [
        ("ml_100k", "ml-100k", ["Animation", "Children's", "Comedy"], 100_000),
        ("ml_1m", "ml-1m", ["Animation", "Children's", "Comedy"], 0),
        (
            *("ml_latest_small", "ml-latest-small"),
            ["Adventure", "Animation", "Children", "Comedy", "Fantasy"],
            100_836,
        ),
    ],
)
def test_real_genres(name, folder, genres, rated, data_folder, monkeypatch):
    """Of Toy Story, which is the first of all; ML-1M comes without ratings here."""
    if not (data_folder / folder).is_dir():
        pytest.skip(f"{folder} is not in HLR_JAX_DATA")
    monkeypatch.setenv("HLR_JAX_DATA", str(data_folder))
    one = Interactions.from_pairs(np.zeros(1), np.zeros(1), 1, 1)
    nothing = Interactions.none(1, 1)
    data = Dataset(name, one, nothing, nothing, np.array([1]), np.array([1]))
    assert described.genres(DataConfig(name=name), data)["1"] == genres
    if rated or not (data_folder / folder / "ratings.dat").exists():
        assert described.interactions(DataConfig(name=name), data).height == rated
