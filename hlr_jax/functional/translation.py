"""A relation translates a user towards an item."""

from jaxtyping import Array, Float

from hlr_jax.functional.distance import squared_distance


def translate(user: Float[Array, "*#b d"], relation: Float[Array, "*#b d"]) -> Float[Array, "*b d"]:
    """`user + relation` (LRML, Tay et al. 2018, eq. 5)."""
    return user + relation


def translated_distance(
    user: Float[Array, "*#b d"], relation: Float[Array, "*#b d"], item: Float[Array, "*#b d"]
) -> Float[Array, "*b"]:
    """`||user + relation - item||^2`: what every model of the family ranks by, smallest first.

    LRML (Tay et al. 2018, eq. 5), squared as in HLR (Tran et al. 2021).
    """
    return squared_distance(translate(user, relation), item)
