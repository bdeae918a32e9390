"""A data set as arrays by name, and back: what prepared data and saved models hold."""

from collections.abc import Mapping

import numpy as np

from hlr_jax.data.dataset import DIGESTED, Dataset
from hlr_jax.data.filtered import Filtered
from hlr_jax.data.interactions import NO_TIMES, Interactions

_PARTS = ("train", "valid", "test", "given")


def to_arrays(dataset: Dataset) -> dict[str, np.ndarray]:
    arrays = {"user_ids": dataset.user_ids, "item_ids": dataset.item_ids}
    for part in _PARTS:
        interactions = getattr(dataset, part)
        arrays[f"{part}_offsets"] = interactions.offsets
        arrays[f"{part}_items"] = interactions.items
        if dataset.train.times.size:
            arrays[f"{part}_times"] = interactions.times
    for field in ("item_titles", "given_negatives", "features"):
        if getattr(dataset, field) is not None:
            arrays[field] = getattr(dataset, field)
    return arrays | {
        "filtered": dataset.filtered.to_array(),
        "popularity": dataset.popularity,
        "digest": np.array(dataset.digest),
    }


def from_arrays(name: str, arrays: Mapping[str, np.ndarray] | None) -> Dataset | None:
    """Rebuild a data set; None if an array is missing or does not fit the others."""
    parts = {}
    try:
        if arrays is None:
            return None
        user_ids, item_ids = arrays["user_ids"], arrays["item_ids"]
        num_users, num_items = user_ids.size, item_ids.size
        for part in _PARTS:
            offsets, items = arrays[f"{part}_offsets"], arrays[f"{part}_items"]
            if offsets.shape != (num_users + 1,) or offsets[-1] != items.size:
                return None
            # Where those of train are there, others that are not are missing.
            times = arrays[f"{part}_times"] if "train_times" in arrays else NO_TIMES
            if times.size not in (0, items.size):
                return None
            parts[part] = Interactions(offsets, items, num_items, times)
        item_features = arrays.get("features")
        if item_features is not None and len(item_features) != num_items:
            return None
        return Dataset(
            name=name,
            user_ids=user_ids,
            item_ids=item_ids,
            item_titles=arrays.get("item_titles"),
            given_negatives=arrays.get("given_negatives"),
            features=item_features,
            filtered=Filtered.from_array(arrays.get("filtered")),
            **parts,
            _stored=(
                (user_ids, item_ids, *(parts[part] for part in DIGESTED), item_features),
                arrays["popularity"],
                str(arrays["digest"]),
            ),
        )
    except KeyError:
        return None
