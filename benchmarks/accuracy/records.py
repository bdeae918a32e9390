"""Keep the results of a protocol in one JSON file, to which runs are added."""

import base64
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.accuracy.entries import Protocol, described, fingerprint
from hlr_jax.files import read_json_object, write_json

# Values of users are kept with four digits.
_PARTS = 10_000


def load(path: pathlib.Path, protocol: Protocol, data: Mapping[str, Any] | None) -> dict[str, Any]:
    """Read what is stored, without entries and data that have changed since.

    Args:
      data: description of the data set; if another one is stored, no run counts. None where the
        data set is not at hand; then nothing is compared.
    """
    stored = read_json_object(path) if path.exists() else {}
    if data is not None and stored.get("data") != data:
        stored = {}
    found = stored.get("entries", {})
    current = {}
    for entry in protocol.entries:
        record = found.get(entry.key)
        if record and record["hash"] == fingerprint(described(protocol, entry)):
            current[entry.key] = record
    return {"protocol": protocol.name, "data": stored.get("data", data), "entries": current}


def has(results: Mapping[str, Any], key: str, seed: int) -> bool:
    """Whether there is a run of this entry with this seed."""
    return str(seed) in results["entries"].get(key, {"runs": {}})["runs"]


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
      run: what is reported of it, as plain JSON, with metrics in `test`.
      values: `[users]` of the main metric on test, from 0 to 1.
    """
    entry = protocol.entry(key)
    description = described(protocol, entry)
    new = {
        "name": entry.name,
        "label": entry.label,
        "hash": fingerprint(description),
        **description,
        "runs": {},
    }
    record = results["entries"].get(key, new)
    sums = np.rint(np.asarray(values) * _PARTS).astype(np.int64)
    if record["runs"]:
        sums += _unpacked(record["user_sums"])
    runs = record["runs"] | {str(seed): dict(run)}
    record |= {"runs": dict(sorted(runs.items(), key=lambda pair: int(pair[0])))}
    results["entries"][key] = record | {"user_sums": _packed(sums)}


def save(path: pathlib.Path, results: Mapping[str, Any]) -> None:
    """Write the file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, results)


def user_values(record: Mapping[str, Any]) -> np.ndarray:
    """Return `[users]` each user's main metric, the mean over seeds."""
    return _unpacked(record["user_sums"]) / (_PARTS * len(record["runs"]))


def _packed(sums: np.ndarray) -> str:
    """Encode whole numbers below 2^32 as text; the low bytes of all first compress best."""
    planes = sums.astype("<u4").view(np.uint8).reshape(-1, 4).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()


def _unpacked(text: str) -> np.ndarray:
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return planes.reshape(4, -1).T.copy().view("<u4")[:, 0].astype(np.int64)
