"""Penalties on whole tables."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def covariance_penalty(rows: Float[Array, "n d"]) -> Float[Array, ""]:
    """Sum the off-diagonal entries of the covariance `rows^T rows / n` of centred rows.

    After CML (Hsieh et al. 2017, section 3.4), in the form of the authors' TensorFlow
    code, which gives it the rows of both tables. It can be negative.
    """
    centred = rows - jnp.mean(rows, axis=0, keepdims=True)
    covariance = centred.T @ centred / rows.shape[0]
    return jnp.sum(covariance) - jnp.trace(covariance)


def covariance_divergence(rows: Float[Array, "n d"]) -> Float[Array, ""]:
    """Measure how far the covariance `C` of rows is from `I`: `tr C - log det(C + 1e-6 I) - d`.

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


def uniformity(distances: Float[Array, "n n"]) -> Float[Array, ""]:
    """Compute `log mean exp(-2 D(x, y))` over the pairs of different points `x` and `y`.

    The uniformity of Wang and Isola (ICML 2020), as DirectAU takes it for the points of users and
    of items (Wang et al., "Towards Representation Alignment and Uniformity in Collaborative
    Filtering", KDD 2022): on the unit sphere it is least where they are spread evenly.

    Args:
      distances: of every point to every point; those to themselves do not count.
    """
    number = len(distances)
    others = ~jnp.eye(number, dtype=bool)
    total = jax.nn.logsumexp(-2 * distances, where=others)
    return total - jnp.log(jnp.asarray(number * (number - 1), distances.dtype))
