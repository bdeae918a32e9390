"""The fields of `config.data`: which interactions, how they are filtered and split."""

import codecs
import dataclasses
import typing

from hlr_jax.config.values import Section, require, require_one_of


@dataclasses.dataclass(frozen=True, repr=False)
class DataConfig(Section):
    """Which interactions, how they are filtered and how they are split."""

    # A data set that the library knows (docs/data.md lists them), or file: your own table at
    # `path`.
    name: str = "embedded"
    # A folder with train/valid/test files, or the name of one under `splits/` of the data folder.
    # They are not filtered. Validation is the valid file, or where there is none `valid_fraction`
    # of train, unless `valid_split` draws it from both.
    predefined: str = ""
    # The table, for name="file".
    path: str = ""
    # Of the table: csv, tsv, dat, ndjson, parquet, adjacency or lists; "" goes by the extension of
    # its file.
    format: str = ""
    # Of the table's columns: a header's name, or a 0-based position where there is no header.
    user_column: str = "user"
    # As user_column.
    item_column: str = "item"
    # As user_column; "" where there are no ratings.
    rating_column: str = ""
    # As user_column; "" where there are no times.
    timestamp_column: str = ""
    # Of the table: between fields, as ";" or "tab"; "" goes by the format, and for CSV finds one of
    # , ; | and tab.
    separator: str = ""
    # Of the table: utf-8, latin-1, cp1252, utf-16 or another that Python knows.
    encoding: str = "utf-8"
    # Of the table: what stands before the fraction of a number, "." or ",".
    decimal: str = "."
    # Rows of the table that cannot be used, as those with an empty rating: error names the first;
    # drop leaves them out, and counts them.
    on_bad_row: str = "error"
    # Keep interactions rated at least this; None takes the data set's own rule.
    min_rating: float | None = None
    # Keep users and items with at least this many interactions, repeated until all have;
    # None takes the data set's own rule.
    core: int | None = None
    # The same for items alone; None takes that of `core`.
    item_core: int | None = None
    # Features of items, for a model that reads them. own: those that the data set ships (genres,
    # tags); or a .csv or .tsv file with a header, each line of which has an item's id and then
    # numbers. They are scaled to a length of 1; items without any get zeros. "" for no features.
    features: str = ""
    # random, per_user, leave_one_out, global_time, per_user_time; held_out_users: validation and
    # test are of users who are never trained on (strong generalization); none: everything is
    # trained on; or fixed: the split that the data set itself ships. "" takes fixed where there is
    # one, else random.
    split: str = ""
    # Validation of a fixed split, drawn from its training and validation together: random, per_user
    # (at random), per_user_last (the last of each user in the order of the training file). "" takes
    # what is shipped, or random where that is nothing.
    valid_split: str = ""
    # Of interactions, or with held_out_users of users.
    valid_fraction: float = 0.08
    # Of the same as valid_fraction.
    test_fraction: float = 0.2
    # Of the random numbers that a split draws; `config.seed` is that of training.
    split_seed: int = 2021
    # Keep which interactions of a user came first, for config.sampling.history="recent". The data
    # need times.
    keep_times: bool = False
    # Train on the validation interactions too: for a last run whose number of epochs is known.
    join_valid: bool = False

    SPLITS: typing.ClassVar = (
        "",
        "random",
        "per_user",
        "leave_one_out",
        "global_time",
        "per_user_time",
        "held_out_users",
        "none",
        "fixed",
    )
    VALID_SPLITS: typing.ClassVar = ("", "random", "per_user", "per_user_last")
    OWN_FEATURES: typing.ClassVar = "own"
    FORMATS: typing.ClassVar = ("", "csv", "tsv", "dat", "ndjson", "parquet", "adjacency", "lists")

    def check(self) -> None:
        require(bool(self.name), "data.name", self.name, "name a data set, or 'file'")
        require_one_of(self.split, self.SPLITS, "data.split")
        require_one_of(self.valid_split, self.VALID_SPLITS, "data.valid_split")
        require_one_of(self.format, self.FORMATS, "data.format")
        require(
            self.name != "file" or bool(self.path or self.predefined),
            "data.path",
            self.path,
            "give the table's path (config.data.name is 'file')",
        )
        require_one_of(self.decimal, (".", ","), "data.decimal")
        require_one_of(self.on_bad_row, ("error", "drop"), "data.on_bad_row")
        known = "use utf-8, latin-1, cp1252 or another encoding of texts that Python knows"
        require(_is_encoding(self.encoding), "data.encoding", self.encoding, known)
        for field, default in (
            ("separator", ""),
            ("encoding", "utf-8"),
            ("decimal", "."),
            ("on_bad_row", "error"),
        ):
            value = getattr(self, field)
            own = self.name == "file" or bool(self.predefined)
            needed = "leave it out: it is for tables of your own (config.data.name='file')"
            require(own or value == default, f"data.{field}", value, needed)
        for field in ("core", "item_core"):
            value = getattr(self, field)
            require(
                value is None or value >= 0, f"data.{field}", value, "use 0 (no filter) or more"
            )
        for field in ("valid_fraction", "test_fraction"):
            value = getattr(self, field)
            require(0 < value < 1, f"data.{field}", value, "use a fraction between 0 and 1")
        require(
            self.valid_fraction + self.test_fraction < 1,
            "data.test_fraction",
            self.test_fraction,
            f"with config.data.valid_fraction={self.valid_fraction} nothing is left to train on",
        )

    @property
    def has_features_file(self) -> bool:
        """Whether features are those of a file, and not the data set's own."""
        return self.features not in ("", self.OWN_FEATURES)


def _is_encoding(name: str) -> bool:
    """Whether texts can be read by an encoding, piece by piece."""
    try:
        # Some that Python knows are of bytes.
        return codecs.getincrementaldecoder(name)().decode("a".encode(name)) == "a"
    except (LookupError, ValueError, TypeError):
        return False
