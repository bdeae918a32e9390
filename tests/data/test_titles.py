"""Titles of items in the forms of public data sets."""

import pytest
from data_files import write

from hlr_jax.data import titles
from hlr_jax.data.registry import TitleFile
from hlr_jax.errors import InputError


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (TitleFile("t", ",", header=True), 'id,title\n1,"A, the"\n2\n', {"1": "A, the"}),
        (TitleFile("t", "::"), "1::A  b\n", {"1": "A b"}),
        (TitleFile("t", "\t", header=True), 'i\tn\n1\t"Weird\n', {"1": '"Weird'}),
        (TitleFile("t", "json", "k", "n"), '{"k": "x", "n": "Y"}\n{"k": "z"}\n', {"x": "Y"}),
    ],
)
def test_titles(tmp_path, form, text, expected):
    assert titles.read(write(tmp_path / "t", text), form) == expected


def test_titles_that_cannot_be_read(tmp_path):
    path = write(tmp_path / "t", "{broken\n")
    with pytest.raises(InputError, match="line 1: not valid JSON"):
        titles.read(path, TitleFile("t", "json", "k", "n"))
