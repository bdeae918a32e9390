"""JSON from a disk is what it has to be, or refused in one line that names the file."""

import json

import pytest

from hlr_jax import files
from hlr_jax.errors import InputError

DEEP = "[" * 100_000
# What each is refused for, where an object is read.
WRONG = {
    "": "not valid JSON",
    '{"a": 1': "not valid JSON",
    "\x80\x81": "not valid JSON",
    "null": "not a JSON object",
    "12": "not a JSON object",
    "[1, 2]": "not a JSON object",
    '"text"': "not a JSON object",
    DEEP: "nested deeper than 64",
    '{"a": ' * 500 + "1" + "}" * 500: "nested deeper than 64",
    '{"a": 1, "b": 2, "a": 3}': "not valid JSON (the key 'a' is there twice)",
    "9" * 5000: "not valid JSON",
    '{"digest": 5}': "digest is 5, not a text",
    '{"digest": null}': "digest is None, not a text",
    '{"seed": true}': "seed is True, not a whole number",
    '{"seed": 1.5}': "seed is 1.5, not a whole number",
}
RESTORED = "restore it, or start again in another folder"


def refused(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_an_object_of_a_file(tmp_path, text):
    path = tmp_path / "dataset.json"
    path.write_bytes(text.encode("latin-1"))
    message = refused(files.read_json_object, path, {"digest": str, "seed": int})
    assert message.startswith(f"{path}: {WRONG[text]}")
    assert message.endswith(RESTORED)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"\x00\xff\xfe", "not valid JSON"),
        (b"null", "not a JSON object"),
        (b"[[]]", "not a JSON object"),
        (DEEP.encode(), "nested deeper than 64"),
        (b'{"epoch": "1"}', "epoch is '1', not a whole number"),
        (b'{"epoch": 1.5}', "epoch is 1.5, not a whole number"),
        (b'{"epoch": 0}', "epochs count from 1, not 0"),
        (b'{"step": 3}', "has no number of an epoch"),
        (b"", "not valid JSON"),
    ],
)
def test_a_line_of_epochs(tmp_path, line, expected):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + line + b"\n")
    message = refused(files.read_json_lines, path)
    assert message.startswith(f"{path} line 2: {expected}")
    assert message.endswith("repair or delete the file")


def test_what_is_allowed(tmp_path):
    path = tmp_path / "results.json"
    value = {"a": [{"b": [[1, None, 2.5]]}] * 100, "c": "[{" * 100, "d": {}}
    files.write_json(path, value)
    assert files.read_json_object(path, {"a": list, "missing": str}) == value
    deep = "[" * 64 + "]" * 64
    assert files.parse_json(deep, "here", list) == json.loads(deep)
    assert "deeper" in refused(files.parse_json, f"[{deep}]", "here", list)
    assert files.parse_json('{"x": NaN}', "here").keys() == {"x"}


def test_constants_of_python_are_no_json_of_others():
    with pytest.raises(InputError, match="here: not valid JSON \\(NaN is not JSON\\); use null"):
        files.parse_json('{"x": NaN}', "here", dict, "use null", constants=False)


def test_a_file_that_would_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 10)
    path = tmp_path / "results.json"
    path.write_text("[" + "1," * 10 + "1]")
    assert "larger than 10 bytes" in refused(files.read_json_object, path)
    assert "larger than 10 bytes" in refused(files.parse_json, "[1,2,3,4,5]", "here", list)


def test_a_folder_of_that_name(tmp_path):
    assert "cannot be read (Is a directory)" in refused(files.read_json_object, tmp_path)
