"""Losses of margins between a positive and its negatives, CML's rank weight and covariance."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def triplet_hinge(
    positive: Float[Array, "*b"], negatives: Float[Array, "*b k"], margin: float
) -> Float[Array, "*b k"]:
    """`max(0, D(u, i) - D(u, j) + margin)` for each of K negatives, on squared distances.

    CML (Hsieh et al. 2017, eq. 2), LRML (Tay et al. 2018, eq. 6).
    """
    return jax.nn.relu(positive[..., None] - negatives + margin)


def closest_hinge(hinge: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    """The hinge of the closest of K negatives, which is the largest (CML, Hsieh et al. 2017)."""
    return jnp.max(hinge, axis=-1)


def semi_hard_hinge(
    positive: Float[Array, "*b"], negatives: Float[Array, "*b k"], margin: float
) -> Float[Array, "*b"]:
    """The hinge of the closest negative that is farther away than the positive.

    Where there is none, that of the closest negative of all. After FaceNet (Schroff et al.,
    CVPR 2015, section 3.2), whose triplets are chosen so within a batch: the very closest
    negatives are often what the user would have liked.
    """
    farther = jnp.where(negatives > positive[..., None], negatives, jnp.inf)
    chosen = jnp.min(farther, axis=-1)
    chosen = jnp.where(jnp.isfinite(chosen), chosen, jnp.min(negatives, axis=-1))
    return jax.nn.relu(positive - chosen + margin)


def two_sided_hinge(
    positive: Float[Array, "*b"], negatives: Float[Array, "*b k"], margin: float
) -> Float[Array, "*b k"]:
    """`|D(u, j) - D(u, i) - margin|` for each of K negatives; 0 where one is infinitely far.

    Draws all gaps to the margin from either side, so that they vary little. CPE (Bao et al.,
    "Collaborative Preference Embedding against Sparse Labels", ACM MM 2019, eq. 10).
    """
    counts = jnp.isfinite(negatives)
    gap = jnp.where(counts, negatives, 0) - positive[..., None]
    return jnp.where(counts, jnp.abs(gap - margin), 0)


def squared_margin(
    positive: Float[Array, "*#b"], negatives: Float[Array, "*#b k"], margin: float
) -> Float[Array, "*b"]:
    """Mean of `(margin + D(u, i) - D(u, j))^2` over the negatives that are not infinitely far.

    0 where there is none. With all unseen items as negatives, every user weighed alike and rows on
    a sphere this is SFCML (Bao et al., "Rethinking Collaborative Metric Learning: Toward an
    Efficient Alternative without Negative Sampling", TPAMI 2022).

    Leading axes broadcast: negatives `[b, 1, k]` serve all positives `[b, p]` of a row, in a time
    that goes by `p + k`, because the mean is `(margin + D(u, i) - mean D)^2 + variance of D`.
    """
    counts = jnp.isfinite(negatives)
    number = jnp.sum(counts, axis=-1, dtype=negatives.dtype)
    mean = jnp.sum(jnp.where(counts, negatives, 0), axis=-1) / jnp.maximum(number, 1)
    apart = jnp.where(counts, negatives - mean[..., None], 0)
    variance = jnp.sum(jnp.square(apart), axis=-1) / jnp.maximum(number, 1)
    return jnp.where(number > 0, jnp.square(margin + positive - mean) + variance, 0)


def contrastive(
    positive: Float[Array, "*#b"], negatives: Float[Array, "*#b k"], margin: float, weight: float
) -> Float[Array, "*b"]:
    """`D(u, i) + weight mean_j max(0, margin - D(u, j))`: the positive is pulled without end.

    The mean is over the negatives that are not infinitely far; those beyond the margin are not
    pushed. SimpleX's cosine contrastive loss (Mao et al., CIKM 2021, eq. 1), doubled and for any
    rows: where these lie on the unit sphere, `D = 2 - 2 cos`, and a margin of `2 - 2 m` here is
    its `m`.

    Leading axes broadcast: negatives `[b, 1, k]` serve all positives `[b, p]` of a row, in a time
    that goes by `p + k`.
    """
    counted = jnp.maximum(jnp.sum(jnp.isfinite(negatives), axis=-1), 1)
    push = jnp.sum(jax.nn.relu(margin - negatives), axis=-1)
    return positive + weight * push / counted.astype(push.dtype)


def rank_weight(
    hinge: Float[Array, "*b k"], num_items: int, counted: Int[Array, "*b"] | None = None
) -> Float[Array, "*b"]:
    """WARP weight `log(1 + rank)` with `rank = floor(I * impostors / K)`.

    An impostor is a negative inside the margin, that is with a hinge above 0. The
    weight goes with the hinge of the *closest* negative, the largest one, and is a
    constant in the gradient. CML (Hsieh et al. 2017, section 3.1).

    Args:
      counted: how many of the K negatives count, below 2^20; None takes all.
    """
    if counted is None:
        counted = jnp.full(hinge.shape[:-1], hinge.shape[-1], jnp.int32)
    counted = jnp.maximum(counted, 1)
    impostors = jnp.sum(hinge > 0, axis=-1, dtype=jnp.int32)
    # floor(I * n / K), with n in two digits to the base 1024, so that nothing passes 2^31.
    whole, rest = jnp.divmod(num_items, counted)
    high, low = jnp.divmod(impostors, 1024)
    upper = rest * high
    lower = (upper % counted * 1024 + rest * low) // counted
    rank = whole * impostors + upper // counted * 1024 + lower
    return jnp.log1p(rank.astype(hinge.dtype))


def covariance_penalty(rows: Float[Array, "n d"]) -> Float[Array, ""]:
    """Signed sum of the off-diagonal entries of the covariance `rows^T rows / n` of centred rows.

    After CML (Hsieh et al. 2017, section 3.4), in the form of the authors' TensorFlow
    code, which gives it the rows of both tables. It can be negative.
    """
    centred = rows - jnp.mean(rows, axis=0, keepdims=True)
    covariance = centred.T @ centred / rows.shape[0]
    return jnp.sum(covariance) - jnp.trace(covariance)


def covariance_divergence(rows: Float[Array, "n d"]) -> Float[Array, ""]:
    """`tr(C) - log det(C + 1e-6 I) - d`: how far the covariance `C` of the rows is from `I`.

    CPE (Bao et al., ACM MM 2019, eq. 12 and what follows it), which wants each dimension to tell
    something of its own. The small multiple of `I` is for dimensions that do not vary.

    Covariance `I` is that of centred rows of mean squared length `d`, which a ball of radius 1 does
    not allow: within it the least is about `1 + d log d - d`, where all `d` dimensions vary alike
    by `1 / d`.
    """
    dim = rows.shape[1]
    centred = rows - jnp.mean(rows, axis=0, keepdims=True)
    covariance = centred.T @ centred / rows.shape[0]
    identity = jnp.eye(dim, dtype=rows.dtype)
    return jnp.trace(covariance) - jnp.linalg.slogdet(covariance + 1e-6 * identity)[1] - dim
