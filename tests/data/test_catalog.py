"""The catalogue of public data sets: what is in it, and errors in the file."""

import importlib.resources

import pytest
from data_files import fault

from hlr_jax.data import registry
from hlr_jax.data.registry import parse_catalog

DIGITS = {"sha256": 64, "md5": 32, "git": 40}


@pytest.mark.parametrize("spec", registry.specs().values(), ids=list(registry.specs()))
def test_descriptions_are_complete(spec):
    assert spec.kind in ("table", "lists", "fixed", "ncf")
    assert spec.folders
    assert spec.files
    assert spec.homepage.startswith("http")
    assert spec.licence
    assert (spec.columns is not None) == (spec.kind == "table")
    assert bool(spec.format) == (spec.kind == "table")
    if spec.columns is not None:
        assert not spec.min_rating or spec.columns.rating is not None
    if spec.ships_split:
        assert not spec.min_rating
        assert not spec.core
    if spec.kind == "ncf":
        assert len(spec.files) == 3
    of_features = spec.features and spec.features.download
    for download in (*spec.downloads, *filter(None, [of_features])):
        method, digest = download.checksum.split(":")
        assert download.url.startswith("https://")
        assert len(digest) == DIGITS[method]
        assert set(digest) <= set("0123456789abcdef")
    saved = {download.file for download in spec.downloads} - {""}
    assert not saved or set(spec.files) <= saved


def test_no_two_data_sets_share_a_folder():
    folders = [folder for spec in registry.specs().values() for folder in spec.folders]
    assert len(set(folders)) == len(folders)
    for name, spec in registry.specs().items():
        assert registry.get_spec(name) is spec
        assert spec.name == name
        assert name not in (registry.EMBEDDED, registry.OWN_FILE)


def test_some_data_sets_have_features():
    forms = {spec.name: spec.features for spec in registry.specs().values()}
    known = {name: (form.kind, form.is_named) for name, form in forms.items() if form}
    assert known == {
        "ml_100k": ("flags", True),
        "ml_1m": ("words", True),
        "ml_20m": ("words", True),
        "ml_latest_small": ("words", True),
        "citeulike_t": ("lists", False),
    }


def test_the_catalogue_is_a_file_of_the_package():
    catalog = importlib.resources.files("hlr_jax.data") / "catalog.toml"
    assert parse_catalog(catalog.read_text(encoding="utf-8")) == registry.specs()


GOOD = """
[mine]
folders = ["mine"]
files = ["a.csv"]
kind = "table"
homepage = "https://example.org"
licence = "free"
format = "csv"
columns = { user = "u", item = 1 }
core = 3
min_rating = 0

[[mine.titles]]
file = "t"
separator = ","

[mine.features]
file = "f"
kind = "lists"

[[mine.downloads]]
url = "https://example.org/a.csv"
checksum = "git:0123456789012345678901234567890123456789"
"""


def test_tables_become_descriptions():
    spec = parse_catalog(GOOD)["mine"]
    assert spec.files == ("a.csv",)
    assert (spec.columns.user, spec.columns.item, spec.columns.rating) == ("u", 1, None)
    assert (spec.min_rating, type(spec.min_rating), spec.core) == (0.0, float, 3)
    assert spec.titles[0] == registry.TitleFile("t", ",")
    assert spec.features.kind == "lists"
    assert spec.downloads[0].file == "a.csv"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[mine]\n", "[mine\n", "c.toml: not valid TOML ("),
        (GOOD, "mine = 1", "'mine': not a table; put"),
        ('kind = "table"', "", "'mine': kind: missing; give it"),
        ('kind = "table"', 'kind = "tabel"', "kind='tabel': use one of table, lists, fixed, ncf"),
        ('kind = "table"', 'kind = "lists"', "columns and format: give both for kind 'table'"),
        ('format = "csv"', "", "columns and format: give both for kind 'table'"),
        ('format = "csv"', "former = 1", "former: unknown key; use name, folders, files"),
        ("core = 3", "core = 3.5", "core=3.5: use a value of type int"),
        ("core = 3", "core = true", "core=True: use a value of type int"),
        ("core = 3", "", ""),
        ("min_rating = 0", "min_rating = 4", "min_rating: give columns.rating too"),
        ("item = 1", "item = 1.5", "columns.item=1.5: use a value of type str or int"),
        ("item = 1", "thing = 1", "columns.thing: unknown key; use user, item, rating, timestamp"),
        ('["a.csv"]', '"a.csv"', "files='a.csv': use a list"),
        ('["a.csv"]', "[1]", "files=1: use a value of type str"),
        ('["a.csv"]', "[]", "files=[]: name at least one"),
        ('["mine"]', "[]", "folders=[]: name at least one"),
        ('["a.csv"]', '["a.csv", "b.csv"]', "downloads: none is of b.csv; add it"),
        ("https://example.org/a", "http://x/a", "downloads.url='http://x/a.csv': use an https"),
        ('"git:0', '"git:', "downloads.checksum='git:123"),
        ('kind = "lists"', 'kind = "flags"', "features.separator: give one for flags"),
        ('kind = "lists"', 'kind = "tags"', "features.kind='tags': use one of flags, words"),
        ("[mine.features]", "[[mine.features]]", "'f', 'kind': 'lists'}]: use a table"),
        ("[mine]", "[other]\nfolders = []\n[mine]", "data set 'other': files: missing"),
    ],
)
def test_errors_name_the_data_set_and_the_key(old, new, expected):
    assert old in GOOD
    text = GOOD.replace(old, new)
    if not expected:
        assert parse_catalog(text)["mine"].core == 0
        return
    message = fault(parse_catalog, text, "c.toml")
    assert message.startswith("c.toml: ")
    assert expected in message


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("embedded", "table", "config.data.name='embedded' has another meaning"),
        ("other", "table", "data set 'other': folders: 'mine' belongs to mine already"),
        ("other", "ncf", "files: name those of train ratings, test ratings and test negatives"),
        ("other", "fixed", "min_rating and core: leave them out"),
    ],
)
def test_descriptions_that_contradict_themselves_or_others(name, kind, expected):
    other = GOOD.replace("[mine", f"[{name}").replace("[[mine", f"[[{name}")
    if kind != "table":
        other = other.replace('kind = "table"', f'kind = "{kind}"')
        other = other.replace('format = "csv"\ncolumns = { user = "u", item = 1 }\n', "")
    assert expected in fault(parse_catalog, GOOD + other)
