"""The results of a protocol, one JSON file: runs are added, and it tells what is missing."""

import base64
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.contenders import Protocol, described, fingerprint
from hlr_jax.files import read_json_object, write_json

# Values of users are kept to this many parts of 1: four digits.
_PARTS = 10_000


def load(path: pathlib.Path, protocol: Protocol, data: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is stored, less what would come out otherwise now.

    Args:
      data: what `data_of` says of the data set; another one than stored makes all runs worthless.
        None where it is not to be had, and what is stored is taken for granted.
    """
    stored = read_json_object(path) if path.exists() else {}
    if data is not None and stored.get("data") != data:
        stored = {}
    entries = stored.get("contenders", {})
    current = {}
    for contender in protocol.contenders:
        entry = entries.get(contender.key)
        if entry and entry["hash"] == fingerprint(described(protocol, contender)):
            current[contender.key] = entry
    return {"protocol": protocol.name, "data": stored.get("data", data), "contenders": current}


def has(results: Mapping[str, Any], key: str, seed: int) -> bool:
    """Whether there is a run of this contender with this seed."""
    return str(seed) in results["contenders"].get(key, {"runs": {}})["runs"]


def add(
    results: dict[str, Any],
    protocol: Protocol,
    key: str,
    seed: int,
    run: Mapping[str, Any],
    values: np.ndarray,
) -> None:
    """Add a run.

    Args:
      run: what is to be known of it, as plain JSON, with metrics in `test`.
      values: `[users]` of the main metric on test, from 0 to 1.
    """
    contender = protocol.contender(key)
    description = described(protocol, contender)
    new = {
        "name": contender.name,
        "label": contender.label,
        "hash": fingerprint(description),
        **description,
        "runs": {},
    }
    entry = results["contenders"].get(key, new)
    sums = np.rint(np.asarray(values) * _PARTS).astype(np.int64)
    if entry["runs"]:
        sums += _unpacked(entry["user_sums"])
    runs = entry["runs"] | {str(seed): dict(run)}
    entry |= {"runs": dict(sorted(runs.items(), key=lambda pair: int(pair[0])))}
    results["contenders"][key] = entry | {"user_sums": _packed(sums)}


def save(path: pathlib.Path, results: Mapping[str, Any]) -> None:
    """Write the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, results)


def user_values(entry: Mapping[str, Any]) -> np.ndarray:
    """`[users]` each user's main metric, the mean of the seeds."""
    return _unpacked(entry["user_sums"]) / (_PARTS * len(entry["runs"]))


def _packed(sums: np.ndarray) -> str:
    """Whole numbers below 2^32 as text: low bytes of all first, which compresses best."""
    planes = sums.astype("<u4").view(np.uint8).reshape(-1, 4).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()


def _unpacked(text: str) -> np.ndarray:
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return planes.reshape(4, -1).T.copy().view("<u4")[:, 0].astype(np.int64)
