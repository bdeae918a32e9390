"""Data sets and recommenders on a screen and in a notebook; copies of them, pickles and frames."""

import copy
import dataclasses
import html.parser
import pickle

import numpy as np
import pytest
from support.planted import planted_of
from support.small_runs import config_of

from hlr_jax import Dataset, InputError, train
from hlr_jax.baselines import Ease
from hlr_jax.baselines.recommender import BaselineRecommender
from hlr_jax.facts import WIDTH

NAME = "<b>plays & more</b>"


@pytest.fixture(scope="module")
def data():
    plain = planted_of(24, 30, (6, 7, 9))
    titles = np.array([f"title {item}" for item in range(30)])
    return dataclasses.replace(plain, name=NAME, item_titles=titles)


@pytest.fixture(scope="module")
def model(data):
    return train(config_of("hlr", epochs=1), None, data, False)


@pytest.fixture(scope="module")
def baseline(data):
    return BaselineRecommender.fit(Ease(), data)


@pytest.fixture(params=["data", "model", "baseline"])
def shown(request):
    return request.getfixturevalue(request.param)


class Cells(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.words = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words.append(data)


def test_what_is_shown_fits_a_screen_and_says_the_same_in_a_notebook(shown):
    lines = repr(shown).splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= WIDTH
    assert type(shown).__name__ in lines[0]
    assert any("24 (0, 1, 2, ...)" in line for line in lines)
    assert any("144 train, 24 valid, 48 test" in line for line in lines)
    assert any("30 (0, 1, 2, ...), with titles" in line for line in lines)
    cells = Cells()
    cells.feed(shown._repr_html_())
    assert set(cells.tags) == {"div", "b", "table", "tr", "th", "td"}
    assert cells.tags.count("b") == 1  # What the name holds is text.
    assert any(NAME in word for word in cells.words)
    assert "144 train, 24 valid, 48 test" in cells.words


def test_models_say_what_they_are(model, baseline):
    assert "  model         hlr, 6 dimensions, geometry ball, loss hinge\n" in repr(model)
    assert "  with          regularization=" in repr(baseline)


def test_a_long_name_does_not_fill_the_screen():
    frame = {"user": ["u" * 500, "v", "w"], "item": ["a b " * 200, "x", "y"]}
    lines = repr(Dataset.from_frame(frame, split=None)).splitlines()
    assert len(lines) <= 12


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_copies_recommend_the_same(make, model, baseline):
    for original in (model, baseline):
        made = make(original)
        assert made is not original
        expected = original.recommend([1, 2], k=3)
        assert made.recommend([1, 2], k=3).equals(expected)
    assert (copy.deepcopy(model).dataset is model.dataset) is False
    assert copy.copy(model).dataset is model.dataset


def test_a_model_is_saved_and_not_pickled(model, data, baseline):
    with pytest.raises(InputError) as caught:
        pickle.dumps(model)
    message = str(caught.value)
    assert "recommender.save(" in message
    assert "hlr_jax.load(" in message
    assert "\n" not in message
    # What is data alone can be sent to other processes.
    assert pickle.loads(pickle.dumps(data)).digest == data.digest
    assert pickle.loads(pickle.dumps(model.config)) == model.config


def test_frames_become_those_of_pandas_without_arrow(model, monkeypatch):
    pandas = pytest.importorskip("pandas")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    top = model.recommend([1, 2], k=3)
    frame = pandas.DataFrame(top.to_dict())
    assert list(frame.columns) == top.columns
    assert frame["item"].tolist() == top["item"].to_list()
    assert frame["title"].tolist() == top["title"].to_list()


def test_there_is_nothing_to_measure_on_training(model):
    with pytest.raises(InputError, match="split='train': use valid or test"):
        model.evaluate("train")
