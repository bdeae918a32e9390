"""What takes input from outside: good samples of it, and the call that reads a file with one."""

import dataclasses
import io
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from absl import flags
from ml_collections import config_flags

from hlr_jax import archive, cli, files
from hlr_jax import config as configs
from hlr_jax.comparison import folders
from hlr_jax.config import DataConfig, plugins, shipped
from hlr_jax.data import features, loading, prepared, readers, splits, titles
from hlr_jax.data.registry import FeatureFile, TitleFile
from hlr_jax.errors import InputError
from hlr_jax.runs import saved, workdir

Read = Callable[[pathlib.Path, np.random.Generator], Any]

# In the folder that everything is read in: whoever imports it has run what a file only named.
TRAP = "trap_module"

ROWS = [(f"u{k % 7}", 100 + k * 5 % 11, 1 + k % 5, 881250949 + k) for k in range(40)]
HEADER = ("user", "item", "rating", "timestamp")


@dataclasses.dataclass(frozen=True)
class Reader:
    """One way in.

    Attributes:
      name: of the file, whose end tells its format.
      read: reads the file; the generator draws options.
      share: of the inputs, relative to others.
      names_file: whether each message has to name the file.
    """

    name: str
    read: Read
    share: float = 1.0
    names_file: bool = True


def text(separator: str, header: tuple[str, ...] = HEADER, quote: str = "") -> bytes:
    lines = [separator.join(f"{quote}{field}{quote}" for field in row) for row in (header, *ROWS)]
    return ("\n".join(lines) + "\n").encode()


def table(path: pathlib.Path, rng: np.random.Generator) -> None:
    columns = readers.Columns(rating="rating", timestamp="timestamp")
    if rng.random() < 0.2:
        columns = readers.Columns(*("0", "1", "2", "3")[: int(rng.integers(2, 5))])
    encoding = ("utf-8", "utf-8", "latin-1", "utf-16", "cp1252")[rng.integers(5)]
    separator = ("", "", "", ";", ",")[rng.integers(5)]
    if path.suffix in (".ndjson", ".parquet"):
        separator = ""
    decimal, drops = (".", ",")[rng.integers(2)], bool(rng.integers(2))
    readers.read_table(path, columns, "", readers.Dialect(separator, encoding, decimal, drops))


def whole_set(path: pathlib.Path, rng: np.random.Generator) -> None:
    """Filter and split what is read."""
    rules = DataConfig.SPLITS
    config = DataConfig(
        name="file",
        path=str(path),
        split=str(rng.choice([rule for rule in rules if rule != "fixed"])),
        rating_column="rating",
        timestamp_column="timestamp",
        min_rating=float(rng.integers(0, 6)),
        core=int(rng.integers(0, 4)),
        on_bad_row=str(rng.choice(["error", "drop"])),
    )
    loading.load(config, progress=False)


def split_of_files(path: pathlib.Path, _: np.random.Generator) -> None:
    path.with_name("train.csv").write_bytes(b"user,item\n1,101\n1,102\n2,101\n")
    splits.read_predefined(path.parent)


def ncf(path: pathlib.Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    ratings, negatives = path.with_name("r.rating"), path.with_name("n.negative")
    is_ratings = rng.random() < 0.5
    ratings.write_bytes(content if is_ratings else b"0\t4\t1\t9\n1\t5\t1\t9\n")
    negatives.write_bytes(b"(0,4)\t5\t99\n(1,5)\t6\t99\n" if is_ratings else content)
    readers.read_ncf(ratings, negatives)


FLAGS = FeatureFile("f", "flags", "|", first_field=2, encoding="latin-1")
WORDS = FeatureFile("f", "words", "::", first_field=2, encoding="latin-1")
QUOTED = FeatureFile("f", "words", ",", first_field=2, header=True)
LISTS = FeatureFile("f", "lists")
ITEMS = np.array([10, 11, 12, 20])


def feature_file(path: pathlib.Path, rng: np.random.Generator) -> None:
    form = (FLAGS, WORDS, QUOTED, LISTS, None)[rng.integers(5)]
    features.read(path, form, ITEMS)


def title_file(path: pathlib.Path, rng: np.random.Generator) -> None:
    forms = (
        TitleFile("t", "json", "id", "name"),
        TitleFile("t", ",", header=True),
        TitleFile("t", "|", encoding="latin-1"),
    )
    titles.read(path, forms[rng.integers(3)])


def override(path: pathlib.Path, rng: np.random.Generator) -> None:
    """Take the file's text for the value of a flag, and at times for a flag."""
    value = path.read_bytes().decode("utf-8", "surrogateescape")
    fields = sorted(configs.flat(configs.Config()))
    name = fields[rng.integers(len(fields))] if rng.random() < 0.8 else value[:40]
    argv = ["hlr-jax", f"--config.{name}={value}"]
    values = flags.FlagValues()
    sys.argv = argv  # Where `ml_collections` looks for overrides.
    base = configs.as_config_dict(configs.Config())
    try:
        config_flags.DEFINE_config_dict("config", base, flag_values=values)
        values(argv)
    except Exception as error:  # As `cli` does with what absl raises.
        raise InputError(" ".join(cli._configuration_fault(argv, error).split())) from None
    configs.from_config_dict(values.config)


def run_file(path: pathlib.Path, _: np.random.Generator) -> None:
    if path.name == "config.json":
        workdir.load_config(path.parent)
    elif path.name == "metrics.jsonl":
        files.read_json_lines(path)
    elif path.name == "results.json":
        found = folders.open_folder(path.parent)
        _ = (found.seed, found.label, found.data, found.protocol, found.configuration)
    else:
        files.read_json_object(path, {"name": str, "digest": str})


def prepared_folder(path: pathlib.Path, _: np.random.Generator) -> None:
    """Damage is no error here: the data is prepared again."""
    np.save(path.with_name("items.npy"), np.arange(5), allow_pickle=False)
    prepared.restore(path.parent)


def saved_model(path: pathlib.Path, rng: np.random.Generator) -> None:
    """At times with a description that is damaged, and a checksum that fits it."""
    if rng.random() < 0.5:
        path.write_bytes(signed_again(path.read_bytes()))
    description, arrays = archive.read(path, saved.KIND)
    saved._config(path, description)
    saved.dataset_of(path, description, arrays)


def signed_again(content: bytes) -> bytes:
    import safetensors
    import safetensors.numpy

    try:
        tensors = safetensors.numpy.load(content)
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])["__metadata__"]
        header["sha256"] = archive._digest(tensors, header)
        return bytes(safetensors.numpy.save(tensors, header))
    except Exception:
        return content


def imported(path: pathlib.Path, _: np.random.Generator) -> None:
    name = path.read_bytes().decode("utf-8", "replace")
    if name != "hlr_jax":
        plugins.load([name], plugins.FLAG)


def named_configuration(path: pathlib.Path, _: np.random.Generator) -> None:
    """Find what a name stands for, without running it."""
    shipped.find(path.read_bytes().decode("utf-8", "replace"))


def as_parquet() -> bytes:
    buffer = io.BytesIO()
    frame = pl.DataFrame(ROWS, schema=HEADER, orient="row")
    frame.write_parquet(buffer, compression="uncompressed")
    return buffer.getvalue()


def as_model(folder: pathlib.Path) -> bytes:
    config = configs.Config(data=DataConfig(name="embedded"))
    dataset = loading.load(config.data, progress=False)
    arrays = {f"data/{name}": value for name, value in loading.arrays.to_arrays(dataset).items()}
    description = {"kind": saved.KIND, "data": "embedded", "config": configs.as_dict(config)}
    archive.write(folder / "model.safetensors", description, arrays)
    return (folder / "model.safetensors").read_bytes()


def samples(folder: pathlib.Path) -> dict[str, tuple[bytes, ...]]:
    """Make contents that are read without an error, by reader.

    Args:
      folder: for what has to be written first.
    """
    ndjson = "".join(json.dumps(dict(zip(HEADER, row, strict=True))) + "\n" for row in ROWS)
    typed = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    config = json.dumps(configs.as_dict(configs.Config())).encode()
    baseline = {
        "baseline": "ease",
        "data": dataclasses.asdict(DataConfig(name="embedded")),
        "seed": 1,
        "split_sizes": {"train": 1},
        "hyperparameters": {"l2": 1.0},
        "refit": False,
        "test": {"protocol": "full"},
        "digests": {"data": "x", "test": "y"},
    }
    values = (b"1", b"0.5", b"adam", b"(5,20)", b"True", b"None", b"ml_100k", b"-1e-3", b"[1,2]")
    flag_lines, words = b"10|A|1|0\n11|B|0|1\n", b"10::A::War|Drama\n11::B::War\n"
    quoted = b'movieId,title,genres\n10,"A, the",War|Drama\n12,"B ""b""",Drama\n'
    numbers = b"id,a,b\n10,1,2\n11,3,4\n"
    return {
        "csv": (text(","), text(";", quote='"'), text("|")),
        "tsv": (text("\t"), text("\t", quote='"')),
        "dat": (text("::"),),
        "inter": (text("\t", typed),),
        "unnamed": (text("\t"), text("::"), ndjson.encode()),
        "ndjson": (ndjson.encode(),),
        "parquet": (as_parquet(),),
        "adjacency": (b"0 1 2 3\n1 2 3\n2 9\n",),
        "lists": (b"3 1 2 3\n0\n2 4 5\n",),
        "ncf": (b"0\t4\t1\t9\n1\t5\t1\t9\n", b"(0,4)\t5\t99\n(1,5)\t6\t99\n"),
        "split": (b"user,item\n2,102\n3,A7\n",),
        "data set": (text(","),),
        "features": (flag_lines, words, quoted, numbers, b"3 10 12 99\n2 11 99\n"),
        "titles": (b'{"id": 1, "name": "A"}\n', quoted, b"1|A\n"),
        "override": values,
        "config.json": (config,),
        "dataset.json": (b'{"name": "a", "digest": "b"}',),
        "results.json": (json.dumps(baseline).encode(),),
        "metrics.jsonl": (b'{"epoch": 1, "loss": 0.5}\n' * 3,),
        "prepared": (b'{"items": 123}',),
        "saved model": (as_model(folder),),
        "import": (TRAP.encode(), b"trap", b"os.path", b"a.b"),
        "configuration": (b"ml_100k/hlr", b"a.py:b", b"embedded/cml"),
    }


def _adjacency(path: pathlib.Path, _: np.random.Generator) -> None:
    readers.read_adjacency(path)


def _lists(path: pathlib.Path, _: np.random.Generator) -> None:
    readers.read_user_lists(path)


READERS = {
    "csv": Reader("t.csv", table, 3),
    "tsv": Reader("t.tsv", table, 2),
    "dat": Reader("t.dat", table),
    "inter": Reader("t.inter", table),
    "unnamed": Reader("u.data", table),
    "ndjson": Reader("t.ndjson", table, 2),
    # Each takes a process of its own, a third of a second.
    "parquet": Reader("t.parquet", table, 0.1),
    "adjacency": Reader("t.txt", _adjacency),
    "lists": Reader("t.txt", _lists),
    "ncf": Reader("n", ncf, names_file=False),
    "split": Reader("test.csv", split_of_files, names_file=False),
    "data set": Reader("t.csv", whole_set, names_file=False),
    "features": Reader("f.csv", feature_file, 2),
    "titles": Reader("t", title_file),
    "override": Reader("value", override, names_file=False),
    "config.json": Reader("config.json", run_file),
    "dataset.json": Reader("dataset.json", run_file),
    "results.json": Reader("results.json", run_file, names_file=False),
    "metrics.jsonl": Reader("metrics.jsonl", run_file),
    "prepared": Reader("checksums.json", prepared_folder, 0.5, names_file=False),
    "saved model": Reader("model.safetensors", saved_model, 0.3),
    "import": Reader("name", imported, names_file=False),
    "configuration": Reader("name", named_configuration, names_file=False),
}
