"""Translate a user towards an item by a relation."""

from jaxtyping import Array, Float

from hlr_jax.functional.geometry import Geometry


def translate(user: Float[Array, "*#b d"], relation: Float[Array, "*#b d"]) -> Float[Array, "*b d"]:
    """Add a relation to a user: `user + relation` (LRML, Tay et al. 2018, eq. 5)."""
    return user + relation


def translated_distance(
    geometry: Geometry,
    user: Float[Array, "*#b d"],
    relation: Float[Array, "*#b d"],
    item: Float[Array, "*#b d"],
) -> Float[Array, "*b"]:
    """Measure `D(user + relation, item)`, by which every model ranks, smallest first.

    In the Euclidean ball `||user + relation - item||^2` (LRML, Tay et al. 2018, eq. 5, squared as
    in HLR, Tran et al. 2021).
    """
    return geometry.distance(translate(user, relation), item)
