"""The report: one page with everything in it, that asks nothing of anybody."""

import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest
from support.planted import planted_of
from support.small_runs import config_of

from hlr_jax import InputError, train
from hlr_jax.reporting import ReportCheck, report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EMPTY = {"meta", "link", "br", "path", "use", "rect", "circle"}


@pytest.fixture(scope="module", params=["cml", "hlr"])
def page(request, tmp_path_factory):
    """A model, its report and the words of it."""
    folder = tmp_path_factory.mktemp("report")
    data = planted_of(24, 30, (6, 7, 9))
    titles = np.array([f"<script>alert({item})</script> & co" for item in range(30)])
    data = data.__class__(**{**vars(data), "item_titles": titles})
    model = train(config_of(request.param, epochs=3), folder / "run", data, False)
    # No mathematics, although matplotlib reads some.
    groups = {item: f"<group> $\\{item % 3}$" for item in range(30)}
    report(model, folder / "report.html", folder / "run", groups)
    return model, folder / "report.html"


class Reader(html.parser.HTMLParser):
    """Collects words and attributes, and checks that elements are closed in their order."""

    def __init__(self):
        super().__init__()
        self.open, self.words, self.attributes, self.tags = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert not reader.open
    return reader


def test_the_page_is_whole_and_asks_for_nothing(page):
    reader = read(page[1])
    assert "script" not in reader.tags
    for name, value in reader.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "data:")), value
        assert not re.search(r"url\((?!#)", value or "")
    assert page[1].stat().st_size < 1_500_000


def test_the_page_shows_what_the_model_does(page):
    model, path = page
    words = "".join(read(path).words)
    for heading in (
        "Training",
        "How good it is",
        "For whom",
        "The relation",
        "A map",
        "Some users",
    ):
        assert heading in words
    has_memory = model.config.model.name == "hlr"
    assert ("What the attention depends on" in words) == has_memory
    assert ("nearest by" in words) == has_memory
    measured = model.evaluate("test")
    assert f"{measured['ndcg@10']:.4f}" in words
    low, high = measured["intervals"]["ndcg@10"]
    assert f"{low:.4f} to {high:.4f}" in words
    assert "<group> $\\2$" in words
    shown = re.findall(r"User (\d+) has", words)
    assert len(shown) == 3
    for user in shown:
        for item in model.recommend([user], 3)["title"]:
            assert item in words  # Titles are text, whatever they look like.


def test_what_cannot_be_reported_is_one_clear_error(page, tmp_path):
    model = page[0]
    with pytest.raises(InputError, match="there is no folder"):
        report(model, tmp_path / "no" / "report.html")
    with pytest.raises(InputError, match=r"groups: none is of an item .* look like 0, 1, 2"):
        report(model, tmp_path / "report.html", None, {"x": "a"})
    joined = model.dataset.joined()
    without = joined.__class__(**{**vars(joined), "test": joined.valid})
    untested = model.__class__(**{**vars_of(model), "dataset": without})
    with pytest.raises(InputError, match="no user has a test item"):
        report(untested, tmp_path / "report.html")
    # A run that is to end in one is refused before it trains.
    with pytest.raises(InputError, match="no user has a test item"):
        train(model.config, None, without, False, [ReportCheck()])
    assert not list(tmp_path.iterdir())


def vars_of(model):
    names = ("config", "dataset", "model", "params", "placement")
    return {name: getattr(model, name) for name in names}


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_it_without_complaint(page, width, tmp_path):
    picture = tmp_path / "page.png"
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={picture}",
            f"--window-size={width},3000",
            page[1].as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    assert picture.stat().st_size > 10_000
