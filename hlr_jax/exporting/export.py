"""Write a trained model for programs that do not use this library."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import polars as pl
import safetensors.numpy

from hlr_jax import config as configs
from hlr_jax.errors import InputError
from hlr_jax.exporting import index, program
from hlr_jax.files import flush, replacing_folder, write_json, write_text
from hlr_jax.runs.recommender import Recommender

# Users whose exact lists the index is held against, and candidates that it is asked for.
_MEASURED, _CANDIDATES = 500, 100


class Exported(NamedTuple):
    """What was written.

    Attributes:
      folder: that holds it.
      files: their names, with a line of what each holds.
      about: what `export.json` holds.
    """

    folder: pathlib.Path
    files: dict[str, str]
    about: dict[str, Any]


def export(recommender: Recommender, folder: str | pathlib.Path, k: int = 100) -> Exported:
    """Write ids, tables, the ranking function and, where it can be, an index.

    Files: `users.parquet` and `items.parquet` (row, id, title, and whether it was trained on),
    `vectors.safetensors` (points of users and items), `seen.parquet` (what users have),
    `ranking.stablehlo` (see `exporting.program`), `items.hnsw` (of hnswlib, if that is installed
    and the geometry is Euclidean or spherical), `export.json` and `README.txt`, which says what
    each is.

    Args:
      folder: new, or empty. It is written whole, or not at all.
      k: items that the ranking function returns; the catalogue's size at most.

    Raises:
      InputError: the folder has something in it or cannot be written, or a package is missing.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: there is something already; name another folder")
    if k < 1:
        raise InputError(f"k={k}: use 1 or more")
    try:
        with replacing_folder(folder) as unfinished:
            files, about = _write(recommender, unfinished, k)
            for file in unfinished.iterdir():
                flush(file)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    return Exported(folder, files, about)


def _write(
    recommender: Recommender, folder: pathlib.Path, k: int
) -> tuple[dict[str, str], dict[str, Any]]:
    data, model = recommender.dataset, recommender.model
    users = {"row": np.arange(data.num_users), "user": data.user_ids}
    users["is_trained"] = data.train.counts > 0
    items = {"row": np.arange(data.num_items), "item": data.item_ids}
    if data.item_titles is not None:
        items["title"] = data.item_titles
    items["is_trained"] = recommender.trained_items
    pl.DataFrame(users).write_parquet(folder / "users.parquet")
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    seen = recommender.everything
    order = seen.in_order()
    pl.DataFrame({"user_row": seen.users[order], "item_row": seen.items[order]}).write_parquet(
        folder / "seen.parquet"
    )
    vectors = {"users": recommender.user_vectors(), "items": recommender.item_vectors()}
    relation = jax.tree_util.tree_leaves_with_path(dict(recommender.params["relation"]))
    vectors |= {f"relation/{'/'.join(p.key for p in path)}": np.asarray(x) for path, x in relation}
    contiguous = {name: np.ascontiguousarray(array) for name, array in vectors.items()}
    safetensors.numpy.save_file(contiguous, folder / "vectors.safetensors")
    k = min(k, data.num_items)
    (folder / "ranking.stablehlo").write_bytes(program.serialized(recommender.tables, k))
    files = {
        "users.parquet": "row, id, and whether the user was trained on",
        "items.parquet": "row, id, title, and whether the item was trained on",
        "seen.parquet": "rows of users, and of the items that they have"
        + (", the oldest first" if seen.times.size else ""),
        "vectors.safetensors": "points of users and items, and parameters of the relation",
        "ranking.stablehlo": "the ranking function: jax.export.deserialize(bytes).call(users, "
        "history, mask, seen)",
    }
    about: dict[str, Any] = {
        "model": recommender.config.model.name,
        "geometry": recommender.config.geometry.name,
        "dim": model.dim,
        "k": k,
        "history_length": recommender.tables.draw.length,
        "platforms": list(program.PLATFORMS),
        "vectors_are_exact": not model.reads_item,
        "config": configs.as_dict(recommender.config),
    }
    reason = index.missing(recommender)
    about["index"] = reason
    if not reason:
        found = index.build(recommender, folder / "items.hnsw")
        files["items.hnsw"] = "an index of hnswlib, space l2, whose labels are rows of items"
        some = np.flatnonzero(data.train.counts)[:_MEASURED]
        candidates = min(_CANDIDATES, int(recommender.trained_items.sum()))
        listed = min(10, candidates)
        about["index"] = {
            "candidates": candidates,
            f"recall_of_the_best_{listed}": round(
                index.recall(recommender, found, some, listed, candidates), 4
            ),
            "users_measured": len(some),
        }
    write_json(folder / "export.json", about)
    files["export.json"] = "sizes, the configuration, and how much of the exact the index finds"
    if model.reads_order:
        files["ranking.stablehlo"] += (
            "; the history begins with the last item and goes back in time"
        )
    lines = [f"{name:<22}{text}" for name, text in files.items()]
    exact = (
        "Scores are minus the squared distances between the vectors of users and items."
        if not model.reads_item
        else "The relation depends on the item: what is near a user's vector is a candidate, to be "
        "ranked again by ranking.stablehlo."
    )
    write_text(folder / "README.txt", "\n".join([*lines, "", exact]) + "\n")
    files["README.txt"] = "what each file is"
    return files, about
