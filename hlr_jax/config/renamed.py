"""Old names of fields and of their values, so that errors can say what they are called now.

And fields that are gone, which every stored configuration of before has.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from hlr_jax.errors import InputError

# Old field: new field, or what to do where no single field has taken its place.
FIELDS = {
    "model.clip_norm": "geometry.radius",
    "model.surface": "geometry.name",
    "sampling.pool": "sampling.negatives",
    "sampling.skew": "sampling.popularity_exponent",
    "loss.balance": "loss.user_weight_exponent",
    "loss.rank_weight": "loss.name='warp'",
    "optimizer.rows": "optimizer.updates",
    "training.select": "training.selection_metric",
    "sharding.item_blocks": "sharding.item_shards",
}

# A field that is gone, and changed no number of a run: the value that asked for nothing, and what
# is used instead.
REMOVED = {"training.tensorboard": (False, "--trackers=tensorboard")}

# Old value of a field that still exists, or of one that took another's place: the new setting.
VALUES = {
    ("sampling.negatives", "triplet"): "sampling.negatives='per_example'",
    ("sampling.negatives", "batch"): "sampling.negatives='shared'",
    ("sampling.negatives", "catalogue"): "sampling.negatives='full_catalog'",
    ("loss.name", "closest"): "loss.name='hardest'",
    ("loss.name", "two_sided"): "loss.name='cpe'",
    ("loss.name", "squared"): "loss.name='sfcml'",
    ("loss.name", "semi_hard"): "loss.name='hardest' (semi_hard has been removed)",
    ("optimizer.updates", "all"): "optimizer.updates='dense'",
    ("optimizer.updates", "touched"): "optimizer.updates='sparse'",
}


def explain(field: str) -> str | None:
    """Say what an old field is called now, or what is used instead; None for any other field.

    Args:
      field: with or without `config.` in front.
    """
    field = field.removeprefix("config.")
    if field in REMOVED:
        return f"config.{field}: removed, use {REMOVED[field][1]}"
    return f"config.{field}: renamed, use config.{FIELDS[field]}" if field in FIELDS else None


def check_value(field: str, value: Any) -> None:
    """Raise InputError for an old value, which names the new one."""
    new = VALUES.get((field, value)) if isinstance(value, str) else None
    if field == "sampling.negatives" and _is_count(value):
        new = f"sampling.num_negatives={value}"
    if new:
        raise InputError(f"config.{field}={value!r}: renamed, use config.{new}")


def check_fields(values: Mapping[str, Any]) -> None:
    """Raise InputError for old fields in nested values: one line that names each new field."""
    found = [
        message
        for field, value in _flat(values)
        if (message := explain(field)) and not is_idle(field, value)
    ]
    if found:
        raise InputError("; ".join(found))


def is_idle(field: str, value: Any) -> bool:
    """Tell whether a field is gone, and had the value that asked for nothing."""
    return field in REMOVED and value == REMOVED[field][0]


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, fields in values.items():
        if hasattr(fields, "items"):
            yield from ((f"{section}.{name}", value) for name, value in fields.items())


def _is_count(value: Any) -> bool:
    return type(value) is int or (isinstance(value, str) and value.isdigit())
