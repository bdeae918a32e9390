"""CML with features of items (Hsieh et al., Collaborative Metric Learning, WWW 2017, sec. 3.3)."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hlr_jax.models.cml import CML
from hlr_jax.registry import register


@register("cmlf")
class CMLF(CML):
    """CML whose items are drawn to where a network expects them by their features.

    `L_f = sum over all items j of D(f(x_j), v_j)` is added to the loss of every step. Features
    act through training only: distances and scores are CML's. The authors put dropout between the
    layers of `f`, which is left out here. An item without features is drawn to `f(0)`.

    All items count once in a step. Beside a loss summed over the batch (`config.loss.reduction`)
    `L_f` counts the less the more rows a batch has; beside the mean, the same for any batch.

    Attributes:
      feature_weight: `lambda_f`, the weight of `L_f`.
      feature_hidden: units of `f`'s hidden layer.
    """

    feature_weight: float = 0.1
    feature_hidden: int = 128

    uses_features: ClassVar[bool] = True

    def check(self) -> None:
        self.require(self.feature_weight >= 0, "feature_weight", "use a weight, or 0 for none")
        self.require(self.feature_hidden >= 1, "feature_hidden", "use at least 1 hidden unit")

    def setup(self) -> None:
        self.hidden = nn.Dense(self.feature_hidden)
        self.output = nn.Dense(self.dim)

    def features_penalty(
        self, items: Float[Array, "i d"], features: Float[Array, "i f"]
    ) -> Float[Array, ""]:
        """`lambda_f L_f`, with `f` a hidden ReLU layer and a linear one, kept where rows may be."""
        points = self.geometry.project(self.output(jax.nn.relu(self.hidden(features))))
        return self.feature_weight * jnp.sum(self.geometry.distance(points, items))
