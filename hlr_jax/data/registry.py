"""The public data sets that can be loaded by name, as described in catalog.toml.

A description says which files a data set consists of, how they are written, where they can be
downloaded and which filter its paper applies. It is read and checked when this module is imported.
"""

import dataclasses
import difflib
import functools
import importlib.resources
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from hlr_jax.data.readers import Columns
from hlr_jax.errors import InputError

# Values of `config.data.name` that do not name a public data set: the generated data set that comes
# with the library, and a file of the user's.
EMBEDDED = "embedded"
OWN_FILE = "file"

_KINDS = ("table", "lists", "fixed", "ncf")
_FEATURE_KINDS = ("flags", "words", "lists")
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}|git:[0-9a-f]{40}")

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Download:
    """A file to download: an archive that is unpacked, or a single file.

    Attributes:
      url: https address; its last part is the file's name.
      checksum: `sha256:...`, `md5:...`, or `git:...`, the SHA-1 by which git names the content.
    """

    url: str
    checksum: str

    @property
    def file(self) -> str:
        """The name to save the file under; "" for a .zip or .tar archive, which is unpacked."""
        name = self.url.rsplit("/", 1)[-1]
        return "" if name.endswith((".zip", ".tar", ".tar.gz", ".tgz")) else name

    def check(self) -> None:
        """Raise ValueError for an address or a checksum of another form."""
        _require(self.url.startswith("https://"), f"url={self.url!r}: use an https address")
        _require(
            _CHECKSUM.fullmatch(self.checksum) is not None,
            f"checksum={self.checksum!r}: use sha256:, md5: or git: and hexadecimal digits",
        )


@dataclasses.dataclass(frozen=True)
class TitleFile:
    """A file with a title for each item, one per line.

    Attributes:
      file: its name.
      separator: between the fields of a line; "json" if every line is a JSON object.
      item: field with the item's id: a 0-based position, or the key of a JSON object.
      title: field with the title, in the same way.
      header: whether the first line is a header.
      encoding: of the text.
    """

    file: str
    separator: str
    item: int | str = 0
    title: int | str = 1
    header: bool = False
    encoding: str = "utf-8"


@dataclasses.dataclass(frozen=True)
class FeatureFile:
    """A file with features of items.

    Attributes:
      file: its name.
      kind: `flags` (a line per item: its id, and from field `first_field` on a 0 or 1 for each
        feature), `words` (a line per item: its id, and in field `first_field` its features with
        `|` between them) or `lists` (a line per feature: a count, then the items that have it).
      separator: between the fields of a line.
      first_field: 0-based position.
      names: of flags, in their order, for people to read; () if they have none.
      header: whether the first line is a header.
      min_items: features that fewer items of the data set have are dropped.
      encoding: of the text.
      download: where to get the file if it does not come with the data set's other files.
    """

    file: str
    kind: str
    separator: str = ""
    first_field: int = 0
    names: tuple[str, ...] = ()
    header: bool = False
    min_items: int = 1
    encoding: str = "utf-8"
    download: Download | None = None

    def check(self) -> None:
        """Raise ValueError if the kind is unknown, or does not suit the separator."""
        known = ", ".join(_FEATURE_KINDS)
        _require(self.kind in _FEATURE_KINDS, f"kind={self.kind!r}: use one of {known}")
        _require(
            (self.kind == "lists") == (not self.separator),
            "separator: give one for flags and words, and none for lists",
        )
        _require(not self.names or self.kind == "flags", "names: leave them out; flags have them")

    @property
    def is_named(self) -> bool:
        """Whether it says what the features are called."""
        return self.kind == "words" or bool(self.names)


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """The description of a public data set.

    Attributes:
      name: its value of `config.data.name`.
      folders: names that its folder may have; error messages and downloads use the first.
      files: what must be in the folder; the first file holds the interactions.
      kind: `table` (an interaction per line; see `columns`), `lists` (a line per user: a count,
        then the items), `fixed` (the split that is published: adjacency lists called train, valid
        and test) or `ncf` (the published split of Neural Collaborative Filtering: train, test, and
        negatives for each test pair).
      homepage: where people get the data set.
      licence: its terms, in short.
      format: of a `table`, as in `readers.read_table`.
      columns: of a `table`.
      min_rating: filter of its paper: keep interactions rated at least this.
      core: filter of its paper: keep users and items with at least this many interactions.
      unrated_file: adjacency lists without ratings, oldest item first. They can replace the first
        of `files` if interactions are not filtered by rating. "" if there is no such file.
      titles: files with titles of items; the first one that is present is read.
      features: a file with features of items.
      downloads: these make up `files`; empty if people have to get the files themselves.
    """

    name: str
    folders: tuple[str, ...]
    files: tuple[str, ...]
    kind: str
    homepage: str
    licence: str
    format: str = ""
    columns: Columns | None = None
    min_rating: float = 0.0
    core: int = 0
    unrated_file: str = ""
    titles: tuple[TitleFile, ...] = ()
    features: FeatureFile | None = None
    downloads: tuple[Download, ...] = ()

    @property
    def ships_split(self) -> bool:
        """Whether the data set is published as a train and a test part."""
        return self.kind in ("fixed", "ncf")

    def check(self) -> None:
        """Raise ValueError if the description contradicts itself."""
        is_special = self.name in (EMBEDDED, OWN_FILE)
        _require(not is_special, f"config.data.name={self.name!r} has another meaning; rename it")
        _require(self.kind in _KINDS, f"kind={self.kind!r}: use one of {', '.join(_KINDS)}")
        _require(bool(self.folders), "folders=[]: name at least one")
        _require(bool(self.files), "files=[]: name at least one")
        _require(
            self.kind != "ncf" or len(self.files) == 3,
            "files: name those of train ratings, test ratings and test negatives",
        )
        _require(
            (self.kind == "table") == (self.columns is not None) == bool(self.format),
            "columns and format: give both for kind 'table', and none for another kind",
        )
        _require(
            not self.ships_split or not (self.min_rating or self.core),
            "min_rating and core: leave them out, because a published split is not filtered",
        )
        has_rating = self.columns is not None and self.columns.rating is not None
        _require(not self.min_rating or has_rating, "min_rating: give columns.rating too")
        saved = {download.file for download in self.downloads} - {""}
        missing = sorted(set(self.files) - saved) if saved else []
        _require(not missing, f"downloads: none is of {', '.join(missing)}; add it")


def _require(condition: bool, fault: str) -> None:
    if not condition:
        raise ValueError(fault)


def parse_catalog(text: str, path: str = "catalog.toml") -> dict[str, DatasetSpec]:
    """Read descriptions of data sets from TOML: a table per data set, a key per field.

    Args:
      text: the TOML.
      path: of the text, for error messages.

    Returns:
      The descriptions by name, in the order of the text.

    Raises:
      InputError: the text is not TOML, a key is unknown or missing, or a value cannot be used.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML ({error}); correct it") from None
    specs = {}
    folders: dict[str, str] = {}
    for name, table in tables.items():
        try:
            _require(isinstance(table, dict), "not a table; put fields below it")
            spec = _build(DatasetSpec, table | {"name": name})
            for folder in spec.folders:
                other = folders.setdefault(folder, name)
                _require(other == name, f"folders: {folder!r} belongs to {other} already")
        except ValueError as error:
            raise InputError(f"{path}: data set {name!r}: {error}") from None
        specs[name] = spec
    return specs


def _build(cls: type[_T], table: Mapping[str, Any], place: str = "") -> _T:
    """Make a dataclass from a table of its fields, and check it; `place` is the table's key."""
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    types_of = typing.get_type_hints(cls)
    for key in table:
        _require(key in fields, f"{place}{key}: unknown key; use {', '.join(fields)}")
    for key, field in fields.items():
        is_given = key in table or field.default is not dataclasses.MISSING
        _require(is_given, f"{place}{key}: missing; give it")
    values = {
        key: _converted(value, types_of[key], f"{place}{key}") for key, value in table.items()
    }
    made = cls(**values)
    if hasattr(made, "check"):
        try:
            made.check()
        except ValueError as error:
            raise ValueError(f"{place}{error}") from None
    return made


def _converted(value: Any, wanted: Any, key: str) -> Any:
    """Convert a value of TOML to the type `wanted` of a field; `key` is for error messages."""
    if typing.get_origin(wanted) is tuple:
        _require(isinstance(value, list), f"{key}={value!r}: use a list")
        (element, _) = typing.get_args(wanted)
        return tuple(_converted(each, element, key) for each in value)
    # TOML has no null: an optional field is left out.
    choices = [one for one in typing.get_args(wanted) or [wanted] if one is not types.NoneType]
    if dataclasses.is_dataclass(choices[0]):
        _require(isinstance(value, dict), f"{key}={value!r}: use a table")
        return _build(typing.cast(type, choices[0]), value, f"{key}.")
    if choices == [float] and type(value) is int:
        return float(value)
    names = " or ".join(choice.__name__ for choice in choices)
    _require(type(value) in choices, f"{key}={value!r}: use a value of type {names}")
    return value


@functools.cache
def specs() -> dict[str, DatasetSpec]:
    """Read the catalogue of public data sets, on first use."""
    catalog = importlib.resources.files("hlr_jax.data") / "catalog.toml"
    return parse_catalog(catalog.read_text(encoding="utf-8"))


def get_spec(name: str) -> DatasetSpec:
    """Return the description of the public data set called `name`.

    Raises:
      InputError: there is no such data set; the message suggests similar names.
    """
    if name in specs():
        return specs()[name]
    known = [EMBEDDED, OWN_FILE, *specs()]
    close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=3)
    raise InputError(
        f"config.data.name={name!r}: no such data set; "
        + (f"did you mean {' or '.join(close)}?" if close else f"use one of {', '.join(known)}")
    )
